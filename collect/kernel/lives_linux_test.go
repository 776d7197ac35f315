//go:build amd64 || arm64

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/zoo"
)

// eachSource runs a test with each source that this host has: eBPF on this kernel and
// on one that does not say which thread is the last, and the connector.
func eachSource(t *testing.T, test func(t *testing.T, r *recorder)) {
	ebpf := func(h host) func(testing.TB) Source {
		return func(t testing.TB) Source { return openOrSkip(t, Config{}, h) }
	}
	for name, open := range map[string]func(testing.TB) Source{
		"ebpf": ebpf(thisHost()), "ebpf of an old kernel": ebpf(oldHost()),
		"connector": func(t testing.TB) Source { return listenOrSkip(t, Config{}) },
	} {
		t.Run(name, func(t *testing.T) { test(t, &recorder{t: t, source: open(t)}) })
	}
}

// TestFirstThreadEndsFirst: a process goes on without its first thread.
func TestFirstThreadEndsFirst(t *testing.T) {
	eachSource(t, func(t *testing.T, r *recorder) {
		p := zoo.Start(t, "leader", nil)
		p.Act()
		r.settle()
		r.of(int(p.PID), KindFork, KindExec)
		p.Kill()
		if x := r.of(int(p.PID), KindFork, KindExec, KindExit)[2]; x.Exit.Signal != int32(unix.SIGKILL) {
			t.Errorf("got %+v", x.Exit)
		}
	})
}

// TestSamePIDAgain: processes that have one PID, most of them within one clock tick,
// begin and end once each.
func TestSamePIDAgain(t *testing.T) {
	eachSource(t, func(t *testing.T, r *recorder) {
		pid, err := zoo.FreePID()
		if err != nil {
			t.Skip(err)
		}
		const n = 20 // and one that it tries out
		p := zoo.StartOrSkip(t, fmt.Sprintf("twins %d", pid), nil)
		for range n {
			p.Do("start")
			p.Do("end")
		}
		r.settle()
		lives := checkTwins(t, r.records, pid, n+1)
		if _, exact := r.source.(*bpfSource); exact && lives != n+1 {
			t.Errorf("%d processes, told as %d", n+1, lives)
		}
	})
}

// checkTwins fails unless n processes had that PID, and each ended once. It returns how
// many starts there were: the connector tells the tick.
func checkTwins(t *testing.T, records []Record, pid int32, n int) (starts int) {
	t.Helper()
	type life struct{ forks, exits int }
	began := make(map[time.Duration]int)
	open, ended := life{}, 0
	for _, x := range records {
		switch {
		case x.PID != pid:
		case x.Kind == KindFork:
			open.forks++
			began[x.Start]++
		case x.Kind == KindExit:
			open.exits++
			if x.Exit.Signal != int32(unix.SIGKILL) {
				t.Errorf("got %+v", x.Exit)
			}
			if began[x.Start]--; began[x.Start] >= 0 {
				ended++
			}
		}
	}
	if open != (life{n, n}) || ended != n {
		t.Errorf("%+v, %d of them match, want %d", open, ended, n)
	}
	return len(began)
}

