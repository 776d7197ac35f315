package scantest

import (
	"errors"
	"fmt"
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
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

func (s Source) testMemoryFile(t *testing.T) {
	fd, err := unix.MemfdCreate("made of memory", 0)
	zoo.Needs(t, "make a file in memory", err)
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
	c := zoo.Start(t, "wait", func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{file}
		cmd.Path = "/proc/self/fd/" + strconv.Itoa(fd)
	})
	p := Whole(t, Scan(t, s.host(t), false), c.PID).Process
	if p.Exe != "/memfd:made of memory" || !p.ExeDeleted || p.Missing.Absent() != s.Unsupported {
		t.Errorf("executable %q, deleted %v, missing %+v", p.Exe, p.ExeDeleted, p.Missing)
	}
}

// testTitle: a process that writes over its own arguments is seen to have done so
// within 30 scans, as no exec.
func (s Source) testTitle(t *testing.T) {
	scanner := s.host(t)
	c := zoo.Start(t, "title a new title", zoo.With("to be", "written over", "and", "over"))
	Scan(t, scanner, false)
	c.Act()
	for range rereadEvery {
		if o := Observed(t, Scan(t, scanner, false), c.PID); o.Process != nil {
			if text := strings.Join(o.Process.Args, "\x00"); !strings.HasPrefix(text, "a new title") || o.ExecChanged {
				t.Errorf("arguments %q, exec %v", o.Process.Args, o.ExecChanged)
			}
			return
		}
	}
	t.Error("the new title was not seen")
}

func (s Source) testThousandThreads(t *testing.T) {
	const threads = 1000
	c := zoo.Start(t, "threads "+strconv.Itoa(threads), nil)
	c.Act()
	scanner := s.host(t)
	for _, full := range []bool{false, false, true} {
		o := Observed(t, Scan(t, scanner, full), c.PID)
		if o.Threads < threads {
			t.Errorf("%d threads, want %d or more", o.Threads, threads)
		}
	}
}

// testCPUTime: threads that have ended count, and so do those that live beside the first.
func (s Source) testCPUTime(t *testing.T) {
	scanner := s.host(t)
	c := zoo.Start(t, "spin", nil)
	before := Observed(t, Scan(t, scanner, false), c.PID)
	c.Act()
	after := Observed(t, Scan(t, scanner, false), c.PID)
	// Before and after are rounded to ticks, each for user and system.
	if used := after.CPU - before.CPU; used < 2*zoo.Spin-2*procfile.Tick {
		t.Errorf("%v of processor time, want %v", used, 2*zoo.Spin)
	}
}

