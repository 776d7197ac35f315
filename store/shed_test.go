package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// tightConfig is a store with the smallest budget.
func tightConfig(t testing.TB, fs vfs.FS) Config {
	c := testConfig(t, fs)
	c.MaxBacklog = minMaxBacklog
	return c
}

// sized returns a batch with an event of each kind, of about size bytes each.
func sized(size int, kinds ...event.Kind) *event.Batch {
	b := &event.Batch{}
	for _, k := range kinds {
		e := &event.Event{Kind: k, Time: testTime, Observed: testTime, HostID: "host", BootID: "boot"}
		if k.OfProcess() {
			e.Process = *testProcess(1)
			e.Process.Args = []string{strings.Repeat("x", size)}
		} else {
			e.Loss = &event.Loss{Cause: event.LossRing, Hint: strings.Repeat("x", size)}
		}
		b.Events = append(b.Events, e)
	}
	return b
}

func repeat(n int, kinds ...event.Kind) []event.Kind { return slices.Repeat(kinds, n) }

// audited is what a store holds, as it can be read.
type audited struct {
	events  map[uint64]*event.Event
	bytes   map[uint64]uint64 // encoded
	absent  uint64            // at or above the floor
	spared  uint64            // bytes of the backlog that are spared
	backlog tally
}

