package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

func mustResume(t testing.TB, s *Store, r event.Receipt, want uint64) {
	t.Helper()
	epoch, cursor, err := s.Resume(t.Context(), r)
	if err != nil {
		t.Fatalf("resume %+v: %v", r, err)
	}
	if st := s.Stats(); epoch != st.Epoch || cursor != want || st.Cursor != want {
		t.Fatalf("resume %+v: %s.%d, stats say %s.%d, want %d", r, epoch, cursor, st.Epoch, st.Cursor, want)
	}
	audit(t, s)
}

func mustAck(t testing.TB, s *Store, seq uint64) {
	t.Helper()
	if err := s.Ack(t.Context(), s.Stats().Epoch, seq); err != nil {
		t.Fatalf("acknowledge %d: %v", seq, err)
	}
}

// tenEvents are events 1..10 of 10,000 bytes.
func tenEvents(t testing.TB, s *Store) {
	mustAppend(t, s, sized(10_000, repeat(10, event.KindStart)...))
}

func TestResumeInTheSameEpoch(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, tightConfig(t, mem))
	tenEvents(t, s)
	epoch := s.Stats().Epoch
	for _, seq := range []uint64{5, 5, 7, 2, 10, 1} {
		mustResume(t, s, event.Receipt{Stream: "a", Epoch: epoch, Seq: seq}, seq)
		if st := s.Stats(); st.BacklogEvents != 10-seq {
			t.Errorf("at %d the backlog is %d", seq, st.BacklogEvents)
		}
	}
	before := s.Stats()
	mustClose(t, s, false)
	s = mustOpen(t, tightConfig(t, mem))
	defer mustClose(t, s, true)
	if st := s.Stats(); st.Cursor != 1 || st.BacklogBytes != before.BacklogBytes || s.session.stream.name != "a" {
		t.Errorf("stats %+v, stream %+v", st, s.session.stream)
	}
	syncs := s.Stats().Syncs
	mustResume(t, s, event.Receipt{Stream: "a", Epoch: epoch, Seq: 1}, 1)
	if n := s.Stats().Syncs - syncs; n != 0 {
		t.Errorf("%d fsyncs of what changes nothing", n)
	}
}

// TestResumeBehindTheFloor: what retention has removed is told as lost, once.
func TestResumeBehindTheFloor(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	tenEvents(t, s)
	mustAck(t, s, 8)
	if err := s.removeBelow(s.session, 7, nil); err != nil {
		t.Fatal(err)
	}
	r := event.Receipt{Stream: "a", Epoch: s.Stats().Epoch, Seq: 3}
	mustResume(t, s, r, 3)
	mustResume(t, s, r, 3)
	a := audit(t, s)
	if s.Head() != 11 || a.backlog.events != 5 {
		t.Fatalf("head %d, backlog %+v", s.Head(), a.backlog)
	}
	e := a.events[11]
	if l := e.Loss; l.Cause != event.LossRewind || l.FromSeq != 4 || l.ToSeq != 6 || l.Count != 3 || !l.Known || l.Hint == "" || e.HostID != "host" {
		t.Errorf("%+v: %+v", e, l)
	}
	// Behind where it was: more is told. In front: nothing.
	mustResume(t, s, event.Receipt{Stream: "a", Epoch: r.Epoch, Seq: 5}, 5)
	mustResume(t, s, event.Receipt{Stream: "a", Epoch: r.Epoch, Seq: 9}, 9)
	if s.Head() != 11 {
		t.Errorf("head %d", s.Head())
	}
	mustAck(t, s, 11)
	if err := s.removeBelow(s.session, 12, nil); err != nil {
		t.Fatal(err)
	}
	mustResume(t, s, event.Receipt{Stream: "a", Epoch: r.Epoch, Seq: 11}, 11)
	mustResume(t, s, event.Receipt{Stream: "b", Epoch: r.Epoch, Seq: 1}, 1) // all that is left is what says so
	if st := s.Stats(); st.Head != 12 || st.BacklogEvents != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestResumeOfAnotherEpoch: a receiver that has events of another epoch only gets all
// that is there.
func TestResumeOfAnotherEpoch(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	tenEvents(t, s)
	r := event.Receipt{Stream: "a", Epoch: event.NewEpoch(), Seq: 1000}
	mustResume(t, s, r, 0)
	mustAck(t, s, 6)
	if err := s.removeBelow(s.session, 5, nil); err != nil {
		t.Fatal(err)
	}
	mustResume(t, s, r, 0)
	mustResume(t, s, r, 0)
	if st := s.Stats(); st.BacklogEvents != 7 || st.Head != 11 {
		t.Errorf("stats %+v", st)
	}
}

// TestResumeOfAnEmptyReceiver: one that has nothing gets what is owed, and a new one as
// much more as fits half of the budget.
func TestResumeOfAnEmptyReceiver(t *testing.T) {
	for name, test := range map[string]struct {
		now         bool // deliver from now
		ack         uint64
		first, last string // streams
		want        uint64
	}{
		"never delivered":           {first: "a", want: 0},
		"the same again":            {first: "a", last: "a", want: 0},
		"the same, restored":        {first: "a", ack: 70, last: "a", want: 0},
		"a new one":                 {first: "a", ack: 70, last: "b", want: 49},
		"a new one, little is owed": {first: "a", ack: 100, last: "b", want: 49},
		"a new one, much is owed":   {first: "a", ack: 20, last: "b", want: 20},
		"a new one, from now":       {now: true, first: "a", ack: 70, last: "b", want: 70},
	} {
		t.Run(name, func(t *testing.T) {
			c := tightConfig(t, vfs.NewMem())
			c.DeliverFromNow = test.now
			s := mustOpen(t, c)
			defer mustClose(t, s, true)
			for range 10 {
				tenEvents(t, s)
			}
			mustResume(t, s, event.Receipt{Stream: test.first}, 0)
			if test.ack > 0 {
				mustAck(t, s, test.ack)
			}
			if test.last != "" {
				mustResume(t, s, event.Receipt{Stream: test.last}, test.want)
				mustResume(t, s, event.Receipt{Stream: test.last}, test.want)
			}
		})
	}
}

// TestFirstRunThatOwes opens stores that a run without delivery has left.
func TestFirstRunThatOwes(t *testing.T) {
	for name, test := range map[string]struct {
		events  int
		removed uint64
		now     bool
		want    uint64
	}{
		"little":             {events: 40, want: 0},
		"much":               {events: 100, want: 49},
		"much was removed":   {events: 100, removed: 90, want: 90},
		"little was removed": {events: 100, removed: 10, want: 49},
		"from now":           {events: 40, now: true, want: 40},
		"nothing":            {},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			c := tightConfig(t, mem)
			c.Owed, c.DeliverFromNow = false, test.now
			s := mustOpen(t, c)
			for range test.events {
				mustAppend(t, s, sized(10_000, event.KindStart))
			}
			if _, _, err := s.Resume(t.Context(), event.Receipt{Stream: "a"}); !errors.Is(err, errNotOwed) {
				t.Errorf("resume: %v", err)
			}
			if test.removed > 0 {
				if err := s.removeBelow(s.session, test.removed+1, nil); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, s, true)
			c.Owed = true
			s = mustOpen(t, c)
			defer func() { mustClose(t, s, true) }()
			if st := s.Stats(); st.Cursor != test.want || st.BacklogEvents != uint64(test.events)-test.want {
				t.Fatalf("stats %+v", st)
			}
			// What this run appends is owed, whatever becomes of it.
			for range 70 {
				mustAppend(t, s, sized(10_000, event.KindStop))
			}
			mustClose(t, s, false)
			s = mustOpen(t, c)
			mustResume(t, s, event.Receipt{Stream: "a"}, test.want)
		})
	}
}

