package collect

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// fakeHasher knows what a test tells it.
type fakeHasher struct {
	ready chan struct{}

	mu      sync.Mutex            // guards everything below
	known   map[string]event.Hash // by executable
	results []HashTarget
	asked   []int32
}

func newFakeHasher() *fakeHasher {
	return &fakeHasher{ready: make(chan struct{}, 1), known: make(map[string]event.Hash)}
}

func (h *fakeHasher) Look(_ context.Context, targets []HashTarget) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range targets {
		t := &targets[i]
		h.asked = append(h.asked, t.PID)
		hash, ok := h.known[t.Exe]
		if !ok {
			hash = event.Hash{Status: event.HashPending}
		}
		t.Hash = hash
	}
}

func (h *fakeHasher) Ready() <-chan struct{} { return h.ready }

func (h *fakeHasher) Take() []HashTarget {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.results
	h.results = nil
	return taken
}

// learn makes a digest known.
func (h *fakeHasher) learn(exe string, hash event.Hash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[exe] = hash
}

// finish delivers a digest.
func (h *fakeHasher) finish(pid int32, ticks uint64, exe string, hash event.Hash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.results = append(h.results, HashTarget{PID: pid, StartTicks: ticks, Exe: exe, Hash: hash})
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

// askedFor are the PIDs since it was called last.
func (h *fakeHasher) askedFor() []int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

func sum(b byte) event.Hash {
	return event.Hash{Status: event.HashDone, Algorithm: "sha256", Value: []byte{b}}
}

var tooBig = event.Hash{Status: event.HashSkipped, Reason: "too big"}

// hashBubble is bubble with a hasher and the process 7.
func hashBubble(t *testing.T, test func(t *testing.T, w *world, h *fakeHasher)) {
	t.Helper()
	var h *fakeHasher // made in the bubble, as its channel must be
	bubble(t, func(w *world) { h = newFakeHasher(); w.cfg.Hasher = h; w.host.spawn(7, 5) }, func(t *testing.T, w *world) { test(t, w, h) })
}

// hashOf is the digest in the last event of a process.
func (w *world) hashOf(pid int32) event.Hash {
	w.t.Helper()
	all := w.store.kept()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Process.PID == pid {
			return all[i].Process.Hash
		}
	}
	w.t.Fatalf("no event of process %d", pid)
	return event.Hash{}
}

func (w *world) wantHash(pid int32, want event.Hash) {
	w.t.Helper()
	if got := w.hashOf(pid); got.Status != want.Status || got.Reason != want.Reason || !slices.Equal(got.Value, want.Value) {
		w.t.Errorf("hash of %d is %v %x %q, want %v %x %q", pid, got.Status, got.Value, got.Reason, want.Status, want.Value, want.Reason)
	}
}

var pending = event.Hash{Status: event.HashPending}

func TestKnownHashComesWithTheStart(t *testing.T) {
	hashBubble(t, func(_ *testing.T, w *world, h *fakeHasher) {
		h.learn("/bin/p7", sum(7))
		w.begin()
		w.expect("baseline", "sensor started", "scan start 7")
		w.wantHash(7, sum(7))
		pass(10 * DefaultInterval)
		w.expect("later")
	})
}

func TestLateHashIsAModifyAtOnce(t *testing.T) {
	hashBubble(t, func(t *testing.T, w *world, h *fakeHasher) {
		w.begin()
		w.expect("baseline", "sensor started", "scan start 7")
		w.wantHash(7, pending)
		h.finish(7, 5, "/bin/p7", sum(7))
		synctest.Wait() // no scan is waited for
		w.expect("the digest", "scan modify 7 hash")
		w.wantHash(7, sum(7))
		all := w.store.kept()
		if c := all[len(all)-1].Changes[0]; c.Old != "" || c.New != "07" {
			t.Errorf("change is %+v", c)
		}
		for _, p := range w.store.rows() {
			if p.Hash.Status != event.HashDone {
				t.Errorf("the durable table has %+v", p.Hash)
			}
		}
		h.finish(7, 5, "/bin/p7", sum(7))
		pass(3 * DefaultInterval)
		w.expect("told once")
	})
}

func TestSkippedHashSaysWhy(t *testing.T) {
	hashBubble(t, func(t *testing.T, w *world, h *fakeHasher) {
		w.begin()
		h.finish(7, 5, "/bin/p7", tooBig)
		synctest.Wait()
		w.expect("all", "sensor started", "scan start 7", "scan modify 7 hash")
		w.wantHash(7, tooBig)
		all := w.store.kept()
		if c := all[len(all)-1].Changes[0]; c.New != "skipped: too big" {
			t.Errorf("change is %+v", c)
		}
		h.askedFor()
		pass(5 * DefaultInterval)
		if asked := h.askedFor(); len(asked) > 0 {
			t.Errorf("asked again for %v", asked)
		}
	})
}

// TestPendingHashIsAskedForAgain loses a result: the next scan asks.
func TestPendingHashIsAskedForAgain(t *testing.T) {
	hashBubble(t, func(_ *testing.T, w *world, h *fakeHasher) {
		w.begin()
		w.expect("baseline", "sensor started", "scan start 7")
		h.learn("/bin/p7", sum(7))
		pass(DefaultInterval)
		w.expect("asked again", "scan modify 7 hash")
		w.wantHash(7, sum(7))
	})
}

