package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
)

// fakeHost is a scripted host and the scanner of it. Like a real scanner it
// reports a whole record only when something other than a volatile field has
// changed since the last scan that did not fail.
type fakeHost struct {
	mu       sync.Mutex // guards everything below
	procs    map[int32]*fakeProc
	reported map[int32]event.Process // by the last scans
	missed   map[int32]bool          // not in the next listing, though they live
	scanErr  error                   // of the next scan
	probeErr error
	hang     chan struct{} // when set, a scan waits for it and does not look at ctx
	slow     bool          // a scan waits for ctx
	panics   bool
	scans    int
	clock    func() time.Time
	// pause, if set, is called without mu before a scan looks at each process, and with
	// 0 before it ends.
	pause   func(pid int32)
	probing func(pid int32) // the same before a probe
}

type fakeProc struct {
	record event.Process
	exec   bool
	exit   *event.Exit
	start  time.Duration // since boot, of processes that a fakeKernel made
	execs  int           // so far
	seen   bool          // the scanner has seen it
}

func newFakeHost() *fakeHost {
	return &fakeHost{procs: map[int32]*fakeProc{}, reported: map[int32]event.Process{}, missed: map[int32]bool{}, clock: time.Now}
}

// spawn adds a process and returns it for changes before the next scan.
func (h *fakeHost) spawn(pid int32, ticks uint64) *fakeProc {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &fakeProc{record: event.Process{
		PID: pid, PPID: 1, StartTicks: ticks, StartTime: h.clock(), State: 'S', Threads: 1,
		Name: fmt.Sprintf("p%d", pid), Exe: fmt.Sprintf("/bin/p%d", pid), Args: []string{fmt.Sprintf("p%d", pid)},
		RSS: 10 << 20,
	}}
	if pid == 1 {
		p.record.PPID = 0
	}
	h.procs[pid] = p
	return p
}

func (h *fakeHost) kill(pid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.procs, pid)
}

func (h *fakeHost) with(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *fakeHost) scanCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.scans
}

