package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// ErrEpoch says that a query goes on after a sequence of another epoch than the
// store's: sequences of two epochs can not be compared.
var ErrEpoch = errors.New("store has another epoch")

// ErrUndecodable says that events were passed over because they can not be
// decoded; all others were given.
var ErrUndecodable = errors.New("events can not be decoded")

// Query selects events. The zero value selects all. Conditions are joined by and,
// the values of one by or.
type Query struct {
	// Since and Until bound the time of observation, inclusive. Zero is no bound.
	Since, Until time.Time
	// After is the last sequence not wanted, of AfterEpoch unless that is zero.
	After      uint64
	AfterEpoch event.Epoch
	// PIDs, Process and Exe select only events that speak of a process.
	PIDs    []int32
	Process event.ID
	// Exe is a pattern of [path.Match] for the printable path of the executable
	// ([event.Text]), or without a slash for its last element.
	Exe   string
	Kinds []event.Kind
	// Limit is how many events are given at most; 0 is no limit. Newest gives the
	// last ones that match instead of the first, still in order.
	Limit  int
	Newest bool
}

// Query calls fn with each event that matches and is durable now, in order. The
// event is valid only during the call. It blocks as long as reading and fn take,
// without holding up writers; ctx ends it. An error of fn is returned as it is.
// Others: [ErrUnavailable], [ErrEpoch], [ErrUndecodable], a bad pattern, or I/O.
func (s *Store) Query(ctx context.Context, q Query, fn func(*event.Event) error) error {
	v, err := s.view()
	if err != nil {
		return err
	}
	defer v.release()
	err = v.query(ctx, q, fn)
	if isCorruption(err) {
		return s.readFailed(err)
	}
	return err
}

// query is [Store.Query] on a view.
func (v *view) query(ctx context.Context, q Query, fn func(*event.Event) error) error {
	from, err := v.firstOf(q)
	if err != nil {
		return err
	}
	if from > v.head || v.head < v.floor {
		return nil
	}
	lower, upper := v.eventBounds(from)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	search := search{view: v, query: q, it: it, fn: fn}
	if q.Newest && q.Limit > 0 {
		err = search.last(ctx)
	} else {
		err = search.first(ctx)
	}
	readErr := it.Close() // with what the iterator met
	if err != nil {
		return err
	}
	if readErr != nil {
		return fmt.Errorf("read events: %w", readErr)
	}
	return search.undecodable()
}

// firstOf checks a query and returns the lowest sequence that can match.
func (v *view) firstOf(q Query) (uint64, error) {
	if _, err := path.Match(q.Exe, ""); err != nil {
		return 0, fmt.Errorf("pattern %q for the executable: %w", q.Exe, err)
	}
	if !q.AfterEpoch.IsZero() && q.AfterEpoch != v.epoch {
		return 0, fmt.Errorf("%w: it is %s, asked for events after %s.%d", ErrEpoch, v.epoch, q.AfterEpoch, q.After)
	}
	if q.After >= v.head {
		return v.head + 1, nil
	}
	from := max(v.floor, q.After+1)
	if q.Since.IsZero() {
		return from, nil
	}
	since, err := v.firstSince(minuteOf(q.Since))
	return max(from, since), err
}

// firstSince returns the lowest sequence observed in a minute or any later one,
// above the head if there is none. It looks at all of them, because a clock that
// was set back puts later events into earlier minutes.
func (v *view) firstSince(minute uint64) (uint64, error) {
	_, upper := keySpan(prefixMinute)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: minuteKey(minute), UpperBound: upper})
	if err != nil {
		return 0, fmt.Errorf("read time index: %w", err)
	}
	first := v.head + 1
	for it.First(); it.Valid(); it.Next() {
		if seq := parseMetaNumber(it.Value()); seq < first {
			first = seq
		}
	}
	return first, errors.Join(it.Error(), it.Close())
}

// search is one query under way.
type search struct {
	view  *view
	query Query
	it    *pebble.Iterator
	fn    func(*event.Event) error

	event    event.Event
	bad      uint64 // events that can not be decoded
	firstBad uint64 // the first of them
}