// testOrphan: the child of a parent that dies first goes to a subreaper, or else to
// the first process, and is reported with its new parent though it did nothing.
func (s Source) testOrphan(t *testing.T) {
	t.Run("to a subreaper", func(t *testing.T) {
		zoo.Needs(t, "become a subreaper", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
		scanner := s.host(t)
		orphan, parent := orphaned(t, scanner)
		if parent != int32(os.Getpid()) {
			t.Errorf("parent %d, want %d", parent, os.Getpid())
		}
		end(t, orphan)
		if _, err := unix.Wait4(int(orphan), nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := scanner.Probe(t.Context(), orphan); !errors.Is(err, collect.ErrGone) {
			t.Errorf("error %v, want %v", err, collect.ErrGone)
		}
	})
	t.Run("to the first process", func(t *testing.T) {
		orphan, parent := orphaned(t, s.host(t))
		if parent == int32(os.Getpid()) {
			t.Error("it is ours, though we are no subreaper")
		}
		end(t, orphan)
	})
}

func end(t *testing.T, pid int32) {
	t.Helper()
	if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// orphaned ends the parent of a child, and returns which one it is seen with then.
func orphaned(t *testing.T, scanner collect.Scanner) (orphan, parent int32) {
	t.Helper()
	first := zoo.Start(t, "parent", nil)
	first.Ask("", &orphan)
	if o := Whole(t, Scan(t, scanner, false), orphan); o.Process.PPID != first.PID {
		t.Errorf("parent %d, want %d", o.Process.PPID, first.PID)
	}
	first.Kill()
	o := Whole(t, Scan(t, scanner, false), orphan)
	if o.Process.PPID == first.PID || o.ExecChanged {
		t.Errorf("parent %d; exec %v", o.Process.PPID, o.ExecChanged)
	}
	return orphan, o.Process.PPID
}

// testNamespace: a process of another PID namespace has the PID of ours.
func (s Source) testNamespace(t *testing.T) {
	cmd := func(c *exec.Cmd) {
		c.Args = []string{"first of its kind"}
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		if os.Getuid() != 0 {
			c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		}
	}
	c := zoo.StartOrSkip(t, "wait", cmd)
	p := Whole(t, Scan(t, s.host(t), false), c.PID).Process
	if p.PID != c.PID || p.PPID != int32(os.Getpid()) || !cmp.Equal(p.Args, []string{"first of its kind"}) {
		t.Errorf("got %+v", p)
	}
}

// testRecycledPID gives the PID of a known process to another one: a new process
// of which nothing is of the old one.
func (s Source) testRecycledPID(t *testing.T) {
	scanner := s.host(t)
	old := zoo.Start(t, "wait", zoo.With("the old one"))
	first := Whole(t, Scan(t, scanner, false), old.PID)
	for began := time.Now(); time.Since(began) < 3*procfile.Tick; { // the next one starts in another tick
		Scan(t, scanner, false)
	}
	old.Kill()
	zoo.StartAt(t, old.PID, "the new one")
	o := Whole(t, Scan(t, scanner, false), old.PID)
	if o.PID != old.PID || o.StartTicks == first.StartTicks || o.ExecChanged || o.Process.Args[0] != "the new one" {
		t.Errorf("got %+v of %+v", o, o.Process)
	}
}

// testTwins gives a PID to another process in the tick in which the first one
// started, so that both start at the same time. If a scan fell between them it saw
// that the first one had gone, and the second is new. If none did, there is nothing
// that tells them apart: that is the resolution of what the kernel shows.
func (s Source) testTwins(t *testing.T) {
	pid, err := zoo.FreePID()
	if err != nil {
		t.Fatal(err)
	}
	twins := zoo.StartOrSkip(t, "twins "+strconv.Itoa(int(pid)), nil)
	for _, between := range []bool{true, false} {
		t.Run(fmt.Sprintf("scan between %v", between), func(t *testing.T) {
			scanner := s.host(t)
			for range 500 {
				if first, second := s.reuse(t, scanner, twins, pid, between); first.StartTicks == second.StartTicks {
					// It may be told as new without need: its turn may have come.
					if told := second.Process != nil; between && !told || second.ExecChanged {
						t.Errorf("the second is told as new: %v; exec %v", told, second.ExecChanged)
					}
					return
				}
			}
			t.Skip("this host is too slow for two processes in one tick")
		})
	}
}

// reuse starts two processes with one PID, one after the other, and returns what
// is seen of both.
func (s Source) reuse(t *testing.T, scanner collect.Scanner, twins *zoo.Process, pid int32, between bool) (first, second collect.Observation) {
	t.Helper()
	twins.Do("start")
	first = Whole(t, Scan(t, scanner, false), pid)
	twins.Do("end")
	if between {
		for _, o := range Scan(t, scanner, false).Observations {
			if o.PID == pid {
				t.Errorf("a process that has ended is seen: %+v", o)
			}
		}
	}
	twins.Do("start")
	second = Observed(t, Scan(t, scanner, false), pid)
	if first.StartTicks != second.StartTicks && second.Process == nil {
		t.Errorf("another process is taken for the first one: %+v, %+v", first, second)
	}
	twins.Do("end")
	Scan(t, scanner, false)
	return first, second
}

// testHidePID mounts a /proc that shows an ordinary user only its own processes.
func (s Source) testHidePID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	for option, hidden := range map[string]bool{"hidepid=1": true, "hidepid=2": false} {
		t.Run(option, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			zoo.Needs(t, "mount", unix.Mount("proc", dir, "proc", 0, option))
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Errorf("unmount: %v", err)
				}
			}()
			p := zoo.Start(t, "scan "+dir, ordinary)
			var snap collect.Snapshot
			p.Ask("", &snap)
			if len(snap.Observations) != 1 || snap.Observations[0].PID != p.PID || (snap.Hidden > 0) != hidden {
				t.Errorf("%d processes, %d hidden", len(snap.Observations), snap.Hidden)
			}
		})
	}
}
