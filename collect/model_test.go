package collect

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/collect/event"
)

// model says, the plain way, what the collector must report: maps made anew at
// each scan, and no memory of how the collector does it.
type model struct {
	known map[int32]modelProc
	// last is when the last scan was that the collector has compared since it
	// loaded its table.
	last     time.Time
	baseline bool // nothing was ever known
	recover  bool // the next comparison is with a loaded table
}

type modelProc struct {
	record      event.Process // as last reported
	ended       bool
	rss         uint64
	cpu         time.Duration
	cpuKnown    bool
	points      float64
	pointsKnown bool
}

// scan returns the events that a scan of these processes must bring, and what is
// known after them.
func (m *model) scan(procs map[int32]*fakeProc, now time.Time) ([]string, *model) {
	next := &model{known: map[int32]modelProc{}, last: now}
	source := event.SourceScan
	if m.recover && !m.baseline {
		source = event.SourceRecovered
	}
	var lines []string
	say := func(kind string, pid int32, fields ...string) {
		lines = append(lines, strings.Join(append([]string{source.String(), kind, fmt.Sprint(pid)}, fields...), " "))
	}
	for pid, old := range m.known {
		p, there := procs[pid]
		isEnded := there && p.record.State == 'Z' && p.record.Threads <= 1
		same := there && p.record.StartTicks == old.record.StartTicks && (!old.ended || isEnded)
		switch {
		case same:
		case !old.ended:
			say("stop", pid)
		}
		if same {
			next.known[pid] = m.meet(old, p, now, say)
		}
	}
	for pid, p := range procs {
		if _, met := next.known[pid]; met {
			continue
		}
		say("start", pid)
		n := modelProc{record: p.record, rss: p.record.RSS, cpu: p.record.CPU, cpuKnown: true, pointsKnown: true}
		if p.record.State == 'Z' && p.record.Threads <= 1 {
			say("stop", pid)
			n.ended = true
		}
		next.known[pid] = n
	}
	return lines, next
}

// meet is the same process at two scans.
func (m *model) meet(old modelProc, p *fakeProc, now time.Time, say func(string, int32, ...string)) modelProc {
	r := p.record
	if old.ended {
		return old
	}
	if r.State == 'Z' && r.Threads <= 1 {
		say("stop", r.PID)
		old.ended = true
		return old
	}
	var fields []string
	differs := func(yes bool, name string) {
		if yes {
			fields = append(fields, name)
		}
	}
	differs(r.PPID != old.record.PPID, "parent_id")
	differs(r.Exe != old.record.Exe, "exe")
	differs(fmt.Sprint(r.Args) != fmt.Sprint(old.record.Args), "args")
	differs(r.UID != old.record.UID, "uid")
	change := math.Abs(float64(r.RSS) - float64(old.rss))
	differs(change >= 4<<20 && change >= float64(old.rss)/2, "rss")
	if old.cpuKnown && !m.last.IsZero() && now.After(m.last) {
		points := max(0, float64(r.CPU-old.cpu)/float64(now.Sub(m.last))*100)
		if !old.pointsKnown {
			old.points, old.pointsKnown = points, true
		}
		if math.Abs(points-old.points) >= 50 {
			fields = append(fields, "cpu")
			old.points = points
		}
	}
	old.cpu, old.cpuKnown = r.CPU, true
	kind := "modify"
	if p.exec || r.Exe != old.record.Exe {
		kind = "exec"
	}
	if len(fields) > 0 || kind == "exec" {
		say(kind, r.PID, fields...)
		old.rss = r.RSS
	}
	old.record = r
	return old
}

// reload is what a new actor knows.
func (m *model) reload() {
	m.last, m.recover = time.Time{}, true
	for pid, p := range m.known {
		p.cpuKnown, p.pointsKnown, p.points = false, false, 0
		m.known[pid] = p
	}
}

// history is a random life of a host and its collector beside the model's.
type history struct {
	*world
	t         *rapid.T
	now       time.Time
	ticks     uint64
	model     *model
	collector *Collector
	failed    bool     // the last scan
	owed      []string // losses that were noted and not yet written
}

