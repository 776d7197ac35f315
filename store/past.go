package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// Past is the process table as it was at one moment, as far as the store knows.
type Past struct {
	At   time.Time // the moment asked for, or AsOf
	AsOf time.Time // when the newest table was complete; zero: never
	// Lives are the processes that lived, sorted by PID. What had ended and was not
	// reaped is not among them.
	Lives []Life
	// Gaps are what is known to have gone unseen, or lost, around At.
	Gaps []event.Loss
}

// Life is a process that lived at a moment.
type Life struct {
	Process event.Process
	// SeenLater says that the record is of a later moment: by then it had changed, or
	// was seen for the first time.
	SeenLater bool
	// LastSeen, if not zero, is when it was seen for the last time before it was found
	// to have ended: it may have ended before the moment.
	LastSeen time.Time
	// EndLost says that it does not live any more and that its end is not kept, so it
	// may have come before the moment.
	EndLost bool
}

// BeforeRecordError says that the store keeps nothing of the moment asked for.
type BeforeRecordError struct {
	Oldest time.Time // when the oldest event that is kept was observed; zero: there is none
}

func (e *BeforeRecordError) Error() string {
	if e.Oldest.IsZero() {
		return "no events are kept"
	}
	return fmt.Sprintf("the oldest event that is kept was observed at %s", e.Oldest.Format(time.RFC3339))
}

// Past returns the processes that lived at a moment; zero is the newest table. It
// reads all events that are kept, unless the moment is not before the newest table,
// and calls progress now and then. It blocks as long as that takes, without holding up
// writers; ctx ends it. Errors: [*BeforeRecordError], [ErrUnavailable], or I/O.
func (s *Store) Past(ctx context.Context, at time.Time, progress func(done, total uint64)) (*Past, error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	defer v.release()
	p, err := v.past(ctx, at, progress)
	if isCorruption(err) {
		return nil, s.readFailed(err)
	}
	return p, err
}

// Past is [Store.Past] of a store that no daemon runs.
func (c *Copy) Past(ctx context.Context, at time.Time, progress func(done, total uint64)) (*Past, error) {
	return c.reading.view().past(ctx, at, progress)
}

func (v *view) past(ctx context.Context, at time.Time, progress func(done, total uint64)) (*Past, error) {
	var now event.Table
	if err := readTable(ctx, v.db, &now); err != nil {
		return nil, err
	}
	p := &past{at: at, lives: make(map[event.ID]*life), later: make(map[event.ID]struct{})}
	newest, err := v.isNewest(at, now.AsOf)
	if err != nil {
		return nil, err
	}
	if newest {
		p.at = now.AsOf
	} else if err := p.read(ctx, v, progress); err != nil {
		return nil, err
	}
	p.meet(now.Processes, newest)
	return p.result(now.AsOf), nil
}

// isNewest reports whether nothing is known to have happened after a moment. The table
// can be newer than when it was complete.
func (v *view) isNewest(at, asOf time.Time) (bool, error) {
	if at.IsZero() || asOf.IsZero() || at.Before(asOf) {
		return at.IsZero(), nil
	}
	it, err := v.all()
	if err != nil {
		return false, err
	}
	var e event.Event
	known := it.Last() && event.Decode(it.Value(), &e) == nil
	if err := it.Close(); err != nil {
		return false, fmt.Errorf("read events: %w", err)
	}
	return !known || !e.Observed.After(at), nil
}

// all reads every event, those above the durable head too: the table tells of them.
func (v *view) all() (*pebble.Iterator, error) {
	_, upper := keySpan(prefixEvent)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(v.floor), UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return it, nil
}

// past finds out who lived at a moment, from all events in order and then the newest
// table.
type past struct {
	at    time.Time
	lives map[event.ID]*life
	gaps  []event.Loss

	// next is the first sequence of those that all were observed after the moment. What
	// is before it had happened by then, whatever the clock said: if that was set back,
	// a time that came twice means the second one.
	next uint64
	// setBack says that the clock was, from after the moment to before it. Start times
	// of before that mean nothing then, but that a start is not in later is a late one.
	setBack bool
	later   map[event.ID]struct{} // began after the moment, and lives; only if setBack
}

type life struct {
	Life
	ended bool // after the moment
}

// read takes all events. What can not be decoded is a gap of its own.
func (p *past) read(ctx context.Context, v *view, progress func(done, total uint64)) error {
	it, err := v.all()
	if err != nil {
		return err
	}
	earliest, err := p.cut(ctx, v, it)
	var e event.Event
	n, bad, begun := uint64(0), uint64(0), false
	for it.First(); it.Valid() && err == nil; it.Next() {
		if err = v.interrupted(ctx); err != nil {
			break
		}
		if n++; progress != nil && n%progressEvery == 0 {
			progress(n, max(n, v.head-v.floor+1))
		}
		if event.Decode(it.Value(), &e) != nil {
			bad++
			continue
		}
		if !begun && p.next == 0 && p.at.Before(e.Observed) {
			err = &BeforeRecordError{Oldest: earliest}
			break
		}
		begun = true
		p.take(&e)
	}
	if closed := it.Close(); err == nil && closed != nil {
		err = fmt.Errorf("read events: %w", closed)
	}
	if err == nil && !begun {
		err = &BeforeRecordError{}
	}
	if bad > 0 {
		hint := fmt.Sprintf("%d events can not be decoded: run `procmond store verify`.", bad)
		p.gaps = append(p.gaps, event.Loss{Count: bad, Known: true, Hint: hint})
	}
	return err
}

