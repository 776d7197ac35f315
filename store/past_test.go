package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/collect/event"
)

// pastModel plays a host whose processes start, change their names and end, and keeps
// the truth.
type pastModel struct {
	now    time.Time
	n      uint64
	lives  []*modelLife
	events []*event.Event
}

type modelLife struct {
	record     event.Process
	start, end time.Time // end is zero while it lives
	names      []modelName
}

type modelName struct {
	since time.Time
	name  string
}

func (l *modelLife) nameAt(at time.Time) string {
	name := l.names[0].name
	for _, n := range l.names {
		if !n.since.After(at) {
			name = n.name
		}
	}
	return name
}

func (m *pastModel) event(k event.Kind, at time.Time, p event.Process) *event.Event {
	e := &event.Event{Kind: k, Time: at, Observed: m.now, HostID: "host", Process: p}
	m.events = append(m.events, e)
	return e
}

// start begins a process that was there for some time when it is seen. PIDs are few,
// so that they are used again.
func (m *pastModel) start(unseen time.Duration) {
	m.n++
	p := *testProcess(m.n)
	p.PID, p.StartTime, p.Name, p.State = int32(m.n%5), m.now.Add(-unseen), "first", 'S'
	m.lives = append(m.lives, &modelLife{record: p, start: p.StartTime, names: []modelName{{p.StartTime, p.Name}}})
	m.event(event.KindStart, p.StartTime, p)
}

func (m *pastModel) rename(l *modelLife) {
	old := l.record.Name
	l.record.Name = fmt.Sprintf("name %d", len(l.names))
	l.names = append(l.names, modelName{m.now, l.record.Name})
	m.event(event.KindModify, m.now, l.record).Changes = []event.Change{{Field: event.FieldName, Old: old, New: l.record.Name}}
}

func (m *pastModel) end(l *modelLife) {
	l.end = m.now
	m.event(event.KindStop, m.now, l.record)
}

func (m *pastModel) living() (all []*modelLife) {
	for _, l := range m.lives {
		if l.end.IsZero() {
			all = append(all, l)
		}
	}
	return all
}

func (m *pastModel) table() (all []*event.Process) {
	for _, l := range m.living() {
		all = append(all, &l.record)
	}
	return all
}

// at is the truth, as text.
func (m *pastModel) at(at time.Time) (all []string) {
	for _, l := range m.lives {
		if !l.start.After(at) && (l.end.IsZero() || l.end.After(at)) {
			all = append(all, fmt.Sprintf("%s %s", l.record.ID, l.nameAt(at)))
		}
	}
	slices.Sort(all)
	return all
}

func (p *Past) text() (all []string) {
	for i := range p.Lives {
		all = append(all, fmt.Sprintf("%s %s", p.Lives[i].Process.ID, p.Lives[i].Process.Name))
	}
	slices.Sort(all)
	return all
}

// TestPastIsTheTruth asks for every moment of random histories of which the first
// events are not kept any more.
func TestPastIsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &pastModel{now: testTime}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.now = m.now.Add(time.Second)
			living := m.living()
			what := rapid.IntRange(0, 3).Draw(t, "what")
			switch {
			case what == 0 || len(living) == 0:
				m.start(time.Duration(rapid.IntRange(0, 3).Draw(t, "unseen")) * time.Second)
			case what == 1:
				m.end(rapid.SampledFrom(living).Draw(t, "end"))
			default:
				m.rename(rapid.SampledFrom(living).Draw(t, "rename"))
			}
		}
		floor := rapid.IntRange(0, len(m.events)-1).Draw(t, "floor")
		oldest := m.events[floor].Observed
		for at := oldest; !at.After(m.now); at = at.Add(500 * time.Millisecond) {
			p := &past{at: at, lives: make(map[event.ID]*life)}
			for _, e := range m.events[floor:] {
				p.take(e)
			}
			p.meet(m.table(), false)
			r := p.result(m.now)
			if diff := gocmp.Diff(m.at(at), r.text()); diff != "" {
				t.Fatalf("at %v (-want +got):\n%s", at.Sub(testTime), diff)
			}
			for i := range r.Lives {
				if r.Lives[i].EndLost {
					t.Fatalf("at %v: the end of %v is not lost", at.Sub(testTime), r.Lives[i].Process.ID)
				}
			}
			if !slices.IsSortedFunc(r.Lives, func(a, b Life) int { return cmp.Compare(a.Process.PID, b.Process.PID) }) {
				t.Fatal("not sorted")
			}
		}
	})
}

