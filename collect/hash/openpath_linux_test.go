package hash

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
)

// A process that goes to and fro between two images must not get the file of one
// under the path of the other.
func TestLookPathAndFileAreOfOneImage(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(shell)
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}
	inodes := make(map[string]uint64)
	for _, path := range paths {
		if err := os.WriteFile(path, text, 0o755); err != nil { //nolint:gosec // it is to be run
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		inodes[path] = st.Ino
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(`exec "$2" "$0" "$2" "$1"`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(paths[0], script, paths[0], paths[1])
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	target := observe(t, cmd.Process.Pid)
	seen, until := 0, time.Now().Add(2*time.Second)
	for i := 0; time.Now().Before(until); i++ {
		target.Exe = paths[i%2]
		f, err := procHost{"/proc"}.look(&target)
		if err != nil {
			continue
		}
		seen++
		if f.ino != inodes[target.Exe] {
			t.Fatalf("look %d: %s got the file of the other image", i, target.Exe)
		}
	}
	if seen == 0 {
		t.Error("no look found an image")
	}
}

// What is at a path may change into a device between the look and the opening, and
// opening a device does things.
func TestOpenPathOpensNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, pipe, link := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Close(watch) })
	if _, err := unix.InotifyAddWatch(watch, pipe, unix.IN_OPEN); err != nil {
		t.Skip(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	var events [4096]byte
	opened, until := 0, time.Now().Add(2*time.Second)
	for time.Now().Before(until) {
		// The exchange changes the ctime, so that the key of the moment is needed.
		f, err := statPath(file)
		if err != nil || !f.regular {
			continue
		}
		if c, err := openPath(file, f.key); err == nil {
			opened++
			_ = c.Close()
		}
		if n, err := unix.Read(watch, events[:]); err == nil && n > 0 {
			t.Fatalf("the pipe was opened, after %d right openings", opened)
		}
	}
	if opened == 0 {
		t.Log("nothing was opened: the file was exchanged too often")
	}
}

// The files of an overlay can lie in memory, and its device number is soon that of
// another one.
func TestOverlayIsNotSteady(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	mount := func(source, target, kind, options string) {
		if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // nothing is in it
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, kind, 0, options); err != nil {
			t.Skipf("mount %s: %v", kind, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
	memory := filepath.Join(base, "memory")
	mount("none", memory, "tmpfs", "size=1m")
	for _, name := range []string{"upper", "work", "lower"} {
		if err := os.Mkdir(filepath.Join(memory, name), 0o755); err != nil { //nolint:gosec // it is removed soon
			t.Fatal(err)
		}
	}
	merged := filepath.Join(base, "merged")
	mount("none", merged, "overlay", "lowerdir="+memory+"/lower,upperdir="+memory+"/upper,workdir="+memory+"/work")
	path := filepath.Join(merged, "file")
	if err := os.WriteFile(path, []byte("text before"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := statPath(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openPath(path, before.key)
	if err != nil {
		t.Fatal(err)
	}
	steady := c.steady()
	_ = c.Close()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	page, err := unix.Mmap(fd, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	copy(page, "TEXT")
	_ = unix.Munmap(page)
	if after, err := statPath(path); err != nil {
		t.Fatal(err)
	} else if steady && after.key == before.key {
		t.Error("it is called steady, and was changed without a trace")
	}
}

// A process that has gone on to another file is not told of the one before: both may
// have had the same path.
func TestQueueTellsNobodyOfAFormerImage(t *testing.T) {
	t.Parallel()
	process, other := collect.HashTarget{PID: 7, StartTicks: 1, Exe: "/same"}, collect.HashTarget{PID: 8, StartTicks: 1, Exe: "/same"}
	before, after := key{ino: 1}, key{ino: 2}
	q := newQueue(2)
	q.add(before, process)
	q.add(before, other)
	if got := q.add(after, process); got != queueFull {
		t.Fatalf("add = %v, want full", got)
	}
	if got := q.finish(); len(got) != 1 || got[0].PID != other.PID {
		t.Errorf("full: those told of the former file are %v, want %v alone", got, other)
	}
	q.add(before, process)
	q.add(after, process)
	if got := q.finish(); len(got) != 0 {
		t.Errorf("those told of the former file are %v, want nobody", got)
	}
	if got := q.finish(); len(got) != 1 || got[0].PID != process.PID {
		t.Errorf("those told of the file are %v, want %v", got, process)
	}
	if q.size != 0 || len(q.asked) != 0 {
		t.Errorf("%d wait and %d are remembered, want none", q.size, len(q.asked))
	}
}
