package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

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
	// Readable says that the database could be opened for reading; if not, nothing
	// but Stats.Path and Problems is known.
	Readable bool
	Stats    Stats
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
	Where string // "event 17", "process …", "table 000006.sst", "database"
	What  string
}

func (p Problem) String() string { return p.Where + ": " + p.What }

// Verify reads everything in the store in dir, which no daemon may have open, and
// changes nothing in it. It checks the checksum of every block of tables and logs;
// that every event, process and transition can be decoded and says itself that it is
// what its key says; that sequences are dense, and each one that is absent is in
// exactly one range of a loss event; the time index, the cursor and the counters.
//
// It reads on behind what is damaged, so that the result says what is left.
// progress, if not nil, is told how many events of how many were read. A damaged
// store is no error but a result; errors are those of [Inspect], and ctx's.
//
// Two things can't be found, because they look like the end that a crash leaves:
// damage in the last write to the log, and a log that was cut off behind what was
// known when the store was last opened.
func Verify(ctx context.Context, dir string, progress func(done, total uint64)) (*Verification, error) {
	v := &Verification{Stats: Stats{Path: dir}}
	c, err := OpenCopy(ctx, dir)
	if empty := new(emptyError); errors.As(err, &empty) || isRefusal(err) && !isCorruption(err) {
		return nil, err
	}
	if err != nil {
		v.add("database", "can not be read: %s", reasonOf(err))
		return v, nil
	}
	v.Direct, v.Readable, v.Stats = c.Direct, true, c.Stats()
	check := verifier{Verification: v, reading: c.reading, view: c.reading.view(), progress: progress, minutes: map[uint64]uint64{}}
	return v, errors.Join(check.run(ctx), c.Close())
}

func (v *Verification) add(where, what string, args ...any) {
	if len(v.Problems) == maxProblems {
		v.More++
		return
	}
	v.Problems = append(v.Problems, Problem{Where: where, What: fmt.Sprintf(what, args...)})
}

// verifier is one verification under way.
type verifier struct {
	*Verification
	*reading
	view     *view
	progress func(done, total uint64)

	gaps    []span            // sequences that are not there, ascending
	lost    []span            // sequences that loss events account for
	losses  []LossTotal       // of the loss events that are there
	owed    tally             // events above the cursor
	partial bool              // some events could not be read
	minutes map[uint64]uint64 // the first event of each minute
}

// run takes the steps. Each stands alone: what one finds does not hide what the
// next would find.
func (v *verifier) run(ctx context.Context) error {
	if v.damage != nil {
		v.add("database", "%s", reasonOf(v.damage))
	}
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"tables", v.tables},
		{"events", v.events},
		{"time index", v.index},
		{"process table", v.processes},
		{"journal", v.journal},
		{"records about the store", v.meta},
		{"order of keys", func(context.Context) error { return v.db.CheckLevels(nil) }},
	} {
		err := step.run(ctx)
		if isRefusal(err) && !isCorruption(err) {
			return fmt.Errorf("verify %s: %w", step.what, err)
		}
		if err != nil {
			v.add(step.what, "can not be read: %s", v.reason(err))
		}
	}
	v.account()
	if !v.partial {
		v.ledger()
	}
	return nil
}

// reason is an error in one line that speaks of the store, not of its copy.
func (v *verifier) reason(err error) string {
	return strings.ReplaceAll(reasonOf(err), v.dir, v.path)
}

// tables checks the checksums of all blocks of the tables in use, also of those
// that no key leads to.
func (v *verifier) tables(ctx context.Context) error {
	levels, err := v.db.SSTables()
	if err != nil {
		return err
	}
	for _, t := range slices.Concat(levels...) {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := fmt.Sprintf("%s.sst", t.BackingSSTNum)
		if err := checkTable(ctx, v.dir+"/"+name); err != nil {
			v.add("table "+name, "%s", v.reason(err))
		}
	}
	return nil
}