// TestPastDoubts is what is said of a process of which not all is known.
func TestPastDoubts(t *testing.T) {
	at := testTime.Add(time.Minute)
	history := func(events ...*event.Event) Life {
		p := &past{at: at, lives: make(map[event.ID]*life)}
		for _, e := range events {
			p.take(e)
		}
		p.meet(nil, false)
		r := p.result(testTime)
		if len(r.Lives) != 1 {
			t.Fatalf("%d lives, want 1", len(r.Lives))
		}
		r.Lives[0].Process = event.Process{}
		return r.Lives[0]
	}
	q := *testProcess(1)
	q.StartTime = testTime
	on := func(k event.Kind, when time.Duration) *event.Event {
		return &event.Event{Kind: k, Time: testTime.Add(when), Observed: testTime.Add(when), Process: q}
	}
	stop := on(event.KindStop, time.Hour)
	stop.NotBefore = testTime.Add(30 * time.Second)
	late := on(event.KindStart, 0)
	late.Observed = testTime.Add(time.Hour)
	for name, c := range map[string]struct {
		got, want Life
	}{
		"nothing":                {history(on(event.KindStart, 0), on(event.KindStop, time.Hour)), Life{}},
		"only its end is kept":   {history(on(event.KindStop, time.Hour)), Life{}},
		"its end is not kept":    {history(on(event.KindStart, 0)), Life{EndLost: true}},
		"it may have ended":      {history(on(event.KindStart, 0), stop), Life{LastSeen: stop.NotBefore}},
		"it had changed by then": {history(on(event.KindExec, time.Hour), on(event.KindStop, 2*time.Hour)), Life{SeenLater: true}},
		"it was not seen yet":    {history(late, on(event.KindStop, 2*time.Hour)), Life{SeenLater: true}},
	} {
		if diff := gocmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestPastOfAStore: the newest table, a moment before it, one that is not kept, and a
// gap, of a store that runs and of one that does not.
func TestPastOfAStore(t *testing.T) {
	c := testConfig(t, nil)
	c.Dir = t.TempDir() + "/db"
	s := mustOpen(t, c)
	begun := func(b *event.Batch) *event.Batch {
		for _, e := range b.Events {
			e.Process.StartTime = e.Time
		}
		for _, p := range b.Put {
			p.StartTime = b.AsOf
		}
		return b
	}
	mustAppend(t, s, begun(testBatch(testTime, 1, 2)))
	down := event.Loss{Cause: event.LossDown, From: testTime.Add(time.Minute), To: testTime.Add(time.Hour)}
	b := begun(testBatch(testTime.Add(time.Hour), 3))
	b.Delete = []event.ID{testProcess(1).ID}
	gone := *testProcess(1)
	gone.StartTime = testTime
	b.Events = append(b.Events,
		&event.Event{Kind: event.KindLoss, Time: b.AsOf, Observed: b.AsOf, Loss: &down},
		&event.Event{Kind: event.KindStop, Time: b.AsOf, Observed: b.AsOf, NotBefore: testTime, Process: gone})
	late := *testProcess(4) // started while the snapshot was taken
	late.StartTime = b.AsOf.Add(time.Millisecond)
	b.Put = append(b.Put, &late)
	mustAppend(t, s, b)
	check := func(name string, past func(at time.Time) (*Past, error)) {
		for _, c := range []struct {
			at    time.Time
			lives []uint64
			gaps  int
		}{
			{time.Time{}, []uint64{2, 3, 4}, 0},
			{testTime.Add(2 * time.Hour), []uint64{2, 3, 4}, 0},
			{testTime.Add(30 * time.Minute), []uint64{1, 2}, 1},
			{testTime, []uint64{1, 2}, 0},
		} {
			p, err := past(c.at)
			if err != nil {
				t.Fatalf("%s at %v: %v", name, c.at, err)
			}
			var want []string
			for _, n := range c.lives {
				want = append(want, fmt.Sprintf("%s %s", testProcess(n).ID, testProcess(n).Name))
			}
			slices.Sort(want)
			if diff := gocmp.Diff(want, p.text()); diff != "" || len(p.Gaps) != c.gaps || !p.AsOf.Equal(b.AsOf) {
				t.Errorf("%s at %v: %d gaps, want %d, as of %v (-want +got):\n%s", name, c.at, len(p.Gaps), c.gaps, p.AsOf, diff)
			}
		}
		var early *BeforeRecordError
		if _, err := past(testTime.Add(-time.Second)); !errors.As(err, &early) || !early.Oldest.Equal(testTime) {
			t.Errorf("%s before it began: %v", name, err)
		}
	}
	check("running", func(at time.Time) (*Past, error) { return s.Past(t.Context(), at, nil) })
	mustClose(t, s, true)
	copied, err := OpenCopy(t.Context(), c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	check("copy", func(at time.Time) (*Past, error) { return copied.Past(t.Context(), at, nil) })
	if err := copied.Close(); err != nil {
		t.Error(err)
	}
}

// started is the event of a start, and the process.
func started(n uint64, at, observed time.Time) (*event.Event, *event.Process) {
	p := *testProcess(n)
	p.StartTime = at
	return &event.Event{Kind: event.KindStart, Time: at, Observed: observed, HostID: "host", Process: p}, &p
}

// ended is the event of an end that was seen at once.
func ended(p *event.Process, at time.Time) *event.Event {
	return &event.Event{Kind: event.KindStop, Time: at, Observed: at, HostID: "host", Process: *p}
}

// pidsOf are those of the processes that lived.
func pidsOf(p *Past) (pids []int32) {
	for i := range p.Lives {
		pids = append(pids, p.Lives[i].Process.PID)
	}
	return pids
}

// TestPastOfAStoreThatIsWritten: the table that is read is newer than the durable head.
// Who is not in it any more has an event above the head.
func TestPastOfAStoreThatIsWritten(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	first, p1 := started(1, testTime, testTime)
	_, p2 := started(2, testTime, testTime) // its start is not kept
	mustAppend(t, s, &event.Batch{Events: []*event.Event{first}, Put: []*event.Process{p1, p2}, AsOf: testTime})
	v, n, err := s.hold()
	if err != nil {
		t.Fatal(err)
	}
	defer n.readers.Done()
	end := testTime.Add(time.Hour)
	mustAppend(t, s, &event.Batch{Events: []*event.Event{ended(p1, end), ended(p2, end)}, Delete: []event.ID{p1.ID, p2.ID}})
	reader := n.reader()
	defer reader.release()
	v.db = reader
	p, err := v.past(t.Context(), testTime.Add(time.Minute), nil)
	if err != nil {
		t.Fatal(err)
	}
	if pids := pidsOf(p); !slices.Equal(pids, []int32{1, 2}) || p.Lives[0].EndLost || p.Lives[1].EndLost {
		t.Errorf("%+v", p.Lives)
	}
}

// stored is a store with the events of a model, one to a batch, and its table.
func (m *pastModel) stored(t testing.TB) *Store {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	for _, e := range m.events {
		mustAppend(t, s, &event.Batch{Events: []*event.Event{e}})
	}
	mustAppend(t, s, &event.Batch{Put: m.table(), AsOf: m.now})
	return s
}

// TestPastOfAClockThatIsSet: the clock is set, back or on, again and again. What was at
// a time that came twice is what was the second time.
func TestPastOfAClockThatIsSet(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &pastModel{now: testTime}
		truth := make(map[time.Time][]string)
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			step := time.Second
			if rapid.IntRange(0, 5).Draw(rt, "set") == 0 {
				step = time.Duration(rapid.IntRange(-20, 20).Draw(rt, "by")) * time.Second
			}
			m.now = m.now.Add(step)
			living := m.living()
			what := rapid.IntRange(0, 3).Draw(rt, "what")
			switch {
			case what == 0 || len(living) == 0:
				m.start(0)
			case what == 1:
				m.end(rapid.SampledFrom(living).Draw(rt, "end"))
			default:
				m.rename(rapid.SampledFrom(living).Draw(rt, "rename"))
			}
			for at := range truth { // that what came after it was again before it
				if !m.now.After(at) {
					truth[at] = m.present()
				}
			}
			truth[m.now] = m.present()
		}
		s := m.stored(t)
		defer mustClose(t, s, true)
		for at, want := range truth {
			p, err := s.Past(t.Context(), at, nil)
			if err != nil {
				rt.Fatalf("at %v: %v", at.Sub(testTime), err)
			}
			if diff := gocmp.Diff(want, p.text()); diff != "" {
				rt.Fatalf("at %v (-want +got):\n%s", at.Sub(testTime), diff)
			}
			for i := range p.Lives {
				if l := &p.Lives[i]; l.EndLost || l.SeenLater && l.Process.Name == "first" {
					rt.Fatalf("at %v: %+v", at.Sub(testTime), l)
				}
			}
		}
	})
}

