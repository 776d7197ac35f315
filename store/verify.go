package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// maxProblems is how many problems are told one by one.
const maxProblems = 100

// progressEvery is after how many events progress is told.
const progressEvery = 4096

// Verification is what a check of a whole store found.
type Verification struct {
	// Direct: see [Copy].
	Direct bool
	Stats  Stats
	// Events could be read and decoded, from FirstSeq to LastSeq.
	Events            uint64
	FirstSeq, LastSeq uint64
	Processes         uint64 // in the table
	Transitions       uint64 // in the journal
	// Problems are what is wrong, at most 100 of them; More counts the rest.
	Problems []Problem
	More     uint64
}

// OK reports whether nothing is wrong.
func (v *Verification) OK() bool { return len(v.Problems) == 0 }

// Problem is one thing that is wrong.
type Problem struct {
	Where string // "event 17", "process …", "database"
	What  string
}

func (p Problem) String() string { return p.Where + ": " + p.What }

// Verify reads everything in the store in dir, which no daemon may have open: every
// block with its checksum, every event, process and transition decoded, sequences
// dense but for what a loss event covers, the time index, the cursor. progress, if
// not nil, is told how many events of how many were read. A damaged store is no
// error but a result; errors are those of [Inspect], and ctx's.
func Verify(ctx context.Context, dir string, progress func(done, total uint64)) (*Verification, error) {
	v := new(Verification)
	c, err := OpenCopy(ctx, dir)
	if isCorruption(err) {
		v.Stats.Path = dir
		v.add("database", "can not be opened: %v", err)
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	v.Direct, v.Stats = c.Direct, c.Stats()
	check := verifier{Verification: v, view: c.reading.view(), db: c.reading.db, progress: progress}
	err = check.run(ctx)
	if isCorruption(err) {
		v.add("database", "%v", err)
		err = nil
	}
	return v, errors.Join(err, c.Close())
}

func (v *Verification) add(where, what string, args ...any) {
	if len(v.Problems) == maxProblems {
		v.More++
		return
	}
	v.Problems = append(v.Problems, Problem{Where: where, What: fmt.Sprintf(what, args...)})
}

// span is a range of sequences, inclusive.
type span struct{ from, to uint64 }

type verifier struct {
	*Verification
	view     *view
	db       *pebble.DB
	progress func(done, total uint64)

	gaps   []span // sequences that are not there
	losses []span // sequences that loss events account for
	minute map[uint64]uint64
}

func (v *verifier) run(ctx context.Context) error {
	v.minute = map[uint64]uint64{}
	for _, step := range []func(context.Context) error{v.events, v.index, v.processes, v.journal} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	v.account()
	if v.Stats.Cursor > v.Stats.Head {
		v.add("cursor", "is %d, above the last event %d", v.Stats.Cursor, v.Stats.Head)
	}
	return v.db.CheckLevels(nil)
}

// each calls fn with every key of a prefix.
func (v *verifier) each(ctx context.Context, prefix string, fn func(key, value []byte)) error {
	lower, upper := keySpan(prefix)
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && ctx.Err() == nil; it.Next() {
		fn(it.Key(), it.Value())
	}
	return errors.Join(ctx.Err(), it.Error(), it.Close())
}

func (v *verifier) events(ctx context.Context) error {
	next, read, total := v.view.floor, uint64(0), v.view.head-v.view.floor+1
	var e event.Event
	err := v.each(ctx, prefixEvent, func(key, value []byte) {
		if read++; read%progressEvery == 0 {
			v.tell(read, total)
		}
		seq, ok := parseNumber(key)
		if !ok {
			v.add(fmt.Sprintf("key %q", key), "is no event's")
			return
		}
		if seq < v.view.floor {
			v.add(fmt.Sprintf("event %d", seq), "is below the lowest sequence kept, %d", v.view.floor)
			return
		}
		if seq > next {
			v.gaps = append(v.gaps, span{next, seq - 1})
		}
		next = seq + 1
		v.event(seq, value, &e)
	})
	v.tell(read, total)
	return err
}

func (v *verifier) tell(done, total uint64) {
	if v.progress != nil {
		v.progress(done, total)
	}
}

// event checks one.
func (v *verifier) event(seq uint64, value []byte, e *event.Event) {
	where := fmt.Sprintf("event %d", seq)
	if err := event.Decode(value, e); err != nil {
		v.add(where, "%v", err)
		return
	}
	if e.Seq != seq || e.Epoch != v.view.epoch {
		v.add(where, "says that it is %d of epoch %s", e.Seq, e.Epoch)
	}
	if v.Events++; v.Events == 1 {
		v.FirstSeq = seq
	}
	v.LastSeq = seq
	if l := e.Loss; l != nil && l.ToSeq > 0 {
		v.losses = append(v.losses, span{l.FromSeq, l.ToSeq})
	}
	if m := minuteOf(e.Observed); v.minute[m] == 0 {
		v.minute[m] = seq
	}
}

// account finds the loss event of each gap, which must be one.
func (v *verifier) account() {
	for _, gap := range v.gaps {
		covered := 0
		for _, l := range v.losses {
			if l.from <= gap.from && gap.to <= l.to {
				covered++
			}
		}
		if covered != 1 {
			v.add(fmt.Sprintf("events %d to %d", gap.from, gap.to), "are missing and %d loss events account for them, not one", covered)
		}
	}
}

// index checks that the time index leads to every event: for each minute, to the
// first or one before it.
func (v *verifier) index(ctx context.Context) error {
	err := v.each(ctx, prefixMinute, func(key, value []byte) {
		m, ok := parseNumber(key)
		first, seen := v.minute[m]
		if !ok || len(value) != 8 {
			v.add(fmt.Sprintf("key %q", key), "is no minute's")
			return
		}
		if seq := parseMetaNumber(value); seen && seq > first {
			v.add(fmt.Sprintf("minute %d", m), "leads to event %d, but event %d was observed in it", seq, first)
		}
		delete(v.minute, m)
	})
	for m, seq := range v.minute {
		v.add(fmt.Sprintf("minute %d", m), "is not in the time index, though event %d was observed in it", seq)
	}
	return err
}

func (v *verifier) processes(ctx context.Context) error {
	var p event.Process
	return v.each(ctx, prefixProcess, func(key, value []byte) {
		v.Processes++
		id, ok := parseProcessKey(key)
		where := fmt.Sprintf("process %s", id)
		if err := event.DecodeProcess(value, &p); err != nil || !ok {
			v.add(where, "can not be decoded: %v", err)
		} else if p.ID != id {
			v.add(where, "says that it is %s", p.ID)
		}
	})
}

func (v *verifier) journal(ctx context.Context) error {
	return v.each(ctx, prefixJournal, func(key, value []byte) {
		v.Transitions++
		if err := json.Unmarshal(value, new(Transition)); err != nil {
			n, _ := parseNumber(key)
			v.add(fmt.Sprintf("transition %d", n), "can not be decoded: %v", err)
		}
	})
}
