package hash

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

// liveDeadline is the deadline of a file in these tests, and the most that any
// status may take.
const liveDeadline = 20 * time.Second

// newLive serves a hasher of this host.
func newLive(t *testing.T, change func(*Config)) *Hasher {
	t.Helper()
	cfg := Config{Log: discard(), Rate: 1 << 30, Deadline: liveDeadline}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

// await looks at one process until there is a status.
func await(t *testing.T, h *Hasher, target collect.HashTarget) event.Hash {
	t.Helper()
	began := time.Now()
	targets := []collect.HashTarget{target}
	h.Look(t.Context(), targets)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("look took %v", took)
	}
	if targets[0].Hash.Status != event.HashPending {
		return targets[0].Hash
	}
	timeout := time.NewTimer(liveDeadline)
	defer timeout.Stop()
	for {
		select {
		case <-h.Ready():
			for _, r := range h.Take() {
				if r.PID == target.PID {
					return r.Hash
				}
			}
		case <-timeout.C:
			t.Fatalf("no status for %+v", target)
		}
	}
}

// sleeper is a copy of sleep(1) at a path of its own, which the caller may change.
func sleeper(t *testing.T) (path string, sum [sha256.Size]byte) {
	t.Helper()
	from, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		t.Skip(err)
	}
	// One file for all is of no use: each test changes its own. The mark tells them apart.
	text = append(text, t.Name()...)
	path = filepath.Join(t.TempDir(), "sleeper")
	if err := os.WriteFile(path, text, 0o755); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return path, sha256.Sum256(text)
}

// run starts path and returns it as a target, as a scan would see it.
func run(t *testing.T, path string, change func(*exec.Cmd)) collect.HashTarget {
	t.Helper()
	cmd := exec.Command(path, "600")
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); errors.Is(err, unix.EACCES) {
		t.Skip("programs in the temporary directory may not be run")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return observe(t, cmd.Process.Pid)
}

func observe(t *testing.T, pid int) collect.HashTarget {
	t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return collect.HashTarget{PID: int32(pid), StartTicks: startTicks(line), Exe: strings.TrimSuffix(exe, deletedMark)}
}

func wantDigest(t *testing.T, got event.Hash, want [sha256.Size]byte) {
	t.Helper()
	if got.Status != event.HashDone || !slices.Equal(got.Value, want[:]) {
		t.Errorf("hash is %v %x %q, want %x", got.Status, got.Value, got.Reason, want)
	}
}

func wantSkip(t *testing.T, got event.Hash, reason string) {
	t.Helper()
	if got.Status != event.HashSkipped || !strings.HasPrefix(got.Reason, reason) {
		t.Errorf("hash is %v %x %q, want it skipped: %s", got.Status, got.Value, got.Reason, reason)
	}
}

func TestLiveExecutable(t *testing.T) {
	path, sum := sleeper(t)
	h := newLive(t, nil)
	wantDigest(t, await(t, h, run(t, path, nil)), sum)
}

// TestLiveDeleted digests what the process runs, though it is nowhere to be found,
// and though something else stands in its place.
func TestLiveDeleted(t *testing.T) {
	replacements := map[string]func(path string) error{
		"deleted": func(string) error { return nil },
		"replaced by another file": func(path string) error {
			return os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755) //nolint:gosec // as executables are
		},
		"replaced by a FIFO":      func(path string) error { return unix.Mkfifo(path, 0o755) },
		"replaced by a directory": func(path string) error { return os.Mkdir(path, 0o755) },
	}
	for name, replace := range replacements {
		t.Run(name, func(t *testing.T) {
			path, sum := sleeper(t)
			h := newLive(t, nil)
			target := run(t, path, nil)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			wantDigest(t, await(t, h, target), sum)
		})
	}
}

// TestLiveMemory digests an executable that never had a name, and keeps nothing: its
// pages can change without a trace.
func TestLiveMemory(t *testing.T) {
	path, sum := sleeper(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("procmond-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Skip(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer func() { _ = f.Close() }() // only memory
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	h := newLive(t, nil)
	// Who runs it may not have it open for writing.
	readable, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = readable.Close() }() // only read
	_ = f.Close()
	target := run(t, fmt.Sprintf("/proc/self/fd/%d", readable.Fd()), nil)
	wantDigest(t, await(t, h, target), sum)
	if s := h.Stats(); s.Cached != 0 {
		t.Errorf("stats are %+v, want nothing kept", s)
	}
}

func TestLiveSparse(t *testing.T) {
	path, _ := sleeper(t)
	if err := os.Truncate(path, 200e9); err != nil {
		t.Skip(err)
	}
	h := newLive(t, nil)
	began := time.Now()
	wantSkip(t, await(t, h, run(t, path, nil)), "too big: 200000000000 bytes, sparse: ")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the status took %v", took)
	}
}