func checkTable(ctx context.Context, path string) error {
	f, err := vfs.Default.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
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
	return errors.Join(ctx.Err(), it.Close())
}

// index checks that a query by time finds every event: the lowest sequence that the
// index gives for its minute and all later ones, which is where the query starts, is
// not above it. An entry itself may be missing or higher after a step of the clock.
func (v *verifier) index(ctx context.Context) error {
	var entries []minute
	err := v.each(ctx, prefixMinute, func(key, value []byte) {
		m, ok := parseNumber(key)
		if !ok || len(value) != 8 {
			v.add(fmt.Sprintf("key %q", key), "is no minute of the time index")
			return
		}
		entries = append(entries, minute{m, parseMetaNumber(value)})
	})
	seen := make([]minute, 0, len(v.minutes))
	for m, seq := range v.minutes {
		seen = append(seen, minute{m, seq})
	}
	slices.SortFunc(seen, func(a, b minute) int { return cmp.Compare(b.minute, a.minute) })
	start := v.view.head + 1
	for _, s := range seen { // from the latest to the earliest
		for len(entries) > 0 && entries[len(entries)-1].minute >= s.minute {
			start = min(start, entries[len(entries)-1].seq)
			entries = entries[:len(entries)-1]
		}
		if max(start, v.view.floor) > s.seq {
			v.add(fmt.Sprintf("minute %d of the time index", s.minute), "queries since then start at event %d, but event %d was observed in it", start, s.seq)
		}
	}
	return err
}

func (v *verifier) processes(ctx context.Context) error {
	var p event.Process
	return v.each(ctx, prefixProcess, func(key, value []byte) {
		v.Processes++
		id, ok := parseProcessKey(key)
		if !ok || id.IsZero() {
			v.add(fmt.Sprintf("key %q", key), "is no process's")
			return
		}
		where := fmt.Sprintf("process %s", id)
		if err := event.DecodeProcess(value, &p); err != nil {
			v.add(where, "can not be decoded: %v", err)
		} else if p.ID != id {
			v.add(where, "says that it is %s", p.ID)
		}
	})
}

func (v *verifier) journal(ctx context.Context) error {
	return v.each(ctx, prefixJournal, func(key, value []byte) {
		v.Transitions++
		n, ok := parseNumber(key)
		if err := json.Unmarshal(value, new(Transition)); err != nil || !ok {
			v.add(fmt.Sprintf("transition %d", n), "can not be decoded: %v", err)
		}
	})
}

// meta checks the records about the store, and what they count.
func (v *verifier) meta(ctx context.Context) error {
	sizes := map[string]int{metaAsOf: 8, metaBytes: 8, metaClean: 8, metaCursor: cursorSize, metaEpoch: 16, metaFloor: 8, metaMark: 8, metaOwed: 1}
	err := v.each(ctx, prefixMeta, func(key, value []byte) {
		want, known := sizes[string(key)]
		if strings.HasPrefix(string(key), metaLoss) || strings.HasPrefix(string(key), metaRange) {
			want, known = 16, true
		}
		if string(key) == metaCursor && len(value) == oldCursorSize {
			return
		}
		if known && len(value) != want {
			v.add(string(key), "has %d bytes, want %d", len(value), want)
		}
	})
	if v.n.cursor > v.n.head {
		v.add("cursor", "is %d, above the last event %d", v.n.cursor, v.n.head)
	}
	if v.n.settled.bytes > v.n.total || v.n.settled.events > v.n.head {
		v.add("cursor", "counts %d bytes of %d events as settled, of %d and %d in all", v.n.settled.bytes, v.n.settled.events, v.n.total, v.n.head)
	}
	for _, seen := range v.losses {
		i := slices.IndexFunc(v.n.losses, func(t LossTotal) bool { return t.Cause == seen.Cause })
		if i < 0 || v.n.losses[i].Events < seen.Events {
			v.add("loss totals", "count fewer losses by %s than there are events: %d", seen.Cause, seen.Events)
		}
	}
	return err
}
