package store

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a file system of this size, which only root can.
func tmpfs(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size="+size); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// moveStore puts a dead store on another file system.
func moveStore(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnReadOnlyFileSystem reads a store where no lock for writing can be had,
// and leaves it alone while a daemon has it by another way.
func TestReadOnReadOnlyFileSystem(t *testing.T) {
	root := tmpfs(t, "64m")
	dir := filepath.Join(root, "db")
	moveStore(t, deadStore(t, false), dir)
	readOnly := t.TempDir()
	if err := unix.Mount(root, readOnly, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(readOnly, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(readOnly, "db")
	before := listing(t, dir)
	if in, err := Inspect(t.Context(), seen); err != nil || in.Stats.Head != 5 || in.Damage != "" {
		t.Errorf("inspect: %+v, %v", in, err)
	}
	if v := mustVerify(t, seen); !v.OK() || !v.Direct || v.Events != 5 {
		t.Errorf("verify: %+v", v)
	}
	compareListing(t, before, listing(t, dir))
	excludedByDaemon(t, dir, seen)
}

// excludedByDaemon lets another process hold the store in dir, which is seen here.
func excludedByDaemon(t *testing.T, dir, seen string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	if _, err := Inspect(t.Context(), seen); !errors.Is(err, ErrLocked) {
		t.Errorf("inspect while a daemon has the store: %v", err)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}

// TestReadOnFullFileSystem reads a store whose file system has no byte left.
func TestReadOnFullFileSystem(t *testing.T) {
	root := tmpfs(t, "16m")
	dir := filepath.Join(root, "db")
	moveStore(t, deadStore(t, false), dir)
	f, err := os.Create(filepath.Join(root, "glutton"))
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	before := listing(t, dir)
	if in, err := Inspect(t.Context(), dir); err != nil || in.Stats.Head != 5 || in.Damage != "" {
		t.Errorf("inspect: %+v, %v", in, err)
	}
	v := mustVerify(t, dir)
	if !v.OK() || v.Direct || v.Events != 5 {
		t.Errorf("verify: %+v", v)
	}
	compareListing(t, before, listing(t, dir))
}
