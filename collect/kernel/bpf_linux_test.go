//go:build amd64 || arm64

package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestProcess: what is told of a plain process is what /proc says of it.
func TestProcess(t *testing.T) {
	r := record(t)
	cmd := actor(t, "end", func(c *exec.Cmd) { c.Args = []string{"watched", "", "two words", "not\xffUTF-8"} })
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stat := statOf(t, cmd.Process.Pid)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	parent := statOf(t, os.Getpid())
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	all := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)
	for _, x := range all {
		if uint64(x.Start/procfile.Tick) != stat.Start || uint64(x.ParentStart/procfile.Tick) != parent.Start || int(x.PPID) != os.Getpid() {
			t.Errorf("%v: start %v, parent %d of %v, want ticks %d and %d", x.Kind, x.Start, x.PPID, x.ParentStart, stat.Start, parent.Start)
		}
	}
	for _, x := range all[:2] {
		caps := fmt.Sprintf("CapEff:\t%016x\n", x.CapEffective)
		uids := fmt.Sprintf("Uid:\t%d\t%d\t", x.UID, x.EUID)
		gids := fmt.Sprintf("Gid:\t%d\t%d\t", x.GID, x.EGID)
		for _, line := range []string{caps, uids, gids} {
			if !bytes.Contains(status, []byte(line)) {
				t.Errorf("%v: status has no %q", x.Kind, line)
			}
		}
		if x.Session != stat.Session || x.TTY != stat.TTY || x.CgroupID == 0 {
			t.Errorf("%v: session %d, tty %d, cgroup %d, want %d and %d", x.Kind, x.Session, x.TTY, x.CgroupID, stat.Session, stat.TTY)
		}
	}
	x := all[1]
	if d := cmp.Diff([]string{"watched", "", "two words", "not\xffUTF-8"}, x.Args); d != "" {
		t.Errorf("arguments, -want +got:\n%s", d)
	}
	if x.Exe != testBinary(t) || x.ExeDeleted || x.Comm != "exe" || !x.Missing.IsZero() {
		t.Errorf("executable %q, deleted %v, name %q, missing %+v", x.Exe, x.ExeDeleted, x.Comm, x.Missing)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	used := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	exit := *all[2].Exit
	if exit.CPU > used || exit.CPU < used-20*time.Millisecond || exit.CPU == 0 {
		t.Errorf("CPU time %v, want at most a tick less than %v", exit.CPU, used)
	}
	if exit.MaxRSS != uint64(usage.Maxrss)<<10 {
		t.Errorf("largest resident size %d, want %d KiB", exit.MaxRSS, usage.Maxrss)
	}
}

func statOf(t *testing.T, pid int) procfile.Stat {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	var st procfile.Stat
	if err := st.Parse(b); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestExecByThread(t *testing.T) {
	for name, h := range map[string]host{"told": thisHost(), "found out": oldHost()} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{t: t, source: openOrSkip(t, Config{}, h)}
			cmd := run(t, "exec", nil)
			all := r.of(cmd.Process.Pid, KindFork, KindExec, KindExec, KindExit)
			if d := cmp.Diff([]string{"second", "image"}, all[2].Args); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestForkWithoutExec(t *testing.T) {
	r := record(t)
	cmd := run(t, "fork", nil)
	child := r.until("child", func(x *Record) bool { return int(x.PPID) == cmd.Process.Pid && x.Kind == KindExit && x.Exit.Code == 5 })
	all := r.of(int(child.PID), KindFork, KindExit)
	if all[0].Comm != "exe" || all[0].ParentStart != r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[0].Start {
		t.Errorf("got %+v", all[0])
	}
}

func TestEmptyArguments(t *testing.T) {
	r := record(t)
	cmd := run(t, "empty", nil)
	all := r.of(cmd.Process.Pid, KindFork, KindExec, KindExec, KindExit)
	// The kernel gives an empty name to who has none, since 5.18.
	if args := all[2].Args; len(args) > 1 || strings.Join(args, "") != "" || !all[2].Missing.IsZero() {
		t.Errorf("arguments %q, missing %+v", args, all[2].Missing)
	}
}

// TestLongArguments: they are cut, in a single long one or in many.
func TestLongArguments(t *testing.T) {
	r := record(t)
	for name, args := range map[string][]string{
		"one":  {"short", strings.Repeat("x", 128<<10-1)},
		"many": slices.Repeat([]string{"argument"}, 128<<10/9),
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			cmd := run(t, "nothing", func(c *exec.Cmd) { c.Args = args })
			x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]
			kept, whole := strings.Join(x.Args, "\x00"), strings.Join(args, "\x00")
			if len(kept) < 8000 || !strings.HasPrefix(whole, kept) {
				t.Errorf("%d bytes: %.20q...", len(kept), kept)
			}
			if want := (event.Mask{Truncated: event.FieldSet(0).With(event.FieldArgs)}); x.Missing != want {
				t.Errorf("missing %+v, want %+v", x.Missing, want)
			}
		})
	}
}

