package store

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// ledger is what the store knows of its events as a whole. A write works on a copy,
// which takes the place of the session's once it is durable; slices are replaced,
// never changed.
type ledger struct {
	floor  uint64 // lowest sequence kept
	head   uint64 // last one; in a session as durable as Store.head
	total  uint64 // encoded bytes of all events ever appended
	cursor uint64 // last acknowledged sequence
	// settled counts, of all events ever appended, those that are owed no more:
	// acknowledged, removed or shed.
	settled tally
	stream  stream      // of the last Resume
	ranges  []lossRange // ascending, disjoint
	losses  []LossTotal // by cause, ascending
}

// tally counts events and their encoded bytes.
type tally struct{ events, bytes uint64 }

func (t tally) plus(u tally) tally  { return tally{t.events + u.events, t.bytes + u.bytes} }
func (t tally) minus(u tally) tally { return tally{t.events - u.events, t.bytes - u.bytes} }

func (t *tally) add(bytes int) {
	t.events++
	t.bytes += uint64(bytes)
}

// backlog counts what is neither acknowledged, nor removed or shed.
func (l *ledger) backlog() tally {
	return tally{l.head - min(l.head, l.settled.events), l.total - min(l.total, l.settled.bytes)}
}

// absent counts the sequences at or above the floor that are not there.
func (l *ledger) absent() (n uint64) {
	for _, r := range l.ranges {
		n += r.absent
	}
	return n
}

// kept counts the events that are there.
func (l *ledger) kept() uint64 { return l.head + 1 - l.floor - l.absent() }

// cursorRecord encodes what metaCursor holds.
func (l *ledger) cursorRecord() []byte {
	return binary.BigEndian.AppendUint64(twoNumbers(l.cursor, l.settled.bytes), l.settled.events)
}

// The sizes of that record, and of the one that releases without shedding wrote.
const (
	cursorSize    = 3 * 8
	oldCursorSize = 2 * 8
)

func parseCursor(b []byte) (cursor uint64, settled tally) {
	cursor, settled.bytes = parseTwoNumbers(b)
	settled.events = cursor
	if len(b) >= cursorSize {
		settled.events = parseMetaNumber(b[oldCursorSize:])
	}
	return cursor, settled
}

// tally counts the events from..to that are there, inclusive.
func (n *session) tally(from, to uint64) (sum tally, err error) {
	if from > to {
		return tally{}, nil
	}
	it, err := n.eventsIn(from, to)
	if err != nil {
		return tally{}, err
	}
	for it.First(); it.Valid(); it.Next() {
		value := it.LazyValue()
		sum.add(value.Len())
	}
	return sum, errors.Join(it.Error(), it.Close())
}

// eventsIn returns an iterator over the events from..to, inclusive.
func (n *session) eventsIn(from, to uint64) (*pebble.Iterator, error) {
	return n.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(from), UpperBound: eventKey(to + 1)})
}

// latest returns the lowest sequence such that the events from there to `to` have no
// more than limit bytes, and their tally; to+1 if even the last one has more.
func (n *session) latest(to, limit uint64) (from uint64, sum tally, err error) {
	from = to + 1
	if to < n.floor {
		return from, sum, nil
	}
	it, err := n.eventsIn(n.floor, to)
	if err != nil {
		return 0, tally{}, err
	}
	for it.Last(); it.Valid(); it.Prev() {
		value := it.LazyValue()
		if sum.bytes+uint64(value.Len()) > limit {
			break
		}
		sum.add(value.Len())
		from, _ = parseNumber(it.Key())
	}
	return from, sum, errors.Join(it.Error(), it.Close())
}

// moveCursor makes seq the last acknowledged sequence: events pass from the backlog
// to what is settled, or back.
func (w *write) moveCursor(seq uint64) error {
	passed, err := w.tally(min(w.cursor, seq)+1, max(w.cursor, seq))
	if err != nil {
		return err
	}
	if seq < w.cursor {
		w.settled = w.settled.minus(passed)
	} else {
		w.settled = w.settled.plus(passed)
	}
	w.cursor = seq
	must(w.batch.Set([]byte(metaCursor), w.cursorRecord(), nil))
	return nil
}
