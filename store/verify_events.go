package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// events reads all events, and on behind those that can not be read.
func (v *verifier) events(ctx context.Context) error {
	lower, upper := keySpan(prefixEvent)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	walk := eventWalk{verifier: v, it: it, next: v.view.floor, total: v.view.head - v.view.floor + 1}
	it.First()
	for ctx.Err() == nil && walk.pass() {
		it.Next()
	}
	walk.tell()
	closeErr := it.Close()
	if walk.damaged {
		closeErr = nil // told already
	}
	return errors.Join(ctx.Err(), closeErr)
}

// eventWalk is the walk over all events.
type eventWalk struct {
	*verifier
	it          *pebble.Iterator
	event       event.Event
	next        uint64 // the sequence that should come
	read, total uint64
	damaged     bool
}

// pass checks the event at the iterator, and reports whether there was one.
func (w *eventWalk) pass() bool {
	if !w.it.Valid() && !w.skip() {
		return false
	}
	if w.read++; w.read%progressEvery == 0 {
		w.tell()
	}
	seq, ok := parseNumber(w.it.Key())
	switch {
	case !ok:
		w.add(fmt.Sprintf("key %q", w.it.Key()), "is no event's")
	case seq < w.view.floor:
		w.add(eventName(seq), "is below the lowest sequence kept, %d", w.view.floor)
	default:
		if seq > w.next {
			w.gaps = append(w.gaps, span{w.next, seq - 1})
		}
		w.next = seq + 1
		w.check(seq, w.it.Value())
	}
	return true
}

// skip moves the iterator, which can not read on, to the next event that can be
// read. Reading fails from w.next up to a place that is found by doubling and
// halving, since a block is read or fails as a whole.
func (w *eventWalk) skip() bool {
	err, from := w.it.Error(), w.next
	if err == nil || isRefusal(err) || from > w.view.head {
		return false
	}
	w.damaged, w.partial = true, true
	readable := func(i int) bool { return w.it.SeekGE(eventKey(from + uint64(i))) }
	rest := int(w.view.head - from)
	step := 1
	for step <= rest && !readable(step) {
		step *= 2
	}
	i := step/2 + sort.Search(min(step, rest)-step/2, func(i int) bool { return readable(step/2 + i) })
	if !readable(i) {
		w.add(fmt.Sprintf("events %d to %d", from, w.view.head), "can not be read: %s", w.reason(err))
		return false
	}
	w.next, _ = parseNumber(w.it.Key())
	w.add(fmt.Sprintf("events %d to %d", from, w.next-1), "can not be read: %s", w.reason(err))
	return true
}

func (w *eventWalk) tell() {
	if w.progress != nil {
		w.progress(w.read, w.total)
	}
}

// check checks one event.
func (w *eventWalk) check(seq uint64, value []byte) {
	e := &w.event
	if err := event.Decode(value, e); err != nil {
		w.add(eventName(seq), "can not be decoded: %v", err)
		w.partial = true
		return
	}
	if seq > w.n.cursor {
		w.owed.add(len(value))
	}
	if e.Seq != seq || e.Epoch != w.view.epoch {
		w.add(eventName(seq), "says that it is %d of epoch %s", e.Seq, e.Epoch)
	}
	if e.Process.ID.IsZero() && e.Kind.OfProcess() {
		w.add(eventName(seq), "is a %s of no process", e.Kind)
	}
	if w.Events++; w.Events == 1 {
		w.FirstSeq = seq
	}
	w.LastSeq = seq
	if l := e.Loss; l != nil {
		w.losses, _ = addLoss(w.losses, l)
		if l.ToSeq > 0 {
			w.lost = append(w.lost, span{l.FromSeq, l.ToSeq})
		}
	}
	if m := minuteOf(e.Observed); w.minutes[m] == 0 {
		w.minutes[m] = seq
	}
}

func eventName(seq uint64) string { return fmt.Sprintf("event %d", seq) }

// account checks that each sequence that is absent is in exactly one range of a loss
// event. Ranges may cover events that are there, and adjoin.
func (v *verifier) account() {
	covered := covers(v.lost)
	for _, gap := range v.gaps {
		for len(covered) > 0 && covered[0].to < gap.from {
			covered = covered[1:]
		}
		at := gap.from
		for _, c := range covered {
			if c.from > gap.to {
				break
			}
			if c.from > at {
				v.absent(at, c.from-1, 0)
			}
			if c.n > 1 {
				v.absent(max(at, c.from), min(c.to, gap.to), c.n)
			}
			at = c.to + 1
		}
		if at <= gap.to {
			v.absent(at, gap.to, 0)
		}
	}
}

func (v *verifier) absent(from, to uint64, n int) {
	v.add(fmt.Sprintf("events %d to %d", from, to), "are missing, and %d loss events account for them, not one", n)
}

// ledger checks what the store knows of its events as a whole: the ranges that loss
// events account for, which are disjoint, how much of each is absent, and the backlog.
func (v *verifier) ledger() {
	told := v.toldAboveFloor()
	for i, r := range v.n.ranges {
		switch where := fmt.Sprintf("range %d to %d", r.from, r.to); {
		case !slices.Contains(told, r.span):
			v.add(where, "is of no loss event")
		case i > 0 && v.n.ranges[i-1].to >= r.from:
			v.add(where, "overlaps the one before it")
		case r.absent != v.absentIn(r.span):
			v.add(where, "counts %d absent events of %d", r.absent, v.absentIn(r.span))
		}
	}
	if len(told) != len(v.n.ranges) {
		v.add("ranges of losses", "are %d, and loss events have %d", len(v.n.ranges), len(told))
	}
	if known := v.n.backlog(); known != v.owed {
		v.add("cursor", "leaves %d bytes of %d events, and the store counts %d of %d", v.owed.bytes, v.owed.events, known.bytes, known.events)
	}
}

// toldAboveFloor returns the ranges of loss events, but for what is below the floor.
func (v *verifier) toldAboveFloor() (told []span) {
	for _, s := range v.lost {
		if s.from = max(s.from, v.n.floor); s.from <= s.to {
			told = append(told, s)
		}
	}
	return told
}

func (v *verifier) absentIn(s span) (n uint64) {
	for _, gap := range v.gaps {
		if from, to := max(s.from, gap.from), min(s.to, gap.to); from <= to {
			n += to - from + 1
		}
	}
	return n
}

// cover is a range of sequences that n loss events account for.
type cover struct {
	span
	n int
}

// covers cuts ranges that may overlap into ascending ones that do not.
func covers(spans []span) (out []cover) {
	type edge struct {
		at uint64
		by int
	}
	edges := make([]edge, 0, 2*len(spans))
	for _, s := range spans {
		if s.from <= s.to && s.to+1 != 0 {
			edges = append(edges, edge{s.from, 1}, edge{s.to + 1, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	n := 0
	for i, e := range edges {
		if n > 0 && edges[i-1].at < e.at {
			out = append(out, cover{span{edges[i-1].at, e.at - 1}, n})
		}
		n += e.by
	}
	return out
}
