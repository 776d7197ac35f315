package procfs

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// errAbandoned ends a worker whose reading took too long. Another one does its
// work, so it must return without touching anything but what is its own.
var errAbandoned = errors.New("reading was given up")

// hung are the processes that workers were left behind at.
type hung struct {
	mu    sync.Mutex
	limit int
	at    map[identity]struct{} // guarded by mu
}

// identity is a process of this boot.
type identity struct {
	pid   int32
	start uint64
}

// room reports whether a reading of the process may hang: it does not already,
// and not too many others do.
func (h *hung) room(id identity) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, hangs := h.at[id]
	return !hangs && len(h.at) < h.limit
}

// worker is the goroutine that does the work of one Scan or Probe, until it hangs.
type worker struct {
	hung *hung
	text []byte        // its own: what it may still be reading into when another one works
	done chan struct{} // closed by the worker when its work is done; never by one that was abandoned

	err      error // of the work; read after done
	panicked any   // what the work panicked with; read after done

	// What it reads now, and may hang at. reading counts: an even number is none.
	// Guarded by hung.mu.
	reading   uint64
	at        identity
	abandoned bool
}

// crash is a panic of a worker, passed on to whoever waits for it.
type crash struct {
	value any
	stack []byte
}

func (c crash) String() string {
	return fmt.Sprintf("%v [in a worker of the scanner]\n%s", c.value, c.stack)
}

// watched does work on a worker, and again on another one for as long as workers
// hang; so work must be able to go on where it was left. patience is how long a
// reading may take at least. text is memory for the worker, and what is returned
// may be given to the next.
func watched(h *hung, patience time.Duration, text []byte, work func(*worker) error) ([]byte, error) {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		w := &worker{hung: h, text: text, done: make(chan struct{})}
		go w.run(work) // joined by wait, or given up there; then it ends when the kernel answers
		if w.wait(tick.C) {
			if c, ok := w.panicked.(crash); ok {
				panic(c)
			}
			return w.text, w.err
		}
		text = nil // is still being read into
	}
}

func (w *worker) run(work func(*worker) error) {
	defer func() {
		if p := recover(); p != nil {
			w.panicked = crash{value: p, stack: debug.Stack()}
			close(w.done)
		}
	}()
	err := work(w)
	if errors.Is(err, errAbandoned) {
		return
	}
	w.err = err
	close(w.done)
}

// wait returns true when the work is done, false when the worker was abandoned.
func (w *worker) wait(tick <-chan time.Time) bool {
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
func (w *worker) abandon(last uint64) (now uint64, abandoned bool) {
	w.hung.mu.Lock()
	defer w.hung.mu.Unlock()
	if w.reading%2 == 0 || w.reading != last {
		return w.reading, false
	}
	w.abandoned = true
	w.hung.at[w.at] = struct{}{}
	return last, true
}

// begin says that what is read from now on may hang at the process.
func (w *worker) begin(at identity) {
	w.hung.mu.Lock()
	defer w.hung.mu.Unlock()
	w.reading++
	w.at = at
}

// end says that it did not hang, or returns [errAbandoned].
func (w *worker) end() error {
	w.hung.mu.Lock()
	defer w.hung.mu.Unlock()
	w.reading++
	if w.abandoned {
		delete(w.hung.at, w.at)
		return errAbandoned
	}
	return nil
}
