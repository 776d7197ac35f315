package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/collect/event"
)

// TestQueryIsAFilter compares queries with a loop over all events, in a store whose
// clock goes back and forth and that loses old events meanwhile.
func TestQueryIsAFilter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := testConfig(t, vfs.NewMem())
		c.Owed = false
		s := mustOpen(t, c)
		defer mustClose(t, s, false)
		model := randomStore(t, rt, s)
		for range 20 {
			q := randomQuery(rt, s.Stats())
			got, err := seqs(t, s.Query, q)
			if err != nil {
				rt.Fatal(err)
			}
			if d := cmp.Diff(filtered(model, q, s.Stats().Floor), got); d != "" {
				rt.Fatalf("%+v, floor %d (-want +got):\n%s", q, s.Stats().Floor, d)
			}
		}
	})
}

func randomStore(t *testing.T, rt *rapid.T, s *Store) (model []*event.Event) {
	minute := 50
	for n := range uint64(rapid.IntRange(0, 40).Draw(rt, "batches")) {
		minute += rapid.IntRange(-3, 4).Draw(rt, "clock")
		b := testBatch(testTime.Add(time.Duration(minute)*time.Minute+time.Duration(n)*time.Second), 2*n, 2*n+1)
		for _, e := range b.Events {
			e.Kind = rapid.SampledFrom([]event.Kind{event.KindStart, event.KindStop, event.KindSensor}).Draw(rt, "kind")
			e.Process.PID = rapid.Int32Range(0, 4).Draw(rt, "pid")
			if e.Kind == event.KindSensor { // about no process, so that its PID is 0
				e.Process = event.Process{}
				continue
			}
			e.Process.Exe = rapid.SampledFrom([]string{"", "/bin/a", "/bin/b", "/usr/bin/a"}).Draw(rt, "exe")
		}
		mustAppend(t, s, b)
		model = append(model, b.Events...)
	}
	if len(model) > 0 && rapid.Bool().Draw(rt, "retention") {
		minutes, err := readMinutes(s.session.db)
		if err == nil {
			err = s.removeBelow(s.session, rapid.Uint64Range(1, s.Head()+1).Draw(rt, "floor"), minutes)
		}
		if err != nil {
			rt.Fatal(err)
		}
	}
	return model
}

func randomQuery(rt *rapid.T, st Stats) (q Query) {
	maybe := func(set func()) {
		if rapid.IntRange(0, 2).Draw(rt, "use") == 0 {
			set()
		}
	}
	at := func() time.Time {
		return testTime.Add(time.Duration(rapid.IntRange(20*60, 120*60).Draw(rt, "second")) * time.Second)
	}
	maybe(func() { q.Since = at() })
	maybe(func() { q.Until = at() })
	maybe(func() { q.After, q.AfterEpoch = rapid.Uint64Range(0, st.Head+2).Draw(rt, "after"), st.Epoch })
	maybe(func() { q.PIDs = rapid.SliceOfN(rapid.Int32Range(0, 5), 1, 2).Draw(rt, "pids") })
	maybe(func() { q.Kinds = []event.Kind{event.KindStop} })
	maybe(func() { q.Exe = rapid.SampledFrom([]string{"a", "/bin/*", "/*/*/a", "*"}).Draw(rt, "pattern") })
	maybe(func() { q.Limit = rapid.IntRange(1, 10).Draw(rt, "limit") })
	q.Newest = rapid.Bool().Draw(rt, "newest")
	return q
}

// filtered is what a query means.
func filtered(model []*event.Event, q Query, floor uint64) (got []uint64) {
	for _, e := range model {
		exe := e.Process.Exe
		if q.Exe != "" && filepath.Base(q.Exe) == q.Exe && exe != "" {
			exe = path.Base(exe)
		}
		matched, _ := path.Match(q.Exe, exe)
		if e.Seq >= floor && e.Seq > q.After &&
			(q.Since.IsZero() || !e.Observed.Before(q.Since)) && (q.Until.IsZero() || !e.Observed.After(q.Until)) &&
			(q.PIDs == nil && q.Exe == "" || e.Kind != event.KindSensor) && (q.PIDs == nil || slices.Contains(q.PIDs, e.Process.PID)) && (q.Kinds == nil || slices.Contains(q.Kinds, e.Kind)) &&
			(q.Exe == "" || matched) {
			got = append(got, e.Seq)
		}
	}
	if q.Limit > 0 && len(got) > q.Limit {
		if q.Newest {
			return got[len(got)-q.Limit:]
		}
		return got[:q.Limit]
	}
	return got
}

