package zoo

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/procfile"
)

// newStuck is the role "stuck FILE", whose first page it maps. At "read" a thread
// reads that page in a way that keeps the lock of the process's memory; at "map"
// another one asks to change that memory. From then on everybody waits who wants
// to look at it.
func newStuck(file string) (Act, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	page, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	// The threads are there before the lock is held, or they could not be made.
	// Each is started by closing its channel, once.
	read, change := make(chan struct{}), make(chan struct{})
	go onThread(read, func() { readLocked(page) })
	go onThread(change, func() {
		_, _ = unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	})
	return func(line string) error {
		if line == "read" {
			close(read)
		} else {
			close(change)
		}
		return nil
	}, nil
}

// onThread does something on a thread that has nothing else to do.
func onThread(begin <-chan struct{}, do func()) {
	runtime.LockOSThread()
	<-begin
	do()
	select {}
}

// readLocked reads the page through the process file system. There the kernel does
// not let go of the lock while the page is fetched, other than for a mere page fault.
func readLocked(page []byte) {
	memory, err := unix.Open("/proc/self/mem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	var b [1]byte
	_, _ = unix.Pread(memory, b[:], int64(uintptr(unsafe.Pointer(unsafe.SliceData(page)))))
}

// StuckProcess is a process that can be made to stick behind the lock of its own
// memory, so that reading its arguments or environment hangs.
type StuckProcess struct {
	*Process
	file *HangingFS
}

// NewStuck starts one, which does not stick yet. It ends with the test. The test is
// skipped where there can be none.
func NewStuck(t testing.TB, args ...string) *StuckProcess {
	t.Helper()
	content := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(content, make([]byte, os.Getpagesize()), 0o600); err != nil {
		t.Fatal(err)
	}
	f := NewHangingFS(t, content)
	f.Hold(RequestRead)
	p := StartOrSkip(t, "stuck "+f.File, With(args...))
	t.Cleanup(f.Close) // before the process is waited for
	return &StuckProcess{p, f}
}

// Stick returns when it does.
func (p *StuckProcess) Stick() {
	p.t.Helper()
	p.Do("read")
	Await(p.t, "the page to be asked for", func() bool { return p.file.Held() == 1 })
	p.Tell("map") // it may not be able to say that it has
	Await(p.t, "the lock to be asked for", func() bool {
		return Waiting(p.t, p.PID, unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MUNMAP, unix.SYS_MADVISE) > 0
	})
}

// Release lets it go on, soon.
func (p *StuckProcess) Release() {
	p.t.Helper()
	p.file.Release()
}

// Waiting counts the threads of a process that wait in one of some system calls
// and can not be interrupted.
func Waiting(t testing.TB, pid int32, calls ...int) (n int) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(int(pid)), "task")
	tasks, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(filepath.Join(dir, task.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		now, err := os.ReadFile(filepath.Join(dir, task.Name(), "syscall"))
		Needs(t, "see what a thread waits for", err)
		number, _, _ := strings.Cut(string(now), " ")
		call, err := strconv.Atoi(number)
		var st procfile.Stat
		if err == nil && slices.Contains(calls, call) && st.Parse(stat) == nil && st.State == 'D' {
			n++
		}
	}
	return n
}

// Threads counts the threads of this process.
func Threads(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "Threads:\t")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Await waits until something is so.
func Await(t testing.TB, what string, is func() bool) {
	t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-timeout.C:
			t.Fatalf("waited for %s, in vain", what)
		}
	}
}