// reporter is what a test and a rapid one have in common.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// audit reads a whole store and checks what must hold at any time: each sequence that
// is absent is in exactly one range of a loss event, ranges are disjoint, and what
// the store counts is there.
func audit(t reporter, s *Store) audited {
	t.Helper()
	a := audited{events: map[uint64]*event.Event{}, bytes: map[uint64]uint64{}}
	st := s.Stats()
	covers := map[uint64]int{}
	err := s.Read(context.Background(), st.Epoch, 0, 0, func(seq uint64, encoded []byte) error {
		e := new(event.Event)
		if err := event.Decode(encoded, e); err != nil {
			return err
		}
		a.events[seq], a.bytes[seq] = e, uint64(len(encoded))
		if seq > st.Cursor {
			a.backlog.add(len(encoded))
			if isSpared(e.Kind) {
				a.spared += uint64(len(encoded))
			}
		}
		if l := e.Loss; l != nil && l.ToSeq > 0 {
			for n := max(l.FromSeq, st.Floor); n <= l.ToSeq; n++ {
				covers[n]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	for n := st.Floor; n <= st.Head; n++ {
		if a.events[n] == nil {
			a.absent++
			if covers[n] != 1 {
				t.Errorf("event %d is absent, and in %d ranges of loss events", n, covers[n])
			}
		} else if covers[n] > 1 {
			t.Errorf("event %d is in %d ranges of loss events", n, covers[n])
		}
	}
	if st.Kept != uint64(len(a.events)) || (tally{st.BacklogEvents, st.BacklogBytes}) != a.backlog {
		t.Errorf("the store counts %d events, %d bytes of %d to deliver; there are %d, %+v", st.Kept, st.BacklogBytes, st.BacklogEvents, len(a.events), a.backlog)
	}
	return a
}

// TestShedding fills a backlog with starts and stops.
func TestShedding(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	for s.Stats().Sheds == 0 {
		mustAppend(t, s, sized(10_000, event.KindStart, event.KindExec, event.KindStop))
		if st := s.Stats(); st.BacklogBytes > st.BacklogBudget {
			t.Fatalf("backlog %d of %d", st.BacklogBytes, st.BacklogBudget)
		}
	}
	a := audit(t, s)
	st := s.Stats()
	loss := a.events[st.Head-3] // of its own, before the batch that it made room for
	if loss == nil || loss.Loss == nil {
		t.Fatalf("event %d is %+v", st.Head-3, loss)
	}
	if st.BacklogBytes > minMaxBacklog/100*shedTo+20_000 || st.BacklogBytes < minMaxBacklog*8/10 {
		t.Errorf("shed down to %d", st.BacklogBytes)
	}
	want := &event.Loss{Cause: event.LossShed, From: testTime, To: testTime, FromSeq: 1, ToSeq: loss.Loss.ToSeq, Count: st.Shed, Known: true, Hint: loss.Loss.Hint}
	if d := cmp.Diff(want, loss.Loss); d != "" || loss.HostID != "host" || loss.BootID != "boot" {
		t.Errorf("%+v (-want +got):\n%s", loss, d)
	}
	if counts := fmt.Sprintf("(--max-backlog): %d start, %d exec.", (st.Shed+1)/2, st.Shed/2); !strings.Contains(loss.Loss.Hint, counts) {
		t.Errorf("hint %q does not say %q", loss.Loss.Hint, counts)
	}
	for seq := uint64(1); seq <= loss.Loss.ToSeq; seq++ {
		if isStop := seq%3 == 0; (a.events[seq] != nil) != isStop {
			t.Errorf("event %d: %v", seq, a.events[seq])
		}
	}
	if a.absent != st.Shed || !slices.Equal(st.Losses, []LossTotal{{Cause: event.LossShed, Events: 1, Count: st.Shed}}) {
		t.Errorf("%d absent, stats %+v", a.absent, st)
	}
}

// TestSheddingAgain: a second shedding accounts for what the first did not.
func TestSheddingAgain(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, tightConfig(t, mem))
	for s.Stats().Sheds < 4 {
		mustAppend(t, s, sized(10_000, event.KindStart, event.KindStart, event.KindStart, event.KindStop))
		audit(t, s)
	}
	before := s.Stats()
	mustClose(t, s, true)
	s = mustOpen(t, tightConfig(t, mem))
	defer mustClose(t, s, true)
	after := s.Stats()
	if before.Kept != after.Kept || before.BacklogBytes != after.BacklogBytes || before.BacklogEvents != after.BacklogEvents {
		t.Errorf("reopening changed %+v to %+v", before, after)
	}
	a := audit(t, s)
	var last uint64
	for _, seq := range slices.Sorted(maps.Keys(a.events)) {
		if l := a.events[seq].Loss; l != nil {
			if l.FromSeq <= last {
				t.Errorf("range %d to %d follows one up to %d", l.FromSeq, l.ToSeq, last)
			}
			last = l.ToSeq
		}
	}
}

// TestStopsAreShedAtLast: stops alone may take the backlog over its budget, up to a mark.
func TestStopsAreShedAtLast(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	highest, stops := uint64(0), uint64(0)
	for stops < 400 {
		mustAppend(t, s, sized(10_000, event.KindStop, event.KindStop))
		stops += 2
		st := s.Stats()
		highest = max(highest, st.BacklogBytes)
		if st.Sheds > 0 && st.BacklogBytes < minMaxBacklog*8/10 {
			t.Fatalf("shed down to %d", st.BacklogBytes)
		}
		audit(t, s)
	}
	st := s.Stats()
	if highest < minMaxBacklog*115/100 || highest > minMaxBacklog*shedAll/100 {
		t.Errorf("the backlog reached %d", highest)
	}
	if st.Sheds < 5 || st.Sheds > 12 {
		t.Errorf("shed %d times", st.Sheds)
	}
	a := audit(t, s)
	if a.absent != st.Shed {
		t.Errorf("%d absent, %d shed", a.absent, st.Shed)
	}
	// Loss events were shed with the stops, and merged: what is left tells of all.
	var told uint64
	for _, e := range a.events {
		if e.Loss != nil {
			told += e.Loss.Count
		}
	}
	if told != st.Shed {
		t.Errorf("loss events tell of %d events, %d were shed", told, st.Shed)
	}
}

// TestShedStopsInsideOfARange sheds, above the higher mark, stops in a range that a
// loss event told before, and that one only later.
func TestShedStopsInsideOfARange(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	for range 40 {
		mustAppend(t, s, sized(10_000, event.KindStart, event.KindStop, event.KindStop))
	}
	for range 200 {
		mustAppend(t, s, sized(10_000, event.KindStop))
		if a, st := audit(t, s), s.Stats(); a.absent != st.Shed {
			t.Fatalf("%d absent, %d shed", a.absent, st.Shed)
		}
		if t.Failed() {
			return
		}
	}
}

// TestShedIsPatient: with nothing but stops to shed, not every append tries.
func TestShedIsPatient(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	mustAppend(t, s, sized(10_000, repeat(104, event.KindStop)...))
	for range 12 {
		mustAppend(t, s, sized(1000, event.KindStart))
	}
	if st := s.Stats(); st.Sheds > 2 || st.BacklogBytes < minMaxBacklog {
		t.Errorf("stats %+v", st)
	}
	audit(t, s)
}

func TestAppendBiggerThanTheBudget(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	for range 3 {
		mustAppend(t, s, sized(60_000, repeat(30, event.KindStart)...))
		if a := audit(t, s); a.backlog.events < 30 {
			t.Errorf("%d events of the batch are left", a.backlog.events)
		}
	}
	if st := s.Stats(); st.Sheds != 2 || st.Shed != 61 { // with a loss event
		t.Errorf("stats %+v", st)
	}
}

// TestSheddingOfAJump: a receiver that was restored makes the backlog jump. No append
// waits for all of it, and each makes room for more than itself.
func TestSheddingOfAJump(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	for range 40 {
		mustAppend(t, s, sized(10_000, repeat(5, event.KindStart, event.KindStop)...))
		mustAck(t, s, s.Head())
	}
	mustResume(t, s, event.Receipt{Stream: "a", Epoch: s.Stats().Epoch, Seq: 1}, 1)
	before, appends := s.Stats(), 0
	for ; s.Stats().BacklogBytes > minMaxBacklog; appends++ {
		st := s.Stats()
		mustAppend(t, s, sized(10_000, event.KindStart, event.KindStop))
		if s.Stats().BacklogBytes >= st.BacklogBytes || appends > 100 {
			t.Fatalf("%d bytes, after one more append %d", st.BacklogBytes, s.Stats().BacklogBytes)
		}
		audit(t, s)
	}
	if before.BacklogBytes < 3*minMaxBacklog || appends < 5 {
		t.Errorf("from %d bytes in %d appends", before.BacklogBytes, appends)
	}
}

// TestSheddingRewritesLittle: where almost everything is spared, a shedding ends early.
func TestSheddingRewritesLittle(t *testing.T) {
	c := testConfig(t, vfs.NewMem())
	c.MaxBacklog = 12 * minMaxBacklog
	s := mustOpen(t, c)
	defer mustClose(t, s, true)
	kinds := append(repeat(14, event.KindStop), event.KindStart)
	for s.Stats().Sheds == 0 {
		mustAppend(t, s, sized(50_000, kinds...))
	}
	if a, st := audit(t, s), s.Stats(); a.absent == 0 || st.Shed > maxRewrite/50_000/14+2 {
		t.Errorf("%d absent, stats %+v", a.absent, st)
	}
}

func TestNothingIsShedThatIsNotOwed(t *testing.T) {
	c := tightConfig(t, vfs.NewMem())
	c.Owed = false
	s := mustOpen(t, c)
	defer mustClose(t, s, true)
	for range 30 {
		mustAppend(t, s, sized(50_000, event.KindStart))
	}
	if st := s.Stats(); st.Sheds != 0 || st.Kept != 30 || st.BacklogBudget != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestDeliveryOverAGap: readers, acknowledgements and retention pass what was shed.
func TestDeliveryOverAGap(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	for s.Stats().Sheds < 2 {
		mustAppend(t, s, sized(20_000, event.KindStart, event.KindStart, event.KindStop))
	}
	epoch := s.Stats().Epoch
	for next := uint64(1); next <= s.Head(); {
		var last uint64
		err := s.Read(t.Context(), epoch, next, 5, func(seq uint64, _ []byte) error {
			last = seq
			return nil
		})
		if err := errors.Join(err, s.Ack(t.Context(), epoch, last)); err != nil {
			t.Fatal(err)
		}
		audit(t, s)
		next = last + 1
	}
	if st := s.Stats(); st.BacklogEvents != 0 || st.BacklogBytes != 0 {
		t.Errorf("stats %+v", st)
	}
	removed := uint64(0)
	for floor := uint64(2); floor <= s.Head()+1; floor++ {
		kept := s.Stats().Kept
		if err := s.removeBelow(s.session, floor, nil); err != nil {
			t.Fatal(err)
		}
		audit(t, s)
		removed += kept - s.Stats().Kept
	}
	if st := s.Stats(); st.Removed != removed || st.Kept != 0 || len(s.session.ranges) != 0 {
		t.Errorf("%d removed, stats %+v", removed, st)
	}
}

// TestQueryPassesWhatWasShed: a query, from either end, gives what is there.
func TestQueryPassesWhatWasShed(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	for s.Stats().Sheds == 0 {
		mustAppend(t, s, sized(20_000, event.KindStart, event.KindStop))
	}
	kept := s.Stats().Kept
	for _, q := range []Query{{}, {Limit: 1000, Newest: true}, {Since: testTime}, {After: 1, AfterEpoch: s.Stats().Epoch}} {
		if got, err := seqs(t, s.Query, q); err != nil || uint64(len(got)) != kept {
			t.Errorf("%+v: %d events of %d, %v", q, len(got), kept, err)
		}
	}
}

// TestReadersSeeNoSheddingThatMayNotLast reads while a shedding is on its way to the
// disk. If it showed, the events would be skipped, and back after a power cut.
func TestReadersSeeNoSheddingThatMayNotLast(t *testing.T) {
	var armed atomic.Bool
	reached, goOn := make(chan struct{}), make(chan struct{})
	fs := injectFaults(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && isLog(op.Path) && isSync(op.Kind) {
			reached <- struct{}{}
			<-goOn
		}
		return nil
	}))
	s := mustOpen(t, tightConfig(t, fs))
	defer mustClose(t, s, true)
	batch := sized(10_000, repeat(10, event.KindStart)...)
	for s.Stats().BacklogBytes+110_000 < minMaxBacklog {
		mustAppend(t, s, batch)
	}
	before := audit(t, s)
	armed.Store(true)
	done := make(chan error)
	go func() { done <- s.Append(t.Context(), sized(10_000, repeat(10, event.KindStart)...)) }()
	<-reached
	if after := audit(t, s); len(after.events) != len(before.events) {
		t.Errorf("%d events can be read of %d", len(after.events), len(before.events))
	}
	armed.Store(false)
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if a := audit(t, s); a.absent == 0 {
		t.Error("nothing was shed")
	}
}

// TestVerifyKnowsShedding checks a store that has shed, and what of it may be wrong.
func TestVerifyKnowsShedding(t *testing.T) {
	c := tightConfig(t, nil)
	c.Dir = filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, c)
	for s.Stats().Sheds < 2 {
		mustAppend(t, s, sized(20_000, event.KindStart, event.KindStart, event.KindStop))
	}
	st := s.Stats()
	r := s.session.ranges[1]
	mustClose(t, s, true)
	v := mustVerify(t, c.Dir)
	if !v.OK() || v.Events != st.Kept || v.Stats.Kept != st.Kept || v.Stats.BacklogBytes != st.BacklogBytes || v.Stats.BacklogEvents != st.BacklogEvents {
		t.Errorf("%+v", v)
	}
	in, err := Inspect(t.Context(), c.Dir)
	if err != nil || in.Damage != "" || in.Stats.Kept != st.Kept || in.Stats.BacklogEvents != st.BacklogEvents {
		t.Errorf("%+v, %v", in, err)
	}
	for where, wrong := range map[string]func(*pebble.DB) error{
		fmt.Sprintf("range %d to %d", r.from, r.to): func(db *pebble.DB) error {
			return db.Set(rangeKey(r.from), twoNumbers(r.to, r.absent+1), pebble.Sync)
		},
		"ranges of losses": func(db *pebble.DB) error { return db.Delete(rangeKey(r.from), pebble.Sync) },
		fmt.Sprintf("events %d to %d", st.Head, st.Head): func(db *pebble.DB) error {
			return errors.Join(db.Delete(eventKey(st.Head), pebble.Sync), db.Set(eventKey(st.Head+1), nil, pebble.Sync))
		},
		"cursor": func(db *pebble.DB) error { return db.Set([]byte(metaCursor), twoNumbers(0, 17), pebble.Sync) },
	} {
		damaged := copyStore(t, c.Dir)
		change(t, damaged, wrong)
		if v := mustVerify(t, damaged); !slices.ContainsFunc(v.Problems, func(p Problem) bool { return p.Where == where }) {
			t.Errorf("%s: %v", where, v.Problems)
		}
	}
}