// TestNewestOfMany asks for more events than a query from the end remembers.
func TestNewestOfMany(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	const all, wanted = maxRemembered + 20, maxRemembered + 10
	var ns []uint64
	for n := range uint64(all) {
		ns = append(ns, n)
	}
	mustAppend(t, s, testBatch(testTime, ns...))
	got, err := seqs(t, s.Query, Query{Limit: wanted, Newest: true, Kinds: []event.Kind{event.KindStart}})
	if err != nil || len(got) != wanted || got[0] != all-wanted+1 || got[wanted-1] != all {
		t.Errorf("%d events from %v, %v; want %d up to %d", len(got), got[:min(len(got), 1)], err, wanted, all)
	}
}

// TestQueryIsASnapshot removes and adds events while a query gives them.
func TestQueryIsASnapshot(t *testing.T) {
	for _, q := range []Query{{}, {Limit: 100, Newest: true}} {
		c := testConfig(t, vfs.NewMem())
		c.Owed = false
		s := mustOpen(t, c)
		fiveMinutes(t, s)
		var got []uint64
		err := s.Query(t.Context(), q, func(e *event.Event) error {
			if got = append(got, e.Seq); len(got) == 1 {
				mustAppend(t, s, testBatch(testTime, 99))
				minutes, err := readMinutes(s.session.db)
				return errors.Join(err, s.removeBelow(s.session, 5, minutes), s.session.db.Flush())
			}
			return nil
		})
		if d := cmp.Diff([]uint64{1, 2, 3, 4, 5}, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
		if got, err := seqs(t, s.Query, q); err != nil || fmt.Sprint(got) != "[5 6]" {
			t.Errorf("afterwards: %v, %v", got, err)
		}
		mustClose(t, s, true)
	}
}

// TestQuerySeesOnlyWhatIsDurable asks while a write is on its way to the disk.
func TestQuerySeesOnlyWhatIsDurable(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	fiveMinutes(t, s)
	w := s.session.newWrite()
	if err := w.add(testBatch(testTime, 6)); err != nil {
		t.Fatal(err)
	}
	if err := s.session.apply(w.batch); err != nil { // and nobody was told
		t.Fatal(err)
	}
	for _, q := range []Query{{After: 3}, {Limit: 2, Newest: true}} {
		if got, err := seqs(t, s.Query, q); err != nil || fmt.Sprint(got) != "[4 5]" {
			t.Errorf("%v, %v", got, err)
		}
	}
	s.show(s.session, w)
	if got, err := seqs(t, s.Query, Query{After: 5}); err != nil || fmt.Sprint(got) != "[6]" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestQueryReturnsTheErrorAsItIs: callers compare it, and it may be the end that they
// asked for.
func TestQueryReturnsTheErrorAsItIs(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	fiveMinutes(t, s)
	enough := errors.New("enough")
	for _, q := range []Query{{}, {Limit: 3, Newest: true}} {
		n := 0
		if err := s.Query(t.Context(), q, func(*event.Event) error { n++; return enough }); err != enough || n != 1 { //nolint:errorlint // as it is
			t.Errorf("%v after %d events", err, n)
		}
	}
}

// TestClosingEndsQueries closes a store that is being read.
func TestClosingEndsQueries(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	fiveMinutes(t, s)
	started, queried := make(chan struct{}), make(chan error)
	var given atomic.Int32
	go func() {
		queried <- s.Query(context.Background(), Query{}, func(*event.Event) error {
			if given.Add(1) == 1 {
				close(started)
				_, _ = s.Wait(context.Background(), event.Epoch{}, 1<<62) // a slow reader: until the store is closed
			}
			return nil
		})
	}()
	<-started
	mustClose(t, s, true)
	if err := <-queried; !errors.Is(err, ErrUnavailable) || given.Load() != 1 {
		t.Errorf("%v after %d events", err, given.Load())
	}
}
