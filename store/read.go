package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// Wait blocks until the durable head is above after, and returns it. It goes on
// waiting while the store is out of service. after is a sequence of epoch, or, if
// that is zero, of the one that is there. [ErrReplaced]: the store has, or now begins,
// another epoch. [ErrClosed]: there will be no more.
func (s *Store) Wait(ctx context.Context, epoch event.Epoch, after uint64) (head uint64, err error) {
	for {
		head, changed, err := s.pass(&epoch, after)
		if changed == nil {
			return head, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// pass returns what Wait waits for, or a channel that is closed when that may have
// come. A zero epoch it sets.
func (s *Store) pass(epoch *event.Epoch, after uint64) (head uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch.IsZero() {
		*epoch = s.stats.Epoch
	}
	switch {
	case !s.stats.Epoch.IsZero() && s.stats.Epoch != *epoch:
		return 0, nil, ErrReplaced
	case s.head.Load() > after:
		return s.head.Load(), nil, nil
	case s.out == leaveClosed:
		return 0, nil, ErrClosed
	}
	return 0, s.changedLocked(), nil
}

// Read calls fn with the events of epoch (zero: of whichever is there) from..head as
// they are encoded, in order, at most limit of them (0: all). From is raised to the
// lowest event kept, and sequences that were shed are left out. encoded is valid only
// during the call. An error of fn ends the reading and is returned as it is.
// [ErrReplaced]: the store has another epoch.
func (s *Store) Read(ctx context.Context, epoch event.Epoch, from uint64, limit int, fn func(seq uint64, encoded []byte) error) error {
	v, err := s.view()
	if err != nil {
		return err
	}
	defer v.release()
	if err := sameEpoch(epoch, v.epoch); err != nil {
		return err
	}
	if v.head < v.floor || from > v.head {
		return nil
	}
	lower, upper := v.eventBounds(from)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return s.readFailed(err)
	}
	err = readEach(ctx, v, it, limit, fn)
	return errors.Join(err, s.readFailed(errors.Join(it.Error(), it.Close())))
}

func readEach(ctx context.Context, v *view, it *pebble.Iterator, limit int, fn func(uint64, []byte) error) error {
	read := 0
	for it.First(); it.Valid() && (limit == 0 || read < limit); it.Next() {
		if err := v.interrupted(ctx); err != nil {
			return err
		}
		seq, _ := parseNumber(it.Key())
		if err := fn(seq, it.Value()); err != nil {
			return err
		}
		read++
	}
	return nil
}

// interrupted reports why reading must end: the caller or the store wants it.
func (v *view) interrupted(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-v.done:
		return unavailable("the database is being closed")
	default:
		return nil
	}
}

// Ack moves the cursor up to seq of epoch (zero: of the one that is there), durably:
// everything up to it is delivered. A lower seq than the cursor changes nothing, one
// above the head is an error. [ErrReplaced]: the store has another epoch, and nothing
// was changed.
func (s *Store) Ack(ctx context.Context, epoch event.Epoch, seq uint64) error {
	n, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	if err := sameEpoch(epoch, n.epoch); err != nil {
		return err
	}
	if seq > n.head {
		return fmt.Errorf("acknowledge event %d: the last one is %d", seq, n.head)
	}
	if seq <= n.cursor {
		return nil
	}
	w := n.newWrite()
	if err := w.moveCursor(seq); err != nil {
		discard(w.batch)
		return s.readFailed(err)
	}
	return s.carryOut(n, w)
}
