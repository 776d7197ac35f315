package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// journalSize is how many transitions are kept.
const journalSize = 1000

// Transition is one change of state of one of the daemon's machines.
type Transition struct {
	Machine string    `json:"machine"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Event   string    `json:"event"`
	Cause   string    `json:"cause,omitempty"`
	At      time.Time `json:"at"`
}

// Journal adds a transition, durably. The last 1000 are kept.
func (s *Store) Journal(ctx context.Context, t Transition) error {
	value, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode transition: %w", err)
	}
	n, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	b := n.db.NewBatch()
	defer discard(b)
	next := n.journal + 1
	must(b.Set(journalKey(next), value, nil))
	if next > journalSize {
		must(b.Delete(journalKey(next-journalSize), nil))
	}
	if err := s.commit(n, b); err != nil {
		return err
	}
	n.journal = next
	return nil
}

// Transitions returns the last limit transitions, newest last. It works while the
// store is short of space.
func (s *Store) Transitions(ctx context.Context, limit int) ([]Transition, error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	defer v.release()
	ts, err := readTransitions(ctx, v.db, limit)
	return ts, s.readFailed(err)
}

// readTransitions returns the last limit transitions of a database, newest last.
func readTransitions(ctx context.Context, r pebble.Reader, limit int) (ts []Transition, err error) {
	lower, upper := keySpan(prefixJournal)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	for it.Last(); it.Valid() && len(ts) < limit && ctx.Err() == nil; it.Prev() {
		var t Transition
		if err := json.Unmarshal(it.Value(), &t); err != nil {
			return nil, errors.Join(fmt.Errorf("decode transition: %w", err), it.Close())
		}
		ts = append(ts, t)
	}
	slices.Reverse(ts)
	return ts, errors.Join(ctx.Err(), it.Error(), it.Close())
}