// first gives the first matches.
func (s *search) first(ctx context.Context) error {
	s.it.First()
	return s.onward(ctx)
}

// onward gives the matches from the iterator's place on.
func (s *search) onward(ctx context.Context) error {
	given := 0
	for ; s.it.Valid() && (s.query.Limit == 0 || given < s.query.Limit); s.it.Next() {
		if err := s.view.interrupted(ctx); err != nil {
			return err
		}
		if !s.matches() {
			continue
		}
		if err := s.fn(&s.event); err != nil {
			return err
		}
		given++
	}
	return nil
}

// maxRemembered bounds the memory of a query from the end, in sequences.
const maxRemembered = 10_000

// last gives the last matches. It looks for them from the end, keeps only their
// keys, and reads them again in order. Keys of so many that they would take a lot
// of memory are not kept: all that lies between the matches is read twice.
func (s *search) last(ctx context.Context) error {
	var found []uint64
	lowest, n := uint64(0), 0
	for s.it.Last(); s.it.Valid() && n < s.query.Limit; s.it.Prev() {
		if err := s.view.interrupted(ctx); err != nil {
			return err
		}
		if !s.matches() {
			continue
		}
		lowest, _ = parseNumber(s.it.Key())
		if n++; n <= maxRemembered {
			found = append(found, lowest)
		}
	}
	if n > maxRemembered {
		return s.onwardFrom(ctx, lowest)
	}
	return s.these(ctx, found)
}

// onwardFrom gives the matches from a sequence on. What can not be decoded there
// was counted before.
func (s *search) onwardFrom(ctx context.Context, seq uint64) error {
	bad, firstBad := s.bad, s.firstBad
	s.it.SeekGE(eventKey(seq))
	err := s.onward(ctx)
	s.bad, s.firstBad = bad, firstBad
	return err
}

// these gives the events that were found, the last first.
func (s *search) these(ctx context.Context, found []uint64) error {
	for _, seq := range slices.Backward(found) {
		if err := s.view.interrupted(ctx); err != nil {
			return err
		}
		if !s.it.SeekGE(eventKey(seq)) || !s.matches() {
			continue
		}
		if err := s.fn(&s.event); err != nil {
			return err
		}
	}
	return nil
}

// matches decodes the event at the iterator and reports whether it is wanted.
func (s *search) matches() bool {
	if err := event.Decode(s.it.Value(), &s.event); err != nil {
		seq, _ := parseNumber(s.it.Key())
		if s.bad++; s.bad == 1 || seq < s.firstBad {
			s.firstBad = seq
		}
		return false
	}
	return s.query.matches(&s.event)
}

func (s *search) undecodable() error {
	if s.bad == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of them, the first is %d: run store verify", ErrUndecodable, s.bad, s.firstBad)
}

// matches checks all conditions but After.
func (q *Query) matches(e *event.Event) bool {
	switch {
	case q.ofProcess() && !e.Kind.OfProcess(),
		len(q.Kinds) > 0 && !slices.Contains(q.Kinds, e.Kind),
		len(q.PIDs) > 0 && !slices.Contains(q.PIDs, e.Process.PID),
		!q.Process.IsZero() && q.Process != e.Process.ID,
		!q.Since.IsZero() && e.Observed.Before(q.Since),
		!q.Until.IsZero() && e.Observed.After(q.Until):
		return false
	}
	return q.Exe == "" || matchesExe(q.Exe, event.Text(e.Process.Exe))
}

// ofProcess reports whether a condition is about processes. An event about none
// has a PID of 0 and no path, which would match the PID 0 and the pattern *.
func (q *Query) ofProcess() bool { return len(q.PIDs) > 0 || !q.Process.IsZero() || q.Exe != "" }

func matchesExe(pattern, exe string) bool {
	if !strings.Contains(pattern, "/") {
		exe = exe[strings.LastIndexByte(exe, '/')+1:]
	}
	ok, _ := path.Match(pattern, exe) // firstOf has checked the syntax
	return ok
}
