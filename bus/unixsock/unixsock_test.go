package unixsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestModeFromTheFirstMoment watches the path while the socket is made.
func TestModeFromTheFirstMoment(t *testing.T) {
	group := os.Getegid()
	for _, want := range []fs.FileMode{0o600, 0o660, 0o666} {
		path := filepath.Join(t.TempDir(), "s")
		old := syscall.Umask(0)
		seen := make(chan fs.FileMode, 1) // from the watcher, once
		go func() {
			for t.Context().Err() == nil {
				if info, err := os.Lstat(path); err == nil {
					seen <- info.Mode()
					return
				}
			}
		}()
		l, err := Listen(t.Context(), path, want, group)
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		if mode := <-seen; mode != fs.ModeSocket|want {
			t.Errorf("first seen with %v, want %v", mode, want)
		}
		_ = l.Close()
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestStaleSocketIsReplacedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	fresh, err := Listen(t.Context(), stale, 0o600, NoGroup)
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	if _, err := Listen(t.Context(), stale, 0o600, NoGroup); !errors.Is(err, ErrInUse) {
		t.Errorf("a living socket: %v, want ErrInUse", err)
	}
	_ = fresh.Close()
	if _, err := os.Lstat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its name stays: %v", err)
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file, 0o600, NoGroup); err == nil {
		t.Error("a file was taken for a socket")
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "precious" {
		t.Errorf("the file was touched: %q, %v", content, err)
	}
}

func TestAnothersSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ours, err := Listen(t.Context(), path, 0o600, NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	theirs, err := Listen(t.Context(), path, 0o600, NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of another server was removed: %v", err)
	}
	_ = theirs.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("our own socket stays")
	}
}

// TestPeerIsKnown: the kernel says who connects, and who listens.
func TestPeerIsKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path, 0o600, NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	there, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = there.Close() }()
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	for _, conn := range []net.Conn{there, here} {
		p, err := PeerOf(conn.(*net.UnixConn))
		if err != nil || p.UID != os.Geteuid() || p.PID != os.Getpid() || len(p.GIDs) != 1 || p.GIDs[0] != os.Getegid() {
			t.Errorf("peer %+v, %v", p, err)
		}
	}
	_ = here.Close()
	if p, err := PeerOf(here.(*net.UnixConn)); err == nil || p.UID != -1 {
		t.Errorf("a closed connection is that of %v, %v", p, err)
	}
}
