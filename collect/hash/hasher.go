package hash

import (
	"context"
	"fmt"
	"sync"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

// mostStuck is how many calls that do not return are left behind, each with a
// thread, before no more files are touched.
const mostStuck = 4

// Look waits at most this long, and lookEach more for each target: a cached one takes
// some 20 us.
const (
	lookPatience = 250 * time.Millisecond
	lookEach     = 100 * time.Microsecond
)

// Hasher is a [collect.Hasher] and a service. Its methods are safe for
// concurrent use. What it knows and what waits outlives a call of Serve.
type Hasher struct {
	cfg  Config
	pace pace
	// looks is sent to by Look, received from by Serve and never closed. It has no
	// capacity: who is not served at once goes on without an answer.
	looks chan look
	// waiting calls Serve when there is something in the queue, ready calls the
	// collector when there is something to take. Neither is ever closed; one call
	// is as good as many.
	waiting, ready chan struct{}
	// spare holds the buffer of the last reading for the next; it is never closed.
	spare chan []byte

	mu      sync.Mutex // guards everything below; held for moments only
	cache   *cache
	queue   queue
	results []collect.HashTarget
	stats   Stats
	skips   map[string]uint64 // by reason
	stuck   int               // errands left behind that have not returned
}

// New makes a hasher; nothing runs yet. The error names every fault of cfg.
func New(cfg Config) (*Hasher, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure hasher: %w", err)
	}
	return &Hasher{
		cfg:     cfg,
		pace:    pace{rate: float64(cfg.Rate)},
		looks:   make(chan look),
		waiting: make(chan struct{}, 1),
		ready:   make(chan struct{}, 1),
		spare:   make(chan []byte, 1),
		cache:   newCache(cfg.entries),
		queue:   newQueue(cfg.queue),
		skips:   make(map[string]uint64),
	}, nil
}

func (h *Hasher) String() string { return "hasher" }

// Look fills in what is known of each target. It waits for the service and for the
// host a quarter of a second each, and some more for many targets; then all are
// pending.
func (h *Hasher) Look(ctx context.Context, targets []collect.HashTarget) {
	for i := range targets {
		targets[i].Hash = event.Hash{Status: event.HashPending}
	}
	if len(targets) == 0 || !h.works() {
		return
	}
	l := newLook(targets)
	patience := time.NewTimer(lookPatience)
	defer patience.Stop()
	select {
	case h.looks <- l:
	case <-patience.C: // the service is down, or an earlier look hangs
		return
	case <-ctx.Done():
		return
	}
	patience.Reset(lookPatience + time.Duration(len(targets))*lookEach)
	select {
	case answered := <-l.answer:
		copy(targets, answered)
	case <-patience.C:
	case <-ctx.Done():
	}
}

// works reports whether files are touched at all.
func (h *Hasher) works() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stuck < mostStuck
}

// Ready is received from when there may be something to take.
func (h *Hasher) Ready() <-chan struct{} { return h.ready }

// Take returns the results that came since it was called last.
func (h *Hasher) Take() []collect.HashTarget {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.results
	h.results = nil
	return taken
}

// settle says what is known of a target of which the host said f, and queues it
// if that is not enough.
func (h *Hasher) settle(t *collect.HashTarget, f file, err error) event.Hash {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
		return h.skipped(skipOf(err))
	case !f.regular:
		return h.skipped(&skip{reason: reasonSpecial})
	case f.size > h.cfg.MaxSize:
		return h.skipped(tooBig(&f))
	}
	if d, ok := h.cache.lookup(f.key); ok {
		h.stats.Hits++
		return doneHash(d)
	}
	switch h.queue.add(f.key, *t) {
	case queueAdded:
		h.stats.Misses++
		call(h.waiting)
	case queueFull:
		h.stats.Deferred++
	}
	return event.Hash{Status: event.HashPending}
}

// skipped counts. It needs h.mu, like the others below.
func (h *Hasher) skipped(s *skip) event.Hash {
	h.stats.Skipped++
	h.skips[s.reason]++
	return s.hash()
}

func doneHash(d digest) event.Hash {
	return event.Hash{Status: event.HashDone, Algorithm: algorithm, Value: d[:]}
}

// deliver hands a result out.
func (h *Hasher) deliver(t collect.HashTarget, hash event.Hash) {
	if len(h.results) == h.cfg.results {
		h.stats.Deferred++
		return
	}
	t.Hash = hash
	h.results = append(h.results, t)
	call(h.ready)
}

// call makes a receiver look; it never blocks.
func call(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // called already
	}
}