func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{world: newWorld(t), t: rt, now: time.Unix(1_700_000_000, 0), ticks: 1}
		h.host.clock = func() time.Time { return h.now }
		h.model = &model{known: map[int32]modelProc{}, baseline: true, recover: true}
		h.start(true)
		rt.Repeat(map[string]func(*rapid.T){
			"spawn": h.spawn, "vanish": h.vanish, "reuse": h.reuse, "zombie": h.zombie, "orphan": h.orphan,
			"exec": h.exec, "modify": h.modify, "grow": h.grow, "burn": h.burn, "miss": h.miss,
			"scan": h.scan, "again": h.scan, "fail": h.failScan, "outage": h.outage, "crash": h.crash, "restart": h.restart,
		})
	})
}

// start brings up a collector, as a new run of the daemon or as another actor of
// the same run.
func (h *history) start(newRun bool) {
	if newRun {
		h.newRun()
	}
	h.collector = h.world.collector()
	h.collector.reset()
	if err := h.collector.load(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.store.take()
}

func (h *history) pid() int32 { return rapid.Int32Range(2, 9).Draw(h.t, "pid") }

// pick returns a living process, or skips the action.
func (h *history) pick() *fakeProc {
	var living []*fakeProc
	for _, pid := range slices.Sorted(maps.Keys(h.host.procs)) {
		if p := h.host.procs[pid]; p.record.State != 'Z' {
			living = append(living, p)
		}
	}
	if len(living) == 0 {
		h.t.Skip("nobody lives")
	}
	return rapid.SampledFrom(living).Draw(h.t, "process")
}

func (h *history) spawn(*rapid.T) {
	pid := h.pid()
	if h.host.procs[pid] != nil {
		h.t.Skip("taken")
	}
	h.ticks++
	h.host.spawn(pid, h.ticks).record.StartTime = time.Time{}
}

func (h *history) vanish(*rapid.T) { h.host.kill(h.pid()) }

func (h *history) reuse(*rapid.T) {
	p := h.pick()
	if p.record.StartTicks == h.ticks {
		h.ticks++
	}
	h.ticks++
	h.host.spawn(p.record.PID, h.ticks).record.StartTime = time.Time{}
}

func (h *history) zombie(*rapid.T) { h.pick().record.State = 'Z' }

func (h *history) orphan(*rapid.T) {
	p := h.pick()
	p.record.State, p.record.Threads = 'Z', 2 // its first thread has ended, another one runs
}

func (h *history) exec(*rapid.T) {
	p := h.pick()
	p.record.Exe = fmt.Sprintf("/bin/%d", rapid.IntRange(1, 2).Draw(h.t, "exe"))
	p.exec = true
}

func (h *history) modify(*rapid.T) {
	r := &h.pick().record
	switch rapid.IntRange(0, 2).Draw(h.t, "field") {
	case 0:
		r.UID = rapid.Uint32Range(0, 2).Draw(h.t, "uid")
	case 1:
		r.Args = []string{fmt.Sprint(rapid.IntRange(0, 2).Draw(h.t, "argument"))}
	case 2:
		r.PPID = h.pid()
	}
}

func (h *history) grow(*rapid.T) {
	h.pick().record.RSS = uint64(rapid.IntRange(0, 40).Draw(h.t, "MiB")) << 20
}

func (h *history) burn(*rapid.T) {
	h.pick().record.CPU += time.Duration(rapid.IntRange(0, 60).Draw(h.t, "seconds")) * time.Second
}

// miss keeps a known PID out of the next listing. One that is not known would
// only be found later.
func (h *history) miss(*rapid.T) {
	pid := h.pid()
	if _, known := h.model.known[pid]; !known {
		h.t.Skip("not known")
	}
	h.host.missed[pid] = true
}

// snapshot is the host as the model sees it, before a scan changes the marks.
func (h *history) snapshot() map[int32]*fakeProc {
	procs := map[int32]*fakeProc{}
	for pid, p := range h.host.procs {
		copied := *p
		procs[pid] = &copied
	}
	return procs
}

func (h *history) scan(*rapid.T) {
	h.now = h.now.Add(30 * time.Second)
	want, next := h.model.scan(h.snapshot(), h.now)
	if err := h.cycle(h.collector); err != nil {
		h.t.Fatal(err)
	}
	h.noteFailures()
	want, h.owed = append(want, h.owed...), nil
	if diff := gocmp.Diff(sorted(want), sorted(h.store.take())); diff != "" {
		h.t.Fatalf("events (-want +got):\n%s", diff)
	}
	h.model = next
	h.compareTable()
}

// compareTable holds the durable table against the model's.
func (h *history) compareTable() {
	type row struct {
		PID    int32
		Ticks  uint64
		Ended  bool
		UID    uint32
		Exe    string
		Parent int32
	}
	byPID := func(a, b row) int { return cmp.Compare(a.PID, b.PID) }
	var want, got []row
	for pid, p := range h.model.known {
		want = append(want, row{pid, p.record.StartTicks, p.ended, p.record.UID, p.record.Exe, p.record.PPID})
	}
	for _, p := range h.store.table {
		got = append(got, row{p.PID, p.StartTicks, p.State == 'Z' && p.Threads <= 1, p.UID, p.Exe, p.PPID})
	}
	slices.SortFunc(want, byPID)
	slices.SortFunc(got, byPID)
	if diff := gocmp.Diff(want, got); diff != "" {
		h.t.Fatalf("table (-want +got):\n%s", diff)
	}
	if len(h.store.breaches) > 0 {
		h.t.Fatal(h.store.breaches)
	}
	if !slices.IsSortedFunc(h.collector.table.entries, func(a, b entry) int { return cmp.Compare(a.pid, b.pid) }) {
		h.t.Fatal("table in memory is not sorted")
	}
}

// failScan is a scan whose result is lost. What was executed will be seen by the
// next one only in what it changed.
func (h *history) failScan(*rapid.T) {
	for _, p := range h.host.procs {
		p.exec = false
	}
	h.host.scanErr = errBroken
	h.now = h.now.Add(30 * time.Second)
	if err := h.cycle(h.collector); err != nil {
		h.t.Fatal(err)
	}
	h.failed = true
	if got := h.store.take(); len(got) > 0 {
		h.t.Fatalf("a failed scan reported %v", got)
	}
}

// noteFailures is what a good scan does, whether its result is kept or not.
func (h *history) noteFailures() {
	if h.failed {
		h.owed = append(h.owed, "loss scan_failed")
	}
	h.failed = false
}

// outage is a cycle that the store refuses, and its return.
func (h *history) outage(*rapid.T) {
	for _, p := range h.host.procs {
		p.exec = false
	}
	h.store.fail = func() error { return errFull }
	h.now = h.now.Add(30 * time.Second)
	if err := h.cycle(h.collector); err == nil {
		h.t.Fatal("the store refused and the cycle did not")
	}
	h.store.fail = nil
	h.noteFailures()
	if err := h.collector.load(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	if diff := gocmp.Diff([]string{"loss store_unavailable"}, h.store.take()); diff != "" {
		h.t.Fatalf("events (-want +got):\n%s", diff)
	}
	h.lost()
}

// crash ends the daemon, and with it what it knew of failed scans.
func (h *history) crash(*rapid.T) { h.forget(); h.failed, h.owed = false, nil; h.start(true) }

// restart ends the actor alone.
func (h *history) restart(*rapid.T) { h.forget(); h.start(false) }

// forget is what a new actor does not know.
func (h *history) forget() {
	for _, p := range h.host.procs {
		p.exec = false
	}
	h.lost()
}

func (h *history) lost() {
	h.model.baseline = h.model.baseline && len(h.model.known) == 0 && h.store.asOf.IsZero()
	h.model.reload()
}