// cut finds next, from the end. If there is none it returns when the first of all was
// observed.
func (p *past) cut(ctx context.Context, v *view, it *pebble.Iterator) (earliest time.Time, err error) {
	for it.Last(); it.Valid(); it.Prev() {
		if err := v.interrupted(ctx); err != nil {
			return earliest, err
		}
		kind, observed, err := event.PeekObserved(it.Value())
		if err != nil {
			continue
		}
		if kind.OfProcess() && !observed.After(p.at) {
			seq, _ := parseNumber(it.Key())
			p.next = seq + 1
			break
		}
		if earliest.IsZero() || observed.Before(earliest) {
			earliest = observed
		}
	}
	return earliest, nil
}

// take takes the next event.
func (p *past) take(e *event.Event) {
	p.setBack = p.setBack || e.Seq < p.next && e.Observed.After(p.at)
	switch e.Kind {
	case event.KindLoss:
		p.takeLoss(e)
	case event.KindSensor:
	case event.KindStop:
		p.takeStop(e)
	default:
		p.takeChange(e)
	}
}

// byThen reports whether it had happened by the moment.
func (p *past) byThen(e *event.Event) bool { return e.Seq < p.next || !e.Time.After(p.at) }

// takeChange takes a start, an exec or a modify.
func (p *past) takeChange(e *event.Event) {
	id := e.Process.ID
	if p.byThen(e) {
		seenLater := e.Kind == event.KindStart && e.Seq >= p.next && e.Observed.After(p.at)
		p.lives[id] = &life{Life: Life{Process: e.Process, SeenLater: seenLater}}
		return
	}
	switch {
	case p.lives[id] != nil:
	case p.setBack && e.Kind == event.KindStart:
		p.later[id] = struct{}{}
	case p.hadBegun(&e.Process):
		l := &life{Life: Life{Process: e.Process, SeenLater: true}}
		undo(&l.Process, e.Changes)
		p.lives[id] = l
	}
}

func (p *past) takeStop(e *event.Event) {
	id := e.Process.ID
	if p.byThen(e) {
		delete(p.lives, id)
		return
	}
	l := p.lives[id]
	if l == nil {
		begun := p.hadBegun(&e.Process)
		delete(p.later, id)
		if !begun {
			return
		}
		l = &life{Life: Life{Process: e.Process}}
		p.lives[id] = l
	}
	l.ended = true
	if !e.NotBefore.IsZero() && e.NotBefore.Before(p.at) {
		l.LastSeen = e.NotBefore
	}
}

// hadBegun reports whether a process of which nothing was kept before the moment had
// begun by then.
func (p *past) hadBegun(q *event.Process) bool {
	if !q.StartTime.IsZero() && !q.StartTime.After(p.at) {
		return true
	}
	_, later := p.later[q.ID]
	return p.setBack && !later
}

// undo takes back what has changed after the moment, where the text of a change is all
// of the value.
func undo(p *event.Process, changes []event.Change) {
	for _, c := range changes {
		switch c.Field {
		case event.FieldName:
			p.Name = c.Old
		case event.FieldExe:
			p.Exe = c.Old
		}
	}
}

func (p *past) takeLoss(e *event.Event) {
	if l := e.Loss; l != nil && !l.From.After(p.at) && !l.To.Before(p.at) {
		p.gaps = append(p.gaps, *l)
	}
}

// meet takes the newest table. Whoever is in it and was in no event lived all the time.
// If it is all that was asked for, it also has what started while it was made.
func (p *past) meet(now []*event.Process, all bool) {
	there := make(map[event.ID]struct{}, len(now))
	for _, q := range now {
		if q.State == event.StateZombie && q.Threads <= 1 {
			continue
		}
		there[q.ID] = struct{}{}
		if p.lives[q.ID] == nil && (all || q.StartTime.IsZero() || p.hadBegun(q)) {
			p.lives[q.ID] = &life{Life: Life{Process: *q}}
		}
	}
	for id, l := range p.lives {
		_, alive := there[id]
		l.EndLost = !l.ended && !alive
	}
}

func (p *past) result(asOf time.Time) *Past {
	r := &Past{At: p.at, AsOf: asOf, Gaps: p.gaps}
	for l := range maps.Values(p.lives) {
		r.Lives = append(r.Lives, l.Life)
	}
	slices.SortFunc(r.Lives, func(a, b Life) int {
		return cmp.Or(cmp.Compare(a.Process.PID, b.Process.PID), a.Process.StartTime.Compare(b.Process.StartTime))
	})
	return r
}