func (h *fakeHost) Scan(ctx context.Context, full bool, s *Snapshot) error {
	h.mu.Lock()
	h.scans++
	hang, slow, panics := h.hang, h.slow, h.panics
	h.mu.Unlock()
	switch {
	case panics:
		panic("scanner is broken")
	case hang != nil:
		<-hang
	case slow:
		<-ctx.Done()
		return ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	*s = Snapshot{Began: h.clock(), Observations: s.Observations[:0]}
	if full {
		clear(h.reported)
	}
	for _, pid := range slices.Sorted(maps.Keys(h.procs)) {
		h.wait(pid)
		if h.procs[pid] != nil && !h.missed[pid] {
			s.Observations = append(s.Observations, h.observe(pid))
		}
	}
	h.wait(0)
	clear(h.missed)
	s.Ended = h.clock()
	err := h.scanErr
	h.scanErr = nil
	return err
}

// wait lets a test in between two looks. It needs mu, and gives it away meanwhile.
func (h *fakeHost) wait(pid int32) {
	if pause := h.pause; pause != nil {
		h.mu.Unlock()
		pause(pid)
		h.mu.Lock()
	}
}

// observe needs h.mu.
func (h *fakeHost) observe(pid int32) Observation {
	p := h.procs[pid]
	r := p.record
	o := Observation{PID: pid, StartTicks: r.StartTicks, State: r.State, Threads: r.Threads, RSS: r.RSS, RSSKind: r.RSSKind, CPU: r.CPU, ExecChanged: p.exec, Exit: p.exit}
	last, known := h.reported[pid]
	if !known || last.StartTicks != r.StartTicks || p.exec || differ(&last, &r) || last.PPID != r.PPID {
		record := r
		o.Process = &record
	}
	p.exec, p.seen = false, true
	h.reported[pid] = r
	return o
}

func (h *fakeHost) Probe(_ context.Context, pid int32) (Observation, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if probing := h.probing; probing != nil {
		h.mu.Unlock()
		probing(pid)
		h.mu.Lock()
	}
	if h.probeErr != nil {
		return Observation{}, h.probeErr
	}
	if h.procs[pid] == nil {
		return Observation{}, fmt.Errorf("probe %d: %w", pid, ErrGone)
	}
	delete(h.reported, pid)
	return h.observe(pid), nil
}

var (
	errFull     = errors.New("no space left on device")
	errReplaced = errors.New("another store is here")
	errBroken   = errors.New("input/output error")
	errDone     = errors.New("done for good")
)

// fakeStore keeps what it accepted, and holds the collector to its contract.
type fakeStore struct {
	mu       sync.Mutex // guards everything below
	events   []*event.Event
	batches  []*event.Batch
	table    map[event.ID]*event.Process
	asOf     time.Time
	bootID   string
	mark     uint64
	epoch    event.Epoch
	fresh    event.Table // what Load says of a store without events
	clean    bool
	fail     func() error  // of the next calls; nil: none
	doubt    func() error  // of the next appends, which are durable all the same
	hold     chan struct{} // when set, Append waits for it
	takes    time.Duration // what Append takes
	loads    int
	breaches []string
}

func newFakeStore() *fakeStore {
	return &fakeStore{table: map[event.ID]*event.Process{}, epoch: event.Epoch{1}}
}

func (s *fakeStore) Append(_ context.Context, b *event.Batch) error {
	s.mu.Lock()
	hold, takes := s.hold, s.takes
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if takes > 0 {
		<-time.After(takes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	if b.Epoch != s.epoch {
		return fmt.Errorf("append to epoch %v: %w", b.Epoch, errReplaced)
	}
	s.check(b)
	for _, e := range b.Events {
		e.Epoch, e.Seq = s.epoch, uint64(len(s.events)+1)
		s.events = append(s.events, e)
	}
	for _, p := range b.Put {
		copied := *p
		s.table[p.ID] = &copied
	}
	for _, id := range b.Delete {
		delete(s.table, id)
	}
	if !b.AsOf.IsZero() {
		s.asOf, s.bootID = b.AsOf, b.BootID
	}
	if b.Mark != 0 {
		s.mark = b.Mark
	}
	s.batches = append(s.batches, b)
	if s.doubt != nil {
		return s.doubt()
	}
	return nil
}

// check notes what no batch may do.
func (s *fakeStore) check(b *event.Batch) {
	breach := func(when bool, format string, args ...any) {
		if when {
			s.breaches = append(s.breaches, fmt.Sprintf(format, args...))
		}
	}
	breach(len(b.Events) > maxBatchEvents, "%d events in a batch", len(b.Events))
	size := 0
	for _, e := range b.Events {
		size += len(event.Append(nil, e))
	}
	for _, p := range b.Put {
		size += len(event.AppendProcess(nil, p))
	}
	breach(size > maxBatchBytes, "%d bytes in a batch", size)
	for i, e := range b.Events {
		breach(len(s.events) == 0 && i == 0 && e.Kind != event.KindSensor, "the first event is a %v", e.Kind)
	}
	for _, id := range b.Delete {
		breach(s.table[id] == nil, "delete of %v, which the table does not have", id)
	}
	for _, e := range b.Events {
		breach(len(event.Append(nil, e)) > event.MaxEncoded-100, "%v of %d bytes", e.Kind, len(event.Append(nil, e)))
		breach(e.Observed.IsZero() || e.Time.IsZero(), "%v without a time", e.Kind)
		breach(e.Kind == event.KindStart && s.table[e.Process.ID] != nil, "second start of %d", e.Process.PID)
		breach(e.Kind < event.KindLoss && e.Process.ID.IsZero(), "%v of a process without an id", e.Kind)
	}
}

func (s *fakeStore) Load(context.Context) (*event.Table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return nil, err
		}
	}
	t := &event.Table{AsOf: s.asOf, BootID: s.bootID, Mark: s.mark, Epoch: s.epoch, Head: uint64(len(s.events)), Empty: len(s.events) == 0, Clean: s.clean}
	if t.Empty {
		t.PreviousEpoch, t.PreviousSeq, t.Quarantined = s.fresh.PreviousEpoch, s.fresh.PreviousSeq, s.fresh.Quarantined
		t.Rewound = s.fresh.Rewound
	}
	for _, p := range s.table {
		copied := *p
		t.Processes = append(t.Processes, &copied)
	}
	return t, nil
}

func (s *fakeStore) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// kept are the events, written the batches, rows the table, completeAsOf its
// time, and loadCount the loads so far.
func (s *fakeStore) kept() []*event.Event {
	return locked(s, func() []*event.Event { return slices.Clone(s.events) })
}

func (s *fakeStore) written() []*event.Batch {
	return locked(s, func() []*event.Batch { return slices.Clone(s.batches) })
}

func (s *fakeStore) completeAsOf() time.Time {
	return locked(s, func() time.Time { return s.asOf })
}

func (s *fakeStore) loadCount() int { return locked(s, func() int { return s.loads }) }

func (s *fakeStore) rows() map[event.ID]*event.Process {
	return locked(s, func() map[event.ID]*event.Process { return maps.Clone(s.table) })
}

func locked[T any](s *fakeStore, read func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return read()
}

// take returns the events since the last take, as lines: see line.
func (s *fakeStore) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, e := range s.events {
		if e.Seq != 0 && e.Cause != taken {
			lines = append(lines, line(e))
			e.Cause = taken
		}
	}
	return lines
}

