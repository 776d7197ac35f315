package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Wait blocks until the durable head is above after, and returns it. It goes on
// waiting while the store is out of service. [ErrReplaced]: the epoch that after
// belongs to has ended. [ErrClosed]: there will be no more.
func (s *Store) Wait(ctx context.Context, after uint64) (uint64, error) {
	s.mu.Lock()
	epoch := s.stats.Epoch
	s.mu.Unlock()
	for {
		s.mu.Lock()
		switch {
		case !epoch.IsZero() && s.stats.Epoch != epoch:
			s.mu.Unlock()
			return 0, ErrReplaced
		case s.head.Load() > after:
			s.mu.Unlock()
			return s.head.Load(), nil
		case s.out == leaveClosed:
			s.mu.Unlock()
			return 0, ErrClosed
		}
		epoch = s.stats.Epoch
		changed := s.changedLocked()
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Read calls fn with the events from..head as they are encoded, in order, at most
// limit of them (0: all). From is raised to the lowest event kept. encoded is valid
// only during the call. An error of fn ends the reading and is returned as it is.
func (s *Store) Read(ctx context.Context, from uint64, limit int, fn func(seq uint64, encoded []byte) error) error {
	v, err := s.view()
	if err != nil {
		return err
	}
	defer v.release()
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

// Ack moves the cursor up to seq, durably: everything up to it is delivered. A
// lower seq than the cursor changes nothing, one above the head is an error.
func (s *Store) Ack(ctx context.Context, seq uint64) error {
	n, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	if seq > n.head {
		return fmt.Errorf("acknowledge event %d: the last one is %d", seq, n.head)
	}
	if seq <= n.cursor {
		return nil
	}
	sum, err := n.sumBytes(n.cursor+1, seq)
	if err != nil {
		return s.readFailed(err)
	}
	b := n.db.NewBatch()
	defer discard(b)
	must(b.Set([]byte(metaCursor), twoNumbers(seq, n.acked+sum), nil))
	if err := s.commit(n, b); err != nil {
		return err
	}
	n.cursor, n.acked = seq, n.acked+sum
	s.publish(n)
	return nil
}

// publish shows what a write changed, but for the head.
func (s *Store) publish(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == n {
		s.publishLocked(n)
	}
}
