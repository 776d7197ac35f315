package timerslack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAllow: all threads have it, also those that were there before and those that come
// later.
func TestAllow(t *testing.T) {
	if err := Allow(3 * time.Millisecond); err != nil {
		t.Skipf("not allowed here: %v", err)
	}
	release, running := make(chan struct{}), make(chan struct{})
	const more = 8
	for range more { // which sleep in the kernel, each on a thread of its own
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fd := int(r.Fd()) // blocking from now on
		go func() {
			running <- struct{}{}
			_, _ = unix.Read(fd, make([]byte, 1))
			running <- struct{}{}
		}()
		t.Cleanup(func() { _ = r.Close() })
		go func() {
			<-release
			_ = w.Close()
		}()
	}
	for range more {
		<-running
	}
	threads, err := filepath.Glob("/proc/self/task/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err == nil && strings.TrimSpace(string(text)) != "3000000" {
			t.Errorf("thread %s: %s", filepath.Base(thread), text)
		}
	}
	close(release)
	for range more {
		<-running
	}
}