const taken = "taken by the test"

// line is an event in brief: "scan start 7", "recovered modify 7 uid rss",
// "loss down", "sensor started".
func line(e *event.Event) string {
	switch e.Kind {
	case event.KindSensor:
		return "sensor " + e.Sensor.What.String()
	case event.KindLoss:
		return "loss " + e.Loss.Cause.String()
	}
	text := fmt.Sprintf("%v %v %d", e.Source, e.Kind, e.Process.PID)
	for _, c := range e.Changes {
		text += " " + c.Field.String()
	}
	if e.Cause != "" {
		text += " " + e.Cause
	}
	return text
}

// alive are the PIDs of the durable table that have not ended, sorted.
func (s *fakeStore) alive() []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pids []int32
	for _, p := range s.table {
		if p.State != event.StateZombie || p.Threads > 1 {
			pids = append(pids, p.PID)
		}
	}
	slices.Sort(pids)
	return pids
}

// beats remembers the last beat.
type beats struct {
	mu   sync.Mutex // guards everything below
	at   time.Time
	last string
}

func (b *beats) Beat(activity string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.last = time.Now(), activity
}

func (b *beats) age() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.at)
}

// world is a collector with all that it needs.
type world struct {
	t      testing.TB
	host   *fakeHost
	store  *fakeStore
	beats  *beats
	kernel *fakeKernel // nil: nobody tells
	cfg    Config
	handle Handle
	moves  []fsm.Transition
	ended  chan error // what Serve returned, or the panic as an error
	cancel context.CancelFunc
}

// newWorld makes a world with a collector that is not served yet.
func newWorld(t testing.TB) *world {
	w := &world{t: t, host: newFakeHost(), store: newFakeStore(), beats: &beats{}}
	w.newRun()
	return w
}

// newRun is what a new process of the daemon starts with.
func (w *world) newRun() {
	log := logrus.New()
	log.SetOutput(io.Discard)
	mailbox := NewMailbox()
	w.handle = mailbox.Handle()
	w.cfg = Config{
		Scanner: w.host, Sink: w.store, Loader: w.store, Machine: fsm.NewCollector(), Mailbox: mailbox,
		Host:    Host{HostID: "host", BootID: "boot-1", PIDNamespace: 4026531836},
		Version: "1.2.3", Settings: DefaultSettings(), Done: errDone, Progress: w.beats,
		IsUnavailable: func(err error) bool { return errors.Is(err, errFull) || errors.Is(err, errReplaced) },
		OnTransition:  func(t fsm.Transition) { w.moves = append(w.moves, t) },
		Log:           logrus.NewEntry(log),
	}
	if w.kernel != nil {
		w.cfg.Events = w.kernel
	}
}

func (w *world) collector() *Collector {
	w.t.Helper()
	c, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// serve runs c until it ends or the test does. Only in a bubble.
func (w *world) serve(c *Collector) {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	ended := make(chan error, 1)
	w.ended = ended
	go func() {
		defer func() {
			if p := recover(); p != nil {
				ended <- fmt.Errorf("panic: %v", p)
			}
		}()
		ended <- c.Serve(ctx)
	}()
	synctest.Wait()
}

// stop ends Serve from outside.
func (w *world) stop() error {
	w.cancel()
	return <-w.ended
}

// begin starts collection and waits for the first cycle.
func (w *world) begin() {
	w.t.Helper()
	if _, err := w.handle.BeginMonitoring(w.t.Context(), Begin{Cause: "standalone"}); err != nil {
		w.t.Fatalf("begin: %v", err)
	}
	synctest.Wait()
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// checkStore fails the test if the collector broke the sink's contract.
func (w *world) checkStore() {
	w.t.Helper()
	for _, breach := range w.store.breaches {
		w.t.Error(breach)
	}
}

// cycle runs one scan and its comparison without an actor.
func (w *world) cycle(c *Collector) error {
	c.scanBegan = time.Now()
	j := c.newJob(nil, func() {})
	j.run(context.Background())
	return c.endJob(context.Background(), <-j.done)
}

func sorted(lines []string) []string {
	slices.SortFunc(lines, cmp.Compare[string])
	return lines
}