func TestKilled(t *testing.T) {
	r := record(t)
	cmd := actor(t, "end", nil)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	x := r.until("exit", func(x *Record) bool { return int(x.PID) == cmd.Process.Pid && x.Kind == KindExit })
	if x.Exit.Signal != 9 || x.Exit.Code != 0 || x.Exit.Core {
		t.Errorf("got %+v", x.Exit)
	}
}

func TestSession(t *testing.T) {
	r := record(t)
	cmd := run(t, "session", nil)
	all := r.of(cmd.Process.Pid, KindFork, KindExec, KindExec, KindExit)
	if before, after := all[1].Session, all[2].Session; before == after || int(after) != cmd.Process.Pid {
		t.Errorf("sessions %d and %d of process %d", before, after, cmd.Process.Pid)
	}
}

// copyOfTestBinary is in a new directory that everyone may enter.
func copyOfTestBinary(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSetUserID(t *testing.T) {
	r := record(t)
	path := copyOfTestBinary(t, "setuid")
	if err := os.Chown(path, 65534, 65533); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	cmd := run(t, "nothing", func(c *exec.Cmd) { c.Path = path })
	all := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)
	got := []uint32{all[0].UID, all[0].EUID, all[0].EGID, all[1].UID, all[1].EUID, all[1].GID, all[1].EGID}
	if d := cmp.Diff([]uint32{0, 0, 0, 0, 65534, 0, 65533}, got); d != "" {
		t.Errorf("ids, -want +got:\n%s", d)
	}
	if all[0].CapEffective == 0 || all[1].CapEffective != 0 {
		t.Errorf("capabilities %x and %x", all[0].CapEffective, all[1].CapEffective)
	}
}

