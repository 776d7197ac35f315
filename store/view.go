package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// view is what a reader may see of a database: the durable events floor..head. If
// head < floor there are none. While a view is held the database stays open, so
// release must be called, once, and soon after done is closed.
type view struct {
	db          pebble.Reader
	epoch       event.Epoch
	floor, head uint64
	// done is closed when the store wants the database back; nil for a database
	// that is only read.
	done    <-chan struct{}
	release func()
}

// eventBounds returns the key bounds [lower, upper) of the events that are
// visible at or after from.
func (v *view) eventBounds(from uint64) (lower, upper []byte) {
	return eventKey(max(from, v.floor)), eventKey(v.head + 1)
}

// view returns a view of the present, or ErrUnavailable. A store that is only
// short of space can still be read.
func (s *Store) view() (*view, error) {
	v, n, err := s.hold()
	if err != nil {
		return nil, err
	}
	// Not under mu: Pebble calls the store with locks held that this needs.
	reader := n.reader()
	v.db = reader
	v.release = func() {
		reader.release()
		n.readers.Done()
	}
	return v, nil
}

// hold keeps the session open, and begins a view of it.
func (s *Store) hold() (*view, *session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.session
	if n == nil {
		return nil, nil, s.unavailableLocked()
	}
	n.readers.Add(1)
	return &view{epoch: n.epoch, floor: s.stats.Floor, head: s.head.Load(), done: n.leaving}, n, nil
}

// sameEpoch returns ErrReplaced if the epoch asked for, unless it is zero, is not
// the one that is there.
func sameEpoch(asked, have event.Epoch) error {
	if asked.IsZero() || asked == have {
		return nil
	}
	return fmt.Errorf("epoch %s: %w: it has epoch %s", asked, ErrReplaced, have)
}

// readFailed is given every error of reading a running store's database. It takes
// a damaged store out of service, and returns err, wrapped.
func (s *Store) readFailed(err error) error {
	if err == nil {
		return nil
	}
	if isCorruption(err) {
		s.leave(leaveCorrupt, fmt.Sprintf("the database is damaged: %v", err))
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("read store: %w", err)
}

// lastNumber returns the number of the last key with this prefix, or 0.
func lastNumber(r pebble.Reader, prefix string) (n uint64, err error) {
	lower, upper := keySpan(prefix)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return 0, err
	}
	if it.Last() {
		n, _ = parseNumber(it.Key())
	}
	return n, errors.Join(it.Error(), it.Close())
}

// readMeta returns a copy of a meta record, nil if there is none.
func readMeta(r pebble.Reader, key string) ([]byte, error) {
	value, closer, err := r.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	out := append([]byte(nil), value...)
	return out, closer.Close()
}
