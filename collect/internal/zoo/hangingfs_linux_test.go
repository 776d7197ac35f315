package zoo

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHangingFS(t *testing.T) {
	want := bytes.Repeat([]byte("content\n"), 1<<14)
	content := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(content, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f := NewHangingFS(t, content)
	if got, err := os.ReadFile(f.File); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v, want %d", len(got), err, len(want))
	}
	open := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			fd, err := unix.Open(f.File, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				err = unix.Close(fd)
			}
			done <- err
		}()
		return done
	}
	f.Hold(RequestOpen)
	first := open()
	Await(t, "a request", func() bool { return f.Held() == 1 })
	f.Release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	f.Hold(RequestOpen)
	second := open()
	Await(t, "a request", func() bool { return f.Held() == 1 })
	f.Close()
	if err := <-second; err == nil {
		t.Error("a file was opened though nobody answered")
	}
	if _, err := os.Stat(f.File); !os.IsNotExist(err) {
		t.Errorf("error %v, want it unmounted", err)
	}
}

// TestStuck: what a stuck process is needed for.
func TestStuck(t *testing.T) {
	p := NewStuck(t, "stuck", "behind", "a lock")
	p.Stick()
	before := Threads(t)
	read := make(chan string, 2)
	for _, name := range []string{"cmdline", "environ"} {
		go func() {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID, name))
			read <- string(b)
		}()
	}
	Await(t, "two readers to hang", func() bool { return Waiting(t, int32(os.Getpid()), unix.SYS_READ) == 2 })
	if n := Threads(t) - before; n > 4 {
		t.Errorf("%d more threads", n)
	}
	p.Release()
	got := map[string]bool{<-read: true, <-read: true}
	if !got["stuck\x00behind\x00a lock\x00"] {
		t.Errorf("read %v", got)
	}
}
