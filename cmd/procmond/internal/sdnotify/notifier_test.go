package sdnotify

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// manager is the receiving end of NOTIFY_SOCKET.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // t.TempDir may pass the limit of a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNotices(t *testing.T) {
	conn := manager(t)
	n := New(nil)
	n.Status("Taking the\nfirst snapshot")
	n.Status("Taking the first snapshot") // the same: not sent
	n.Reloading()                         // before it was ready: neither is sent
	n.Reloaded()
	n.Ready()
	n.Alive()
	n.Reloading()
	n.Reloaded()
	n.Stopping()
	for _, want := range []string{
		`^STATUS=Taking the first snapshot$`, `^READY=1$`, `^WATCHDOG=1$`, `^RELOADING=1\nMONOTONIC_USEC=\d+$`, `^READY=1$`, `^STOPPING=1$`,
	} {
		if got := receive(t, conn); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	if n.Failed() != 0 {
		t.Errorf("%d failed", n.Failed())
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := New(nil)
	n.Ready()
	if n.Failed() != 0 {
		t.Errorf("without NOTIFY_SOCKET nothing can fail, %d did", n.Failed())
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), strings.Repeat("x", 5)))
	n.Ready()
	if n.Failed() != 1 {
		t.Errorf("%d failed, want 1", n.Failed())
	}
}
