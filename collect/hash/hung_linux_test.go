package hash

import (
	"crypto/sha256"
	"os"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// shortDeadline is that of a file which is not going to be read.
const shortDeadline = 200 * time.Millisecond

func hurried(c *Config) { c.MaxSize, c.Deadline = 64<<20, shortDeadline }

// runHanging starts a program that lies on a file system of its own, which can
// stop answering.
func runHanging(t *testing.T) (*zoo.HangingFS, collect.HashTarget, [sha256.Size]byte) {
	t.Helper()
	path, sum := sleeper(t)
	fs := zoo.NewHangingFS(t, path)
	target := run(t, fs.File, nil)
	t.Cleanup(fs.Close) // before the program is waited for
	return fs, target, sum
}

// lookFast looks at targets and proves that nobody is made to wait.
func lookFast(t *testing.T, h *Hasher, targets ...collect.HashTarget) []collect.HashTarget {
	t.Helper()
	began := time.Now()
	h.Look(t.Context(), targets)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("look took %v", took)
	}
	return targets
}

func TestLiveFileSystemThatHangs(t *testing.T) {
	tests := map[zoo.Request]time.Duration{
		zoo.RequestOpen:       shortDeadline,
		zoo.RequestRead:       shortDeadline,
		zoo.RequestAttributes: lookLimit,
	}
	for request, limit := range tests {
		t.Run(string(request), func(t *testing.T) {
			if testing.Short() && limit > time.Second {
				t.Skip("takes as long as a look may")
			}
			fs, target, sum := runHanging(t)
			path, otherSum := sleeper(t)
			other := run(t, path, nil)
			h := newLive(t, hurried)
			fs.Hold(request)
			began := time.Now()
			if hash := lookFast(t, h, target)[0].Hash; hash.Status != event.HashPending {
				t.Fatalf("hash is %v, want it pending", hash)
			}
			lookFast(t, h, other)
			wantSkip(t, take(t, h, target.PID), reasonNoAnswer)
			if took := time.Since(began); took < limit || took > limit+hangGrace+5*time.Second {
				t.Errorf("the status took %v, want %v", took, limit+hangGrace)
			}
			if n := h.Stats().Stuck; n != 1 {
				t.Errorf("%d calls hang, want 1", n)
			}
			wantDigest(t, await(t, h, other), otherSum)
			fs.Release()
			zoo.Await(t, "the call to return", func() bool { return h.Stats().Stuck == 0 })
			wantDigest(t, await(t, h, target), sum)
		})
	}
}

// take waits for the result of one process.
func take(t *testing.T, h *Hasher, pid int32) event.Hash {
	t.Helper()
	timeout := time.NewTimer(liveDeadline)
	defer timeout.Stop()
	for {
		select {
		case <-h.Ready():
			for _, r := range h.Take() {
				if r.PID == pid {
					return r.Hash
				}
			}
		case <-timeout.C:
			t.Fatalf("no status of process %d", pid)
		}
	}
}

// TestLiveFileSystemsThatHang: no more than so many threads are left behind, and
// when they are back everything is digested.
func TestLiveFileSystemsThatHang(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const more = 2
	h := newLive(t, hurried)
	before := zoo.Threads(t)
	var all []*zoo.HangingFS
	var targets []collect.HashTarget
	for range mostStuck + more {
		fs, target, _ := runHanging(t)
		fs.Hold(zoo.RequestOpen)
		all, targets = append(all, fs), append(targets, target)
	}
	lookFast(t, h, targets...)
	skipped := make(map[int32]bool)
	zoo.Await(t, "all that may hang to hang", func() bool {
		for _, r := range h.Take() {
			wantSkip(t, r.Hash, reasonNoAnswer)
			skipped[r.PID] = true
		}
		return h.Stats().Stuck == mostStuck && len(skipped) == mostStuck
	})
	self := observe(t, os.Getpid())
	if hash := lookFast(t, h, self)[0].Hash; hash.Status != event.HashPending {
		t.Errorf("hash is %v, want it pending while no file is touched", hash)
	}
	if n := zoo.Threads(t) - before; n > mostStuck+8 { // the Go scheduler keeps some in reserve
		t.Errorf("%d more threads with %d calls that hang", n, mostStuck)
	}
	for _, fs := range all {
		fs.Release()
	}
	done := 0
	zoo.Await(t, "the others to be digested", func() bool {
		for _, r := range h.Take() {
			if r.Hash.Status != event.HashDone || skipped[r.PID] {
				t.Errorf("process %d: hash is %v %q", r.PID, r.Hash.Status, r.Hash.Reason)
			}
			done++
		}
		return done == more
	})
	if n := h.Stats().Stuck; n != 0 {
		t.Errorf("%d calls hang, want none", n)
	}
}