// TestExecutable: the path is what /proc would have shown.
func TestExecutable(t *testing.T) {
	r := record(t)
	t.Run("renamed and linked", func(t *testing.T) {
		r.t = t
		path := copyOfTestBinary(t, "named (deleted)")
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		cmd := run(t, "nothing", func(c *exec.Cmd) { c.Path = link })
		if x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]; x.Exe != path || x.ExeDeleted {
			t.Errorf("got %q, deleted %v, want %q", x.Exe, x.ExeDeleted, path)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		r.t = t
		path := copyOfTestBinary(t, "gone")
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		cmd := run(t, "nothing", func(c *exec.Cmd) { c.ExtraFiles = []*os.File{file}; c.Path = "/proc/self/fd/3" })
		if x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]; x.Exe != path || !x.ExeDeleted {
			t.Errorf("got %q, deleted %v, want %q, deleted", x.Exe, x.ExeDeleted, path)
		}
	})
	t.Run("memory", func(t *testing.T) {
		r.t = t
		cmd := run(t, "memory made of memory", nil)
		if x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExec, KindExit)[2]; x.Exe != "/memfd:made of memory" || !x.ExeDeleted {
			t.Errorf("got %q, deleted %v", x.Exe, x.ExeDeleted)
		}
	})
	t.Run("script", func(t *testing.T) {
		r.t = t
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, []byte("#!"+copyOfTestBinary(t, "interpreter")+" option\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := run(t, "nothing", func(c *exec.Cmd) { c.Path = path })
		x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]
		if filepath.Base(x.Exe) != "interpreter" || len(x.Args) != 3 || x.Args[2] != path {
			t.Errorf("got %q, arguments %q", x.Exe, x.Args)
		}
	})
	t.Run("long", func(t *testing.T) {
		r.t = t
		deep := filepath.Join(t.TempDir(), strings.Repeat("d/", 40), strings.Repeat("n", 255), strings.Repeat("m", 255))
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(deep, "program")
		if err := os.Link(copyOfTestBinary(t, "short"), path); err != nil {
			t.Fatal(err)
		}
		cmd := run(t, "nothing", func(c *exec.Cmd) { c.Path = path })
		if x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]; x.Exe != path {
			t.Errorf("got %q, want %q", x.Exe, path)
		}
	})
	t.Run("too deep", func(t *testing.T) {
		r.t = t
		deep := filepath.Join(t.TempDir(), strings.Repeat("d/", 70))
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(deep, "program")
		if err := os.Link(copyOfTestBinary(t, "short"), path); err != nil {
			t.Fatal(err)
		}
		cmd := run(t, "nothing", func(c *exec.Cmd) { c.Path = path })
		x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]
		if x.Exe != "" || !x.Missing.Failed.Has(event.FieldExe) || len(x.Args) != 1 {
			t.Errorf("got %q with %q, missing %+v", x.Exe, x.Args, x.Missing)
		}
	})
	t.Run("mounted", func(t *testing.T) {
		r.t = t
		dir := filepath.Join(t.TempDir(), "mount")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for range 2 { // one above the other
			if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
				t.Skip(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
		}
		b, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "program")
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := run(t, "nothing", func(c *exec.Cmd) { c.Path = path })
		if x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[1]; x.Exe != path || x.ExeDeleted {
			t.Errorf("got %q, deleted %v, want %q", x.Exe, x.ExeDeleted, path)
		}
	})
}

// TestNothingIsLeft: a reader that is killed leaves nothing in the kernel.
func TestNothingIsLeft(t *testing.T) {
	openOrSkip(t, Config{}, thisHost())
	cmd := actor(t, "hold", nil)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	in := bufio.NewScanner(out)
	for in.Scan() && in.Text() != "ready" {
		ids = append(ids, in.Text())
	}
	if len(ids) != 8 {
		t.Fatalf("it holds %q", ids)
	}
	for _, id := range ids {
		if !inKernel(t, id) {
			t.Errorf("%s is not there", id)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	timer := time.NewTicker(10 * time.Millisecond)
	defer timer.Stop()
	for began := time.Now(); len(ids) > 0; <-timer.C { // the kernel frees them some time later
		ids = slices.DeleteFunc(ids, func(id string) bool { return !inKernel(t, id) })
		if time.Since(began) > deadline {
			t.Fatalf("%q are still there", ids)
		}
	}
}

func inKernel(t *testing.T, what string) bool {
	t.Helper()
	kind, text, _ := strings.Cut(what, " ")
	id, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	var thing io.Closer
	if kind == "map" {
		thing, err = ebpf.NewMapFromID(ebpf.MapID(id))
	} else {
		thing, err = ebpf.NewProgramFromID(ebpf.ProgramID(id))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = thing.Close()
	return true
}

func TestClosedSource(t *testing.T) {
	s := openOrSkip(t, Config{}, thisHost())
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := s.Read(new(Batch)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