// TestOrphan: a child outlives its parent and has another one then, a subreaper here.
func TestOrphan(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	eachSource(t, func(t *testing.T, r *recorder) {
		in, hold, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		parent := run(t, "orphan", func(c *exec.Cmd) { c.Stdin, c.Stdout = in, &out })
		orphan, err := strconv.Atoi(strings.TrimSpace(out.String()))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(hold.Close(), in.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Wait4(orphan, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		first := r.of(parent.Process.Pid, KindFork, KindExec, KindExit)
		all := r.of(orphan, KindFork, KindExec, KindExit)
		last := int(all[2].PPID)
		if _, connector := r.source.(*connectorSource); connector && last == 0 { // not told by a thread that is not the first
			last = os.Getpid()
		}
		if int(all[0].PPID) != parent.Process.Pid || last != os.Getpid() || all[0].ParentStart != first[0].Start || all[2].At < first[2].At {
			t.Errorf("parent %+v\norphan %+v", first, all)
		}
	})
}

// TestSibling: a process that another one makes for its own parent (CLONE_PARENT) has
// that parent. Its image is that of the one that made it, which only eBPF can tell.
func TestSibling(t *testing.T) {
	eachSource(t, func(t *testing.T, r *recorder) {
		var out bytes.Buffer
		cmd := run(t, "sibling", func(c *exec.Cmd) { c.Stdout = &out })
		sibling, err := strconv.Atoi(strings.TrimSpace(out.String()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Wait4(sibling, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		creator := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)
		all := r.of(sibling, KindFork, KindExit)
		for _, x := range all {
			if int(x.PPID) != os.Getpid() || x.ParentStart != creator[0].ParentStart {
				t.Errorf("%v: parent %d of %v, want %d of %v", x.Kind, x.PPID, x.ParentStart, os.Getpid(), creator[0].ParentStart)
			}
		}
		if all[1].Exit.Code != 6 {
			t.Errorf("exit %+v", all[1].Exit)
		}
		_, knows := r.source.(*bpfSource)
		if fork := all[0]; knows && (int(fork.Creator) != cmd.Process.Pid || fork.Comm != "exe") || !knows && fork.Creator != 0 {
			t.Errorf("made by %d, named %q", fork.Creator, fork.Comm)
		}
	})
}

// TestCodeOfOneOfManyThreads: when several threads end the process at the same time, it
// ends once, with the code that its parent is told.
func TestCodeOfOneOfManyThreads(t *testing.T) {
	const n = 30
	eachSource(t, func(t *testing.T, r *recorder) {
		for range n {
			r.drain()
			r.records = nil // PIDs come again where others start many processes
			cmd := actor(t, "together", nil)
			_ = cmd.Run() // it ends with a code
			code := int32(cmd.ProcessState.ExitCode())
			if code < 10 {
				t.Fatalf("it ended with %d", code)
			}
			if x := r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[2]; x.Exit.Code != code || x.Exit.Signal != 0 {
				t.Errorf("got %+v, want the code %d", x.Exit, code)
			}
		}
	})
}

// TestCPUTimeOfAllThreads: threads that have ended count, and so do those that end with
// the process.
func TestCPUTimeOfAllThreads(t *testing.T) {
	for name, h := range map[string]host{"told": thisHost(), "found out": oldHost()} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{t: t, source: openOrSkip(t, Config{}, h)}
			p := zoo.Start(t, "spin", nil)
			p.Act()
			p.Kill()
			usage := p.Cmd.ProcessState.SysUsage().(*syscall.Rusage)
			used := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
			exit := r.of(int(p.PID), KindFork, KindExec, KindExit)[2].Exit
			if used < 2*zoo.Spin || exit.CPU > used || exit.CPU < used-20*time.Millisecond {
				t.Errorf("CPU time %v, want at most a tick less than %v, which is more than %v", exit.CPU, used, 2*zoo.Spin)
			}
		})
	}
}

// TestHostileNames: a name may have anything in it but a slash and a NUL byte.
func TestHostileNames(t *testing.T) {
	const name = "\xff) R 1 (\n\x1b[2J (deleted)"
	args := []string{"\xc3\x28", "a\nb\tc\x7f", "\u202e", "", ") Z 1 1"}
	eachSource(t, func(t *testing.T, r *recorder) {
		path := copyOfTestBinary(t, name)
		change := func(c *exec.Cmd) { c.Path, c.Args = path, args }
		x := r.ofActor("nothing", change, KindFork, KindExec, KindExit)[1]
		if x.Exe != path || x.ExeDeleted || x.Comm != name[:15] || strings.Join(x.Args, "\x00") != strings.Join(args, "\x00") {
			t.Errorf("got %q, deleted %v, named %q, with %q", x.Exe, x.ExeDeleted, x.Comm, x.Args)
		}
	})
}

// TestDeletedName: a file that has other names is deleted under the one that was run.
func TestDeletedName(t *testing.T) {
	eachSource(t, func(t *testing.T, r *recorder) {
		path := copyOfTestBinary(t, "first")
		if err := os.Link(path, filepath.Join(filepath.Dir(path), "second")); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		change := func(c *exec.Cmd) { c.ExtraFiles, c.Path = []*os.File{file}, "/proc/self/fd/3" }
		if x := r.ofActor("nothing", change, KindFork, KindExec, KindExit)[1]; x.Exe != path || !x.ExeDeleted {
			t.Errorf("got %q, deleted %v, want %q, deleted", x.Exe, x.ExeDeleted, path)
		}
	})
}
