package hash

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// errand is work on files. It has a goroutine of its own, because each of its
// system calls may hang.
type errand[T any] struct {
	deadline time.Time // when it is left behind if it has not returned
	cancel   context.CancelFunc
	// done is sent to once, by the errand; its capacity lets the errand end when
	// nobody is there any more. It is never closed.
	done chan outcome[T]

	// Guarded by the hasher's mutex.
	over bool // it has returned
	left bool // it was left behind
}

// outcome is what came of an errand.
type outcome[T any] struct {
	value    T
	panicked any // what it panicked with, or nil
	stack    []byte
}

// hangGrace is how long beyond its limit an errand may take to notice it.
const hangGrace = time.Second

// send starts an errand that is to take no longer than limit.
func send[T any](ctx context.Context, h *Hasher, limit time.Duration, do func(context.Context) T) *errand[T] {
	ctx, cancel := context.WithTimeout(ctx, limit)
	e := &errand[T]{deadline: time.Now().Add(limit + hangGrace), cancel: cancel, done: make(chan outcome[T], 1)}
	go func() { // joined by Serve, or left behind and counted
		var out outcome[T]
		defer func() {
			if p := recover(); p != nil {
				out = outcome[T]{panicked: p, stack: debug.Stack()}
			}
			e.done <- out
			e.end(h)
		}()
		out.value = do(ctx)
	}()
	return e
}

// end notes that e has returned.
func (e *errand[T]) end(h *Hasher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.over = true
	if e.left {
		h.stuck--
		call(h.waiting)
	}
}

// results is where it reports; nil for no errand.
func (e *errand[T]) results() <-chan outcome[T] {
	if e == nil {
		return nil
	}
	return e.done
}

// late reports whether e is past its deadline.
func (e *errand[T]) late(now time.Time) bool { return e != nil && !e.deadline.After(now) }

// abandon leaves e behind. It is false if e has returned after all.
func (e *errand[T]) abandon(h *Hasher) bool {
	e.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.over {
		return false
	}
	e.left = true
	h.stuck++
	return true
}

// join waits for e, but not for ever. Nobody hears what came of it.
func (e *errand[T]) join(h *Hasher) {
	if e == nil {
		return
	}
	e.cancel()
	patience := time.NewTimer(joinPatience)
	defer patience.Stop()
	select {
	case <-e.done:
	case <-patience.C:
		e.abandon(h)
	}
}

// rethrow panics with what an errand panicked with.
func (o *outcome[T]) rethrow() {
	if o.panicked != nil {
		panic(fmt.Sprintf("%v [in an errand of the hasher]\n%s", o.panicked, o.stack))
	}
}
