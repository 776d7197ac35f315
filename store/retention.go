package store

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// retainDelay lets the clock be set after a start before it decides what is old.
	retainDelay = 5 * time.Minute
	// retainEvery is the least time between two removals: each costs an fsync and,
	// flushDelay later, a small table.
	retainEvery = time.Minute
	// maxClockStep is how far wall clock and monotonic clock may come apart from one
	// look to the next before retention does not believe the wall clock, until they
	// are as they were, or the process is started again.
	maxClockStep = 5 * time.Minute
	// retainSlack is by how much more than necessary is removed for space.
	retainSlack = 20 // one part in
)

// retainer is what retention remembers between two looks. It belongs to Serve, and
// under Store.slot to nobody else.
type retainer struct {
	started  time.Time     // when it first looked
	removed  time.Time     // when it last removed
	up       time.Duration // uptime when the wall clock was last believed
	believed time.Time     // the wall clock then
}

// step notes the time and reports whether the wall clock can be believed. up is the
// time since some moment, including that when the machine slept.
func (r *retainer) step(now, wall time.Time, up time.Duration) bool {
	wall = wall.Round(0)
	if r.started.IsZero() {
		r.started = now
	} else if apart := wall.Sub(r.believed) - (up - r.up); apart.Abs() > maxClockStep {
		return false
	}
	r.up, r.believed = up, wall
	return true
}

// due reports whether it is time to remove.
func (r *retainer) due(now time.Time) bool {
	return now.Sub(r.started) >= retainDelay && now.Sub(r.removed) >= retainEvery
}

// retain removes the events that are too old or too many, never one that is owed.
func (s *Store) retain(ctx context.Context) error {
	now, wall := time.Now(), s.wall()
	trusted := s.retention.step(now, wall, s.uptime())
	s.pauseRetention(!trusted)
	if !s.retention.due(now) {
		return nil
	}
	n, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	age := s.conf.Retention.Age
	if !trusted {
		age = 0
	}
	minutes, err := readMinutes(n.db)
	if err != nil {
		return s.readFailed(err)
	}
	floor, err := n.wantedFloor(Retention{Age: age, Bytes: s.conf.Retention.Bytes}, minutes, wall)
	if err != nil {
		return s.readFailed(err)
	}
	if s.conf.Owed {
		floor = min(floor, n.cursor+1)
	}
	if floor <= n.floor {
		return nil
	}
	s.retention.removed = now
	return s.removeBelow(n, floor, minutes)
}

func (s *Store) pauseRetention(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if paused && !s.stats.RetentionPaused {
		s.stats.RetentionPauses++
	}
	s.stats.RetentionPaused = paused
}

// minute is an entry of the time index: the lowest sequence observed in it.
type minute struct{ minute, seq uint64 }

func readMinutes(r pebble.Reader) (ms []minute, err error) {
	lower, upper := keySpan(prefixMinute)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read time index: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		m, ok := parseNumber(it.Key())
		if ok {
			ms = append(ms, minute{m, parseMetaNumber(it.Value())})
		}
	}
	return ms, errors.Join(it.Error(), it.Close())
}

// wantedFloor returns the lowest sequence to keep.
func (n *session) wantedFloor(r Retention, minutes []minute, now time.Time) (uint64, error) {
	floor := n.floor
	if r.Age > 0 {
		// Minutes are removed whole, and not each on its own.
		slack := max(time.Minute, r.Age/retainSlack/5)
		if len(minutes) > 0 && minutes[0].minute < minuteOf(now.Add(-r.Age-slack)) {
			floor = max(floor, firstSince(minutes, minuteOf(now.Add(-r.Age)), n.head))
		}
	}
	if r.Bytes > 0 {
		bySize, err := n.floorBySize(r.Bytes)
		if err != nil {
			return 0, err
		}
		floor = max(floor, bySize)
	}
	return floor, nil
}

// firstSince returns the lowest sequence observed in minute m or later, head+1 if
// there is none: everything below it is older.
func firstSince(minutes []minute, m, head uint64) uint64 {
	first := head + 1
	for _, e := range minutes {
		if e.minute >= m {
			first = min(first, e.seq)
		}
	}
	return first
}

// floorBySize returns the lowest sequence to keep for the events to take no more
// than limit bytes of tables. What is not in a table yet is not counted.
func (n *session) floorBySize(limit uint64) (uint64, error) {
	floor := n.floor
	size := func(to uint64) (uint64, error) { return n.db.EstimateDiskUsage(eventKey(floor), eventKey(to)) }
	if n.head < floor {
		return floor, nil
	}
	total, err := size(n.head + 1)
	if err != nil || total <= limit {
		return floor, err
	}
	excess := total - limit + limit/retainSlack
	var failed error
	keep := sort.Search(int(n.head-floor)+1, func(i int) bool {
		removed, err := size(floor + uint64(i))
		failed = errors.Join(failed, err)
		return removed >= excess
	})
	return floor + uint64(keep), failed
}

func (s *Store) owesSpace() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session != nil && s.session.owesSpace()
}

// giveSpaceBack flushes the memory that says which events were removed: until then they
// are in their tables. Pebble would do so by itself (Options.FlushDelayDeleteRange), at
// any time: between the failure of a write and the end of the database, which it does not
// survive. Here no write is on its way.
func (s *Store) giveSpaceBack(ctx context.Context) error {
	n, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	if !n.owesSpace() {
		return nil // the database is another one by now
	}
	n.removed.Store(0)
	_, err = n.db.AsyncFlush()
	return err
}

// removeBelow removes the events below floor, and what the time index says of them.
func (s *Store) removeBelow(n *session, floor uint64, minutes []minute) error {
	w := n.newWrite()
	if err := w.raiseFloor(floor, minutes); err != nil {
		discard(w.batch)
		return s.readFailed(err)
	}
	removed := n.kept() - w.kept()
	if err := s.carryOut(n, w); err != nil {
		return err
	}
	n.indexed = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Removed += removed
	return nil
}

func (w *write) raiseFloor(floor uint64, minutes []minute) error {
	w.noteRemoved()
	must(w.batch.DeleteRange(eventKey(w.floor), eventKey(floor), nil))
	must(w.batch.Set([]byte(metaFloor), number(floor), nil))
	trimMinutes(w.batch, minutes, floor)
	if err := w.cutRanges(floor); err != nil {
		return err
	}
	w.floor = floor
	if w.cursor >= floor-1 {
		return nil
	}
	return w.moveCursor(floor - 1) // nothing is owed, and this will not be delivered
}

// trimMinutes removes the entries that no query needs. Events are removed by
// sequence and the index is by time, and after a step of the clock these differ:
// an entry below floor may have events above it. A query for a minute before m,
// the latest minute such that some entry at or after it is at or below floor,
// starts at floor in any case; entries before m matter only while above floor.
func trimMinutes(b *pebble.Batch, minutes []minute, floor uint64) {
	for _, m := range trimmed(minutes, floor) {
		must(b.Delete(minuteKey(m), nil))
	}
}

// trimmed returns the minutes that trimMinutes removes.
func trimmed(minutes []minute, floor uint64) (ms []uint64) {
	last := 0
	for i, e := range minutes {
		if e.seq <= floor {
			last = i
		}
	}
	for _, e := range minutes[:min(last, len(minutes))] {
		if e.seq < floor {
			ms = append(ms, e.minute)
		}
	}
	return ms
}
