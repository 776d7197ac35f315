//go:build amd64 || arm64

package kernel

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script is a wire of which a test says what it brings.
type script struct {
	mu    sync.Mutex
	steps []step // guarded by mu
	seq   uint32 // guarded by mu
	deaf  bool   // guarded by mu; signs are not heard
	signs int    // guarded by mu; that were made
	wake  chan struct{}

	dismissals atomic.Int32
}

// step is what one receive returns.
type step struct {
	messages []message
	err      error
}

func newScript() *script { return &script{wake: make(chan struct{}, 1)} }

// say lets the kernel send messages, numbered in that order.
func (s *script) say(messages ...message) {
	s.mu.Lock()
	for i := range messages {
		messages[i].seq = s.seq
		s.seq++
	}
	s.steps = append(s.steps, step{messages: messages})
	s.mu.Unlock()
	_ = s.kick()
}

// lose drops so many messages; if err is ENOBUFS the kernel says so.
func (s *script) lose(n uint32, err error) {
	s.mu.Lock()
	s.seq += n
	s.steps = append(s.steps, step{err: err})
	s.mu.Unlock()
	_ = s.kick()
}

func (s *script) receive(messages []message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.steps) == 0 {
		return 0, unix.EAGAIN
	}
	next := s.steps[0]
	s.steps = s.steps[1:]
	return copy(messages, next.messages), next.err
}

func (s *script) empty() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.steps) == 0, nil
}

func (s *script) wait(_ bool, most time.Duration) error {
	if most < 0 {
		<-s.wake
		return nil
	}
	select {
	case <-s.wake:
	case <-time.After(most):
	}
	return nil
}

func (s *script) kick() error {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// sign is heard, unless the script is deaf.
func (s *script) sign() error {
	s.mu.Lock()
	s.signs++
	deaf := s.deaf
	s.mu.Unlock()
	if !deaf {
		s.say(happened(whatComm, 1, 1, 1))
	}
	return nil
}

// made is how many signs were.
func (s *script) made() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signs
}

func (s *script) dismissed() { s.dismissals.Add(1) }

func (s *script) Close() error { return nil }

// scripted is a source that hears a script and reads a made-up /proc.
func scripted(t testing.TB, proc string) (*script, *recorder) {
	t.Helper()
	w := newScript()
	s, err := listen(w, proc)
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, &recorder{t: t, source: s}
}

func happened(w what, at uint64, fields ...int32) message {
	m := message{what: w, at: at}
	for i, f := range fields {
		binary.NativeEndian.PutUint32(m.data[4*i:], uint32(f))
	}
	return m
}

func forked(at uint64, parent, pid int32) message {
	return happened(whatFork, at, parent, parent, pid, pid)
}

func threadMade(at uint64, pid, thread int32) message {
	return happened(whatFork, at, pid, pid, thread, pid)
}

func execed(at uint64, pid int32) message { return happened(whatExec, at, pid, pid) }

func exited(at uint64, thread, pid, status, parent int32) message {
	return happened(whatExit, at, thread, pid, status, int32(unix.SIGCHLD), parent, parent)
}

// now is the time of an event that happens now.
func now(t testing.TB) uint64 {
	t.Helper()
	at, err := readClock(unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	return uint64(at)
}

// next reads until there are n records, and returns these.
func (r *recorder) next(n int) []Record {
	r.t.Helper()
	from := len(r.records)
	timer := time.NewTicker(time.Millisecond)
	defer timer.Stop()
	for began := time.Now(); len(r.records)-from < n; <-timer.C {
		r.drain()
		if time.Since(began) > deadline {
			r.t.Fatalf("%d records, want %d", len(r.records)-from, n)
		}
	}
	if got := len(r.records) - from; got != n {
		r.t.Fatalf("%d records, want %d: %+v", got, n, r.records[from:])
	}
	return r.records[from:]
}
