package zoo

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// HangingFS is a mounted file system of one file, which stops answering when it
// is told to. A process of its own serves it, so that nobody who waits for it can
// keep it from ending: then all requests fail, and all who wait go on.
type HangingFS struct {
	// File is the path of its file.
	File string

	t      testing.TB
	server *Process
	close  func()
}

// Request is a kind of request that a [HangingFS] may leave unanswered.
type Request string

// What it may not answer.
const (
	RequestAttributes Request = "attributes"
	RequestOpen       Request = "open"
	RequestRead       Request = "read"
)

// NewHangingFS mounts a file system whose file has the content of another one. It
// answers everything yet, and is unmounted at the end of the test. Where that is
// not allowed the test is skipped.
func NewHangingFS(t testing.TB, content string) *HangingFS {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	server := StartOrSkip(t, "serve "+dir+"\n"+content, func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	})
	f := &HangingFS{t: t, server: server, File: filepath.Join(dir, servedName)}
	f.close = sync.OnceFunc(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		server.Kill()
	})
	t.Cleanup(f.Close)
	return f
}

// Hold leaves all further requests of a kind unanswered.
func (f *HangingFS) Hold(r Request) {
	f.t.Helper()
	f.server.Do("hold " + string(r))
}

// Release answers what was left unanswered, and everything from now on.
func (f *HangingFS) Release() {
	f.t.Helper()
	f.server.Do("release")
}

// Held is how many requests wait for an answer.
func (f *HangingFS) Held() (n int) {
	f.t.Helper()
	f.server.Ask("held", &n)
	return n
}

// Close unmounts the file system and fails what waits for an answer. Every process
// that hangs in it must be waited for after that.
func (f *HangingFS) Close() { f.close() }
