// Package hung is for readings that may hang: the arguments and the environment of a
// process are behind the lock of its memory, which a stuck process can hold for ever.
// Who reads them is a worker; one whose reading takes too long is left behind, and
// another does its work.
package hung

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// ErrAbandoned ends a worker whose reading took too long. Another one does its
// work, so it must return without touching anything but what is its own.
var ErrAbandoned = errors.New("reading was given up")

// Set is the processes that workers were left behind at. It is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	limit int
	at    map[ID]struct{} // guarded by mu
}

// ID is a process of this boot. Start is anything that two processes of one PID do not
// share.
type ID struct {
	PID   int32
	Start uint64
}

// NewSet lets limit workers be left behind.
func NewSet(limit int) *Set { return &Set{limit: limit, at: make(map[ID]struct{})} }

// Room reports whether a reading of the process may hang: it does not already,
// and not too many others do.
func (s *Set) Room(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, hangs := s.at[id]
	return !hangs && len(s.at) < s.limit
}

// Len is how many workers were left behind and are not back.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// Worker is the goroutine that does the work, until it hangs.
type Worker struct {
	// Text is its own memory: what it may still be reading into when another one works.
	Text []byte

	set  *Set
	done chan struct{} // closed by the worker when its work is done; never by one that was abandoned

	err      error // of the work; read after done
	panicked any   // what the work panicked with; read after done

	// What it reads now, and may hang at. reading counts: an even number is none.
	// Guarded by set.mu.
	reading   uint64
	at        ID
	abandoned bool
}

// crash is a panic of a worker, passed on to whoever waits for it.
type crash struct {
	value any
	stack []byte
}

func (c crash) String() string {
	return fmt.Sprintf("%v [in a worker]\n%s", c.value, c.stack)
}

// Run does work on a worker, and again on another one for as long as workers
// hang; so work must be able to go on where it was left. patience is how long a
// reading may take at least, up to twice that. text is memory for the worker, and what
// is returned may be given to the next.
func Run(s *Set, patience time.Duration, text []byte, work func(*Worker) error) ([]byte, error) {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		w := &Worker{set: s, Text: text, done: make(chan struct{})}
		go w.run(work) // joined by wait, or given up there; then it ends when the kernel answers
		if w.wait(tick.C) {
			if c, ok := w.panicked.(crash); ok {
				panic(c)
			}
			return w.Text, w.err
		}
		text = nil // is still being read into
	}
}

func (w *Worker) run(work func(*Worker) error) {
	defer func() {
		if p := recover(); p != nil {
			w.panicked = crash{value: p, stack: debug.Stack()}
			close(w.done)
		}
	}()
	err := work(w)
	if errors.Is(err, ErrAbandoned) {
		return
	}
	w.err = err
	close(w.done)
}

// wait returns true when the work is done, false when the worker was abandoned.
func (w *Worker) wait(tick <-chan time.Time) bool {
	var last uint64
	for {
		select {
		case <-w.done:
			return true
		case <-tick:
			now, abandoned := w.abandon(last)
			if abandoned {
				return false
			}
			last = now
		}
	}
}

// abandon gives the worker up if it is still at the reading that it was at a tick
// ago, and returns which one it is at.
func (w *Worker) abandon(last uint64) (now uint64, abandoned bool) {
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	if w.reading%2 == 0 || w.reading != last {
		return w.reading, false
	}
	w.abandoned = true
	w.set.at[w.at] = struct{}{}
	return last, true
}

// Begin says that what is read from now on may hang at the process.
func (w *Worker) Begin(at ID) {
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	w.reading++
	w.at = at
}

// End says that it did not hang, or returns [ErrAbandoned].
func (w *Worker) End() error {
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	w.reading++
	if w.abandoned {
		delete(w.set.at, w.at)
		return ErrAbandoned
	}
	return nil
}
