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
	p := &past{at: at, lives: make(map[event.ID]*life)}
	newest := at.IsZero() || !now.AsOf.IsZero() && !at.Before(now.AsOf)
	if newest {
		p.at = now.AsOf
	} else if err := p.read(ctx, v, progress); err != nil {
		return nil, err
	}
	p.meet(now.Processes, newest)
	return p.result(now.AsOf), nil
}

// past finds out who lived at a moment, from all events in order and then the newest
// table.
type past struct {
	at    time.Time
	lives map[event.ID]*life
	gaps  []event.Loss
}

type life struct {
	Life
	ended bool // after the moment
}

// read takes all events. What can not be decoded is a gap of its own.
func (p *past) read(ctx context.Context, v *view, progress func(done, total uint64)) error {
	if v.head < v.floor {
		return &BeforeRecordError{}
	}
	lower, upper := v.eventBounds(v.floor)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	var e event.Event
	n, begun := uint64(0), false
	for it.First(); it.Valid() && err == nil; it.Next() {
		if err = v.interrupted(ctx); err != nil {
			break
		}
		if n++; progress != nil && n%progressEvery == 0 {
			progress(n, v.head-v.floor+1)
		}
		if event.Decode(it.Value(), &e) != nil {
			continue // `store verify` tells of it
		}
		if !begun && p.at.Before(e.Observed) {
			err = &BeforeRecordError{Oldest: e.Observed}
			break
		}
		begun = true
		p.take(&e)
	}
	if closed := it.Close(); err == nil && closed != nil {
		err = fmt.Errorf("read events: %w", closed)
	}
	return err
}

// take takes the next event.
func (p *past) take(e *event.Event) {
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

// takeChange takes a start, an exec or a modify.
func (p *past) takeChange(e *event.Event) {
	id := e.Process.ID
	if !e.Time.After(p.at) {
		p.lives[id] = &life{Life: Life{Process: e.Process, SeenLater: e.Observed.After(p.at) && e.Kind == event.KindStart}}
		return
	}
	if l := p.lives[id]; l == nil && p.hadBegun(&e.Process) {
		l = &life{Life: Life{Process: e.Process, SeenLater: true}}
		undo(&l.Process, e.Changes)
		p.lives[id] = l
	}
}

func (p *past) takeStop(e *event.Event) {
	id := e.Process.ID
	if !e.Time.After(p.at) {
		delete(p.lives, id)
		return
	}
	l := p.lives[id]
	if l == nil {
		if !p.hadBegun(&e.Process) {
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
	return !q.StartTime.IsZero() && !q.StartTime.After(p.at)
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
		if p.lives[q.ID] == nil && (all || !q.StartTime.After(p.at)) {
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