func TestResumeRejectsNonsense(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	tenEvents(t, s)
	for name, r := range map[string]event.Receipt{
		"no stream":       {},
		"long stream":     {Stream: strings.Repeat("x", maxStreamName+1)},
		"event 0":         {Stream: "a", Epoch: s.Stats().Epoch},
		"event of no one": {Stream: "a", Seq: 3},
	} {
		if _, _, err := s.Resume(t.Context(), r); err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrReplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := s.Stats(); st.Cursor != 0 || s.session.stream.name != "" {
		t.Errorf("stats %+v", st)
	}
}

// TestDeliveryOfAnotherEpoch: nothing is waited for, read or acknowledged under a
// wrong epoch.
func TestDeliveryOfAnotherEpoch(t *testing.T) {
	s := mustOpen(t, tightConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	tenEvents(t, s)
	other := event.NewEpoch()
	_, waitErr := s.Wait(t.Context(), other, 1)
	readErr := s.Read(t.Context(), other, 1, 0, func(uint64, []byte) error {
		t.Error("was given an event")
		return nil
	})
	for name, err := range map[string]error{"wait": waitErr, "read": readErr, "ack": s.Ack(t.Context(), other, 3)} {
		if !errors.Is(err, ErrReplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	epoch := s.Stats().Epoch
	if head, err := s.Wait(t.Context(), epoch, 9); err != nil || head != 10 {
		t.Errorf("wait: %d, %v", head, err)
	}
	n := 0
	err := s.Read(t.Context(), epoch, 3, 5, func(uint64, []byte) error { n++; return nil })
	if err != nil || n != 5 || s.Stats().Cursor != 0 {
		t.Errorf("read %d, %v, stats %+v", n, err, s.Stats())
	}
}

// TestReadAllocatesNothingForAnEvent reads batches as the bus does.
func TestReadAllocatesNothingForAnEvent(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	mustAppend(t, s, sized(100, repeat(1000, event.KindStart)...))
	epoch := s.Stats().Epoch
	read := func(limit int) float64 {
		return testing.AllocsPerRun(20, func() {
			err := s.Read(t.Context(), epoch, 1, limit, func(uint64, []byte) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	// Pebble's own goroutines allocate too, now and then.
	if few, many := read(1), read(1000); many > few+900 {
		t.Errorf("%v allocations for 1 event, %v for 1000", few, many)
	}
}

// TestResumeAfterAQuarantine: two runs, and damage between them.
func TestResumeAfterAQuarantine(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, tightConfig(t, mem))
	tenEvents(t, s)
	r := event.Receipt{Stream: "a"}
	mustResume(t, s, r, 0)
	r.Epoch, r.Seq = s.Stats().Epoch, 7
	mustAck(t, s, 7)
	if err := s.session.db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s, true)
	damage(t, mem, "MANIFEST-000001", 0)
	s = mustOpen(t, tightConfig(t, mem))
	defer mustClose(t, s, true)
	if st := s.Stats(); st.Epoch == r.Epoch || st.QuarantinedTo == "" {
		t.Fatalf("stats %+v", st)
	}
	tenEvents(t, s)
	if err := s.Ack(t.Context(), r.Epoch, 8); !errors.Is(err, ErrReplaced) {
		t.Errorf("acknowledge in the epoch before: %v", err)
	}
	mustResume(t, s, r, 0)
	r.Epoch, r.Seq = s.Stats().Epoch, 3
	mustResume(t, s, r, 3)
}