// TestLiveGrowing appends to a file while it is read. No running executable can be
// written to, so it is reached by its path after its process has ended.
func TestLiveGrowing(t *testing.T) {
	path, _ := sleeper(t)
	f, err := statPath(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openPath(path, f.key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // only read
	h := newLive(t, nil)
	res := result{key: f.key}
	h.digest(t.Context(), growing{c, path, t}, &res)
	if res.failure == nil || res.failure.reason != reasonChanged {
		t.Errorf("failure is %v, want %s", res.failure, reasonChanged)
	}
	if res.bytes > uint64(f.size)+1 {
		t.Errorf("%d bytes were read of %d", res.bytes, f.size)
	}
}

// growing is a file that somebody else appends to as fast as it is read.
type growing struct {
	content
	path string
	t    *testing.T
}

func (g growing) Read(p []byte) (int, error) {
	f, err := os.OpenFile(g.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 2*chunk)); err != nil {
		g.t.Fatal(err)
	}
	_ = f.Close() // what was written is there
	return g.content.Read(p)
}

func TestLiveEnded(t *testing.T) {
	path, sum := sleeper(t)
	h := newLive(t, nil)
	cmd := exec.Command(path, "600")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	target := observe(t, cmd.Process.Pid)
	f, err := h.cfg.host.look(&target)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	wantSkip(t, await(t, h, target), reasonGone)
	// It was seen before it ended: the same file is still at its path.
	h.settle(&target, f, nil)
	<-h.Ready()
	wantDigest(t, h.Take()[0].Hash, sum)
}

// TestReuse gives a PID to another process between the look and the reading, and
// between the scan and the look.
func TestReuse(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spawn := func(ticks uint64, exe string) collect.HashTarget {
		t.Helper()
		_ = os.RemoveAll(filepath.Join(proc, "77"))
		if err := os.Mkdir(filepath.Join(proc, "77"), 0o700); err != nil {
			t.Fatal(err)
		}
		write("77/stat", "77 (a) b) (c) S 1 1 1 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 "+strconv.FormatUint(ticks, 10)+" 1 1")
		if err := os.Symlink(filepath.Join(proc, exe), filepath.Join(proc, "77", "exe")); err != nil {
			t.Fatal(err)
		}
		return collect.HashTarget{PID: 77, StartTicks: ticks, Exe: filepath.Join(proc, exe)}
	}
	write("first", "one")
	write("second", "two")
	h := newLive(t, func(c *Config) { c.Proc = proc })

	first := spawn(100, "first")
	f, err := h.cfg.host.look(&first)
	if err != nil {
		t.Fatal(err)
	}
	second := spawn(200, "second")
	if err := os.Remove(first.Exe); err != nil {
		t.Fatal(err)
	}
	wantSkip(t, await(t, h, first), reasonGone)
	h.settle(&first, f, nil)
	<-h.Ready()
	wantSkip(t, h.Take()[0].Hash, reasonGone)
	wantDigest(t, await(t, h, second), sha256.Sum256([]byte("two")))

	// The same process, another image.
	third := spawn(200, "second")
	third.Exe = first.Exe
	wantSkip(t, await(t, h, third), reasonReplaced)
}

func TestKernelThread(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may look")
	}
	line, err := os.ReadFile("/proc/2/stat")
	if err != nil || !strings.Contains(string(line), "kthreadd") {
		t.Skip("there is no kernel thread here")
	}
	h := newLive(t, nil)
	wantSkip(t, await(t, h, collect.HashTarget{PID: 2, StartTicks: startTicks(line)}), reasonNone)
}

// TestUnprivileged looks at a process of somebody else.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may look at everything")
	}
	line, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		t.Skip(err)
	}
	if _, err := os.Readlink("/proc/1/exe"); err == nil {
		t.Skip("process 1 is our own")
	}
	h := newLive(t, nil)
	wantSkip(t, await(t, h, collect.HashTarget{PID: 1, StartTicks: startTicks(line), Exe: "/sbin/init"}), reasonDenied)
}

func FuzzStartTicks(f *testing.F) {
	f.Add([]byte("77 (a) S 1 1 1 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 4711 1 1"))
	f.Add([]byte("77 (a) ) R ("))
	f.Fuzz(func(_ *testing.T, line []byte) { startTicks(line) })
}
