package procfs

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// needs skips the test if the host did not let something be done.
func needs(t *testing.T, what string, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("%s: %v", what, err)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestMemoryFileExecutable(t *testing.T) {
	fd, err := unix.MemfdCreate("made of memory", 0)
	needs(t, "make a file in memory", err)
	file := os.NewFile(uintptr(fd), "memfd")
	defer func() { _ = file.Close() }()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	if _, err := io.Copy(file, self); err != nil {
		t.Fatal(err)
	}
	c := start(t, "wait", func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{file}
		cmd.Path = "/proc/self/fd/" + strconv.Itoa(fd)
	})
	p := whole(t, scan(t, newScanner(t, Config{}), false), c.pid).Process
	if p.Exe != "/memfd:made of memory" || !p.ExeDeleted || p.Missing.Absent() != unsupported {
		t.Errorf("executable %q, deleted %v, missing %+v", p.Exe, p.ExeDeleted, p.Missing)
	}
}

// TestTitle: a process that writes over its own arguments is seen to have done so
// within 30 scans, as no exec.
func TestTitle(t *testing.T) {
	s := newScanner(t, Config{})
	c := start(t, "title", with("to be", "written over", "and", "over"))
	scan(t, s, false)
	c.act()
	for range rereadEvery {
		if o := observed(t, scan(t, s, false), c.pid); o.Process != nil {
			if text := strings.Join(o.Process.Args, "\x00"); !strings.HasPrefix(text, "a new title") || o.ExecChanged {
				t.Errorf("arguments %q, exec %v", o.Process.Args, o.ExecChanged)
			}
			return
		}
	}
	t.Error("the new title was not seen")
}

func TestThousandThreads(t *testing.T) {
	const threads = 1000
	c := start(t, "threads "+strconv.Itoa(threads), nil)
	c.act()
	s := newScanner(t, Config{})
	for _, full := range []bool{false, false, true} {
		o := observed(t, scan(t, s, full), c.pid)
		if o.Threads < threads {
			t.Errorf("%d threads, want %d or more", o.Threads, threads)
		}
	}
}

// TestOrphan: the child of a parent that dies first goes to a subreaper, and is
// reported with its new parent though it did nothing.
func TestOrphan(t *testing.T) {
	err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	needs(t, "become a subreaper", err)
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	s := newScanner(t, Config{})
	parent := start(t, "parent", nil)
	orphan := parent.child()
	if o := whole(t, scan(t, s, false), orphan); o.Process.PPID != parent.pid {
		t.Errorf("parent %d, want %d", o.Process.PPID, parent.pid)
	}
	if err := parent.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.cmd.Wait() // it was killed
	o := whole(t, scan(t, s, false), orphan)
	if o.Process.PPID != int32(os.Getpid()) || o.ExecChanged {
		t.Errorf("parent %d, want %d; exec %v", o.Process.PPID, os.Getpid(), o.ExecChanged)
	}
	if err := unix.Kill(int(orphan), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(int(orphan), nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Probe(t.Context(), orphan); !errors.Is(err, collect.ErrGone) {
		t.Errorf("error %v, want %v", err, collect.ErrGone)
	}
}

// TestNamespace: a process of another PID namespace has the PID of ours.
func TestNamespace(t *testing.T) {
	cmd := func(c *exec.Cmd) {
		c.Args = []string{"first of its kind"}
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		if os.Getuid() != 0 {
			c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		}
	}
	c := startOrSkip(t, "wait", cmd)
	p := whole(t, scan(t, newScanner(t, Config{}), false), c.pid).Process
	if p.PID != c.pid || p.PPID != int32(os.Getpid()) || !cmp.Equal(p.Args, []string{"first of its kind"}) {
		t.Errorf("got %+v", p)
	}
}

// TestRecycledPID gives the PID of a known process to another one: a new process
// of which nothing is of the old one.
func TestRecycledPID(t *testing.T) {
	s := newScanner(t, Config{})
	old := start(t, "wait", with("the old one"))
	first := whole(t, scan(t, s, false), old.pid)
	for began := time.Now(); time.Since(began) < 3*procfile.Tick; { // the next one starts in another tick
		scan(t, s, false)
	}
	old.kill()
	next := startAt(t, old.pid, "the new one")
	o := whole(t, scan(t, s, false), next)
	if o.PID != old.pid || o.StartTicks == first.StartTicks || o.ExecChanged || o.Process.Args[0] != "the new one" {
		t.Errorf("got %+v of %+v", o, o.Process)
	}
}

// TestHidePID mounts a /proc that shows an ordinary user only its own processes.
func TestHidePID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	for option, hidden := range map[string]bool{"hidepid=1": true, "hidepid=2": false} {
		t.Run(option, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			needs(t, "mount", unix.Mount("proc", dir, "proc", 0, option))
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Errorf("unmount: %v", err)
				}
			}()
			nobody := start(t, "scan "+dir, func(c *exec.Cmd) {
				c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			})
			if _, err := io.WriteString(nobody.in, "\n"); err != nil {
				t.Fatal(err)
			}
			var snap collect.Snapshot
			if err := json.NewDecoder(nobody.out).Decode(&snap); err != nil {
				t.Fatal(err)
			}
			if len(snap.Observations) != 1 || snap.Observations[0].PID != nobody.pid || (snap.Hidden > 0) != hidden {
				t.Errorf("%d processes, %d hidden", len(snap.Observations), snap.Hidden)
			}
		})
	}
}

// TestSteadyScanAllocatesNothing: what a scan of known processes costs in memory
// does not grow with their number.
func TestSteadyScanAllocatesNothing(t *testing.T) {
	allocs := func(n int, enhanced bool) float64 {
		f := newFixture(t)
		f.putSelf()
		for pid := 1; pid <= n; pid++ {
			f.put(pid, sleeper(pid, 1))
			f.surround(pid, surrounded)
		}
		s, snap := newScanner(t, Config{Proc: f.dir, Enhanced: enhanced, Env: []string{"LANG"}}), new(collect.Snapshot)
		if enhanced {
			s.enhanced.exact = true
		}
		return testing.AllocsPerRun(2*rereadEvery, func() {
			if err := s.Scan(t.Context(), false, snap); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, enhanced := range []bool{false, true} {
		if few, many := allocs(10, enhanced), allocs(200, enhanced); many > few || few > 20 {
			t.Errorf("enhanced %v: %v allocations a scan with 10 processes, %v with 200", enhanced, few, many)
		}
	}
}

// TestZombieIsAskedOnce: how it ended is found out at the first sight.
func TestZombieIsAskedOnce(t *testing.T) {
	s := newScanner(t, Config{})
	c := start(t, "exit 7", nil)
	c.ended()
	first := observed(t, scan(t, s, false), c.pid)
	second := observed(t, scan(t, s, false), c.pid)
	if first.Exit == nil || first.Exit != second.Exit || *first.Exit != (event.Exit{Code: 7, CPU: first.CPU}) {
		t.Errorf("exits %+v and %+v", first.Exit, second.Exit)
	}
}