// present is who lives now, as at says it of a moment.
func (m *pastModel) present() (all []string) {
	for _, l := range m.living() {
		all = append(all, fmt.Sprintf("%s %s", l.record.ID, l.record.Name))
	}
	slices.Sort(all)
	return all
}

// TestPastOfAClockThatWasFast: by the times on them, the first processes began hours
// after the moment, and the events of some are not kept.
func TestPastOfAClockThatWasFast(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	fast := testTime.Add(2 * time.Hour)
	first, p1 := started(1, fast, fast)
	_, p2 := started(2, fast, fast) // without events
	_, p3 := started(3, fast, fast) // of which only the end is kept
	mustAppend(t, s, &event.Batch{Events: []*event.Event{first}, Put: []*event.Process{p1, p2, p3}, AsOf: fast})
	second, p4 := started(4, testTime, testTime)
	mustAppend(t, s, &event.Batch{Events: []*event.Event{second}, Put: []*event.Process{p4}, AsOf: testTime})
	after := testTime.Add(10 * time.Minute)
	third, p5 := started(5, after, after)
	fourth, p6 := started(6, after, after)
	end := after.Add(time.Second)
	mustAppend(t, s, &event.Batch{
		Events: []*event.Event{third, fourth, ended(p3, end), ended(p6, end)}, Put: []*event.Process{p5}, Delete: []event.ID{p3.ID}, AsOf: end,
	})
	p, err := s.Past(t.Context(), testTime.Add(time.Minute), nil)
	if err != nil {
		t.Fatal(err)
	}
	if pids := pidsOf(p); !slices.Equal(pids, []int32{1, 2, 3, 4}) {
		t.Errorf("%d", pids)
	}
	var early *BeforeRecordError
	if _, err := s.Past(t.Context(), testTime.Add(-time.Second), nil); !errors.As(err, &early) || !early.Oldest.Equal(testTime) {
		t.Errorf("before all: %v, oldest %v", err, early)
	}
}

// TestPastWithoutWhatCanNotBeDecoded says that something is missing.
func TestPastWithoutWhatCanNotBeDecoded(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	first, p1 := started(1, testTime, testTime)
	second, _ := started(2, testTime, testTime)
	third, p3 := started(3, testTime.Add(time.Hour), testTime.Add(time.Hour))
	mustAppend(t, s, &event.Batch{Events: []*event.Event{first, second, third}, Put: []*event.Process{p1, p3}, AsOf: third.Time})
	if err := s.session.db.Set(eventKey(2), []byte{0xff}, nil); err != nil {
		t.Fatal(err)
	}
	p, err := s.Past(t.Context(), testTime.Add(time.Minute), nil)
	if err != nil {
		t.Fatal(err)
	}
	if pids := pidsOf(p); !slices.Equal(pids, []int32{1}) || len(p.Gaps) != 1 || p.Gaps[0].Count != 1 || p.Gaps[0].Hint == "" {
		t.Errorf("%d, gaps %+v", pids, p.Gaps)
	}
}
