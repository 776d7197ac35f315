package supervisor

import (
	"context"
	"slices"
	"sync"
	"time"

	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
)

const (
	// remembered is how many transitions State shows.
	remembered = 20
	// unwritten is how many transitions wait at most for a store that is out of
	// service. The machines make a handful in a run.
	unwritten = 100
	// journalDeadline bounds how long a transition waits for the disk.
	journalDeadline = 2 * time.Second
)

// transitionStore is the part of the store that a journal needs.
type transitionStore interface {
	Journal(ctx context.Context, t store.Transition) error
}

// journal writes transitions to the store and remembers the newest ones. One
// that can not be written now is kept and written later, in order.
type journal struct {
	store transitionStore

	mu      sync.Mutex // guards everything below
	recent  []store.Transition
	waiting []store.Transition
	dropped uint64 // given up because too many were waiting
	writing bool   // one goroutine is in flush
}

func newJournal(s transitionStore, earlier []store.Transition) *journal {
	return &journal{store: s, recent: slices.Clone(earlier)}
}

// record remembers a change of state and writes it. It blocks for
// journalDeadline at most.
func (j *journal) record(t fsm.Transition) {
	if !t.Changed() {
		return // accepted again where it leads to: nothing happened
	}
	st := store.Transition{Machine: t.Machine, From: t.From, To: t.To, Event: t.Event, Cause: t.Cause, At: t.At}
	j.mu.Lock()
	j.recent = keepLast(append(j.recent, st), remembered)
	j.waiting = append(j.waiting, st)
	if over := len(j.waiting) - unwritten; over > 0 {
		j.dropped += uint64(over)
		j.waiting = keepLast(j.waiting, unwritten)
	}
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), journalDeadline)
	defer cancel()
	j.flush(ctx)
}

// flush writes what waits, oldest first, until a write fails.
func (j *journal) flush(ctx context.Context) {
	if !j.begin() {
		return
	}
	defer j.end()
	for {
		t, ok := j.first()
		if !ok || j.store.Journal(ctx, t) != nil {
			return
		}
		j.written(t)
	}
}

func (j *journal) begin() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.writing || len(j.waiting) == 0 {
		return false
	}
	j.writing = true
	return true
}

func (j *journal) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = false
}

func (j *journal) first() (store.Transition, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) == 0 {
		return store.Transition{}, false
	}
	return j.waiting[0], true
}

// written forgets t, unless it was given up meanwhile.
func (j *journal) written(t store.Transition) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) > 0 && j.waiting[0] == t {
		j.waiting = j.waiting[1:]
	}
}

// transitions returns the newest ones, newest last, with how many are not yet
// on disk and how many never will be.
func (j *journal) transitions() (recent []store.Transition, waiting int, dropped uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.recent), len(j.waiting), j.dropped
}

func keepLast(ts []store.Transition, n int) []store.Transition {
	if len(ts) <= n {
		return ts
	}
	return slices.Clone(ts[len(ts)-n:])
}