// TestHashDuringAScan comes while a scan runs in which the process ends: the
// modify is before the stop.
func TestHashDuringAScan(t *testing.T) {
	hashBubble(t, func(_ *testing.T, w *world, h *fakeHasher) {
		w.begin()
		hang := make(chan struct{})
		w.host.with(func() { w.host.hang = hang })
		pass(DefaultInterval)
		w.host.kill(7)
		h.finish(7, 5, "/bin/p7", sum(7))
		synctest.Wait()
		w.expect("while the scan runs", "sensor started", "scan start 7")
		w.host.with(func() { w.host.hang = nil })
		close(hang)
		synctest.Wait()
		w.expect("after it", "scan modify 7 hash", "scan stop 7")
		w.wantHash(7, sum(7))
	})
}

func TestStopPromisesNothing(t *testing.T) {
	hashBubble(t, func(_ *testing.T, w *world, h *fakeHasher) {
		w.begin()
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("all", "sensor started", "scan start 7", "scan stop 7")
		w.wantHash(7, event.Hash{Status: event.HashSkipped, Reason: reasonEnded})
		h.finish(7, 5, "/bin/p7", sum(7))
		pass(DefaultInterval)
		w.expect("too late")
	})
}

func TestHashFollowsTheImage(t *testing.T) {
	hashBubble(t, func(t *testing.T, w *world, h *fakeHasher) {
		h.learn("/bin/p7", sum(7))
		h.learn("/bin/other", sum(8))
		w.begin()
		w.host.with(func() { w.host.procs[7].record.UID = 1000 })
		h.askedFor()
		pass(DefaultInterval)
		w.expect("another user", "sensor started", "scan start 7", "scan modify 7 uid")
		w.wantHash(7, sum(7))
		if asked := h.askedFor(); len(asked) > 0 {
			t.Errorf("asked for %v though the image is the same", asked)
		}
		w.host.with(func() { p := w.host.procs[7]; p.record.Exe, p.exec = "/bin/other", true })
		pass(DefaultInterval)
		w.expect("another image", "scan exec 7 exe hash")
		w.wantHash(7, sum(8))
		// The same path, but a new image, of which nothing is known yet.
		h.learn("/bin/other", pending)
		w.host.with(func() { w.host.procs[7].exec = true })
		pass(DefaultInterval)
		w.expect("the same path again", "scan exec 7")
		w.wantHash(7, pending)
		h.finish(7, 5, "/bin/other", sum(9))
		synctest.Wait()
		w.expect("its digest", "scan modify 7 hash")
		w.wantHash(7, sum(9))
	})
}

// TestHashOfAnother comes for a process that is not there any more, or runs
// something else.
func TestHashOfAnother(t *testing.T) {
	hashBubble(t, func(_ *testing.T, w *world, h *fakeHasher) {
		w.begin()
		w.expect("baseline", "sensor started", "scan start 7")
		h.finish(7, 4, "/bin/p7", sum(1))
		h.finish(7, 5, "/bin/before", sum(2))
		h.finish(8, 5, "/bin/p8", sum(3))
		synctest.Wait()
		w.expect("of others")
	})
}

func TestWhoIsNotAskedFor(t *testing.T) {
	var h *fakeHasher
	bubble(t, func(w *world) {
		h = newFakeHasher()
		w.cfg.Hasher = h
		w.host.spawn(2, 1).record.Exe = "" // a kernel thread
		w.host.spawn(7, 5)
		w.host.spawn(8, 5)
		var err error
		if w.cfg.Settings.Exclude, err = ParseScope([]string{"pid:8"}); err != nil {
			t.Fatal(err)
		}
	}, func(t *testing.T, w *world) {
		w.begin()
		pass(DefaultInterval)
		if asked := h.askedFor(); !slices.Equal(asked, []int32{7, 7}) {
			t.Errorf("asked for %v, want 7 twice", asked)
		}
		w.wantHash(2, event.Hash{})
	})
}

// TestHashingIsSwitchedOn for a table without digests, and off again.
func TestHashingIsSwitchedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := newFakeHasher()
		h.learn("/bin/p7", sum(7))
		w.host.spawn(7, 5)
		w.host.spawn(8, 5)
		runs := []struct {
			hasher Hasher
			want   []string
		}{
			{nil, []string{"sensor started", "scan start 7", "scan start 8"}},
			{h, []string{"sensor started", "sensor crashed", "loss down", "recovered modify 7 hash"}},
			{nil, []string{"sensor started", "sensor crashed", "loss down"}},
			{h, []string{"sensor started", "sensor crashed", "loss down"}},
		}
		for _, r := range runs {
			w.newRun()
			w.cfg.Hasher = r.hasher
			w.serve(w.collector())
			w.begin()
			w.expect("run", r.want...)
			_ = w.stop()
		}
		w.wantHash(7, sum(7))
		w.checkStore()
	})
}

// TestHashInAnOutage can not be written; it is asked for again.
func TestHashInAnOutage(t *testing.T) {
	hashBubble(t, func(_ *testing.T, w *world, h *fakeHasher) {
		w.begin()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		h.finish(7, 5, "/bin/p7", sum(7))
		pass(time.Second)
		h.learn("/bin/p7", sum(7))
		w.store.with(func() { w.store.fail = nil })
		pass(2 * DefaultInterval)
		w.expect("all", "sensor started", "scan start 7", "loss store_unavailable", "recovered modify 7 hash")
	})
}
