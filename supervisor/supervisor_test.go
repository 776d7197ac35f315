package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

const patience = 60 * time.Second

// scanner sees one process, unless it is told to misbehave.
type scanner struct {
	mu     sync.Mutex // guards misbehave
	next   func(context.Context) error
	scans  int
	static []collect.Observation
}

func newScanner() *scanner {
	p := &event.Process{PID: 1, Name: "init", StartTicks: 7, Threads: 1, State: 'S'}
	return &scanner{static: []collect.Observation{{PID: 1, StartTicks: 7, Threads: 1, State: 'S', Process: p}}}
}

// misbehave is what the next scan does first.
func (s *scanner) misbehave(next func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
}

func (s *scanner) take() func(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.next
	s.next = nil
	s.scans++
	return next
}

func (s *scanner) Scan(ctx context.Context, _ bool, snap *collect.Snapshot) error {
	if next := s.take(); next != nil {
		if err := next(ctx); err != nil {
			return err
		}
	}
	*snap = collect.Snapshot{Began: time.Now(), Ended: time.Now(), Observations: slices.Clone(s.static)}
	return nil
}

func (s *scanner) Probe(context.Context, int32) (collect.Observation, error) {
	return collect.Observation{}, collect.ErrGone
}

// extra is a service of the caller's that does what it is told.
type extra struct{ orders chan func() error }

func (e extra) String() string { return "extra" }

func (e extra) Serve(ctx context.Context) error {
	select {
	case order := <-e.orders:
		return order()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is a supervisor under test.
type run struct {
	*Supervisor
	t       *testing.T
	scanner *scanner
	extra   extra
	store   *store.Store
	aborted chan string
	notices chan Notice
	stop    func() error
}

func start(t *testing.T, change func(*Config)) *run {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "db"), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	r := &run{t: t, scanner: newScanner(), extra: extra{make(chan func() error)}, store: st, aborted: make(chan string, 1), notices: make(chan Notice, 1000)}
	cfg := Config{
		Store: st, Scanner: r.scanner, Sources: control.Sources{Events: "none", Snapshots: "portable"},
		Host:         collect.Host{HostID: "host", BootID: "boot"},
		Settings:     collect.DefaultSettings(),
		Hashes:       &hash.Config{},
		SocketPath:   filepath.Join(dir, "s"),
		Version:      "test",
		Watchdog:     DefaultWatchdog,
		LogLinesLost: func() uint64 { return 7 },
		Abort: func(reason string) {
			select {
			case r.aborted <- reason:
			default:
			}
		},
		Notify: func(n Notice) {
			select {
			case r.notices <- n:
			default:
			}
		},
		Services: []tree.Service{r.extra},
		Log:      logrus.NewEntry(log),
	}
	if change != nil {
		change(&cfg)
	}
	if r.Supervisor, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		_ = r.stop()
		if err := st.Close(true); err != nil {
			t.Error(err)
		}
	})
	return r
}

// await asks for the state until it holds.
func (r *run) await(what string, holds func(*control.State) bool) *control.State {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		state := r.State()
		if holds(state) {
			return state
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("gave up waiting for %s; the state is %+v", what, state)
		}
	}
}

func (r *run) awaitCycle(n uint64) *control.State {
	r.t.Helper()
	return r.await("a cycle", func(s *control.State) bool { return s.Cycle.Count >= n })
}

func service(s *control.State, path string) control.Service {
	i := slices.IndexFunc(s.Services, func(x control.Service) bool { return x.Path == path })
	if i < 0 {
		return control.Service{}
	}
	return s.Services[i]
}

func TestDaemonDoesItsJobAndStopsInOrder(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	state := r.awaitCycle(1)
	if state.Totals.LogLinesLost != 7 {
		t.Errorf("totals %+v", state.Totals)
	}
	if state.Health != control.HealthHealthy || state.Collector.State != "running" || state.Mode != "standalone" || !state.Running {
		t.Errorf("state: %+v", state)
	}
	if state.Cycle.Processes != 1 || state.Store.Head == 0 || state.Registration.State != "unregistered" {
		t.Errorf("state: %+v", state)
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if state := r.State(); state.Collector.State != "stopped" {
		t.Errorf("after the stop the collector is %s", state.Collector.State)
	}
	var kinds []string
	err := r.store.Query(t.Context(), store.Query{}, func(e *event.Event) error {
		kind := e.Kind.String()
		if e.Sensor != nil {
			kind += " " + e.Sensor.What.String()
		}
		kinds = append(kinds, kind)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if first, last := kinds[0], kinds[len(kinds)-1]; first != "sensor started" || last != "sensor stopped" {
		t.Errorf("the run is %v; want it to begin with started and end with stopped", kinds)
	}
	transitions, err := r.store.Transitions(t.Context(), 10)
	if err != nil || len(transitions) != 3 {
		t.Errorf("journal: %v, %v; want begin, shutdown, finish", transitions, err)
	}
}

// TestHashesAreCounted has a process whose executable can not be looked at, because
// it is not there.
func TestHashesAreCounted(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) {
		c.Scanner.(*scanner).static[0].Process.Exe = "/nowhere"
	})
	state := r.await("a status", func(s *control.State) bool { return s.Hashes != nil && s.Hashes.Skipped > 0 })
	if len(state.Hashes.Skips) != 1 || service(state, "collection/hasher").State != "running" {
		t.Errorf("hashes are %+v, services %+v", state.Hashes, state.Services)
	}
	off := start(t, func(c *Config) { c.Hashes = nil })
	if state := off.awaitCycle(1); state.Hashes != nil || service(state, "collection/hasher").Path != "" {
		t.Errorf("without a hasher there are hashes %+v, services %+v", state.Hashes, state.Services)
	}
}

func TestServiceManagerHears(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	var ready, alive int
	var status string
	for ready == 0 || !strings.HasPrefix(status, "healthy, running: 1 processes, ") {
		select {
		case n := <-r.notices:
			status = cmp.Or(n.Status, status)
			if n.Alive {
				alive++
			}
			if n.Ready {
				ready++
				if r.State().Cycle.Count == 0 {
					t.Error("ready before the first snapshot was durable")
				}
			}
		case <-time.After(patience):
			t.Fatalf("never ready, or never said to be well: status %q", status)
		}
	}
	if alive == 0 {
		t.Error("never alive")
	}
	_ = r.stop()
	stopping := false
	for len(r.notices) > 0 {
		n := <-r.notices
		stopping = stopping || n.Stopping
		if n.Ready {
			t.Error("ready twice")
		}
	}
	if !stopping {
		t.Error("the stop was not announced")
	}
}

// TestFailureStaysAlone lets each kind of failure happen in one service and looks
// at the others.
func TestFailureStaysAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		fail func(*run)
		want func(control.Service) bool
	}{
		"panic in a scan": {"collection/collector", func(r *run) {
			r.scanner.misbehave(func(context.Context) error { panic("boom in a scan") })
		}, func(s control.Service) bool {
			return s.Panics == 1 && strings.Contains(s.LastPanic, "boom in a scan") && strings.Contains(s.LastPanic, "supervisor_test.go")
		}},
		"panic in a service": {"admin/extra", func(r *run) {
			r.extra.orders <- func() error { panic("boom in a service") }
		}, func(s control.Service) bool {
			return s.Panics == 1 && strings.Contains(s.LastPanic, "supervisor_test.go")
		}},
		"error in a service": {"admin/extra", func(r *run) {
			r.extra.orders <- func() error { return errors.New("no luck") }
		}, func(s control.Service) bool { return s.Restarts == 1 && strings.Contains(s.LastError, "no luck") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, nil)
			r.awaitCycle(1)
			c.fail(r)
			if strings.HasPrefix(c.path, "collection") {
				r.scanNow()
			}
			state := r.await("the restart", func(s *control.State) bool {
				failed := service(s, c.path)
				return c.want(failed) && failed.State == "running"
			})
			for _, s := range state.Services {
				if s.Path != c.path && (s.Restarts != 0 || s.State != "running") {
					t.Errorf("%s noticed: %+v", s.Path, s)
				}
			}
			if state.Collector.State != "running" {
				t.Errorf("the collector is %s", state.Collector.State)
			}
		})
	}
}

// scanNow shortens the interval, which starts a scan in the time of the shortest
// interval at most.
func (r *run) scanNow() {
	r.t.Helper()
	if _, err := r.Reload(r.t.Context(), collect.Update{Values: map[string]string{"collection_interval": "5"}}); err != nil {
		r.t.Fatal(err)
	}
}

func TestHangIsNamedThenAborted(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.Watchdog = MinWatchdog })
	r.awaitCycle(1)
	release := make(chan struct{})
	r.scanner.misbehave(func(context.Context) error { <-release; return errors.New("released") })
	r.scanNow()
	state := r.await("the name of what hangs", func(s *control.State) bool { return service(s, "collection/collector").State == "hung" })
	if state.Health != control.HealthUnhealthy || !strings.Contains(fmt.Sprint(state.Reasons), "collection/collector") {
		t.Errorf("health %s, reasons %v", state.Health, state.Reasons)
	}
	for len(r.notices) > 0 {
		<-r.notices
	}
	<-r.notices // this one may have been under way
	select {
	case reason := <-r.aborted:
		if !strings.Contains(reason, "collection/collector") {
			t.Errorf("aborted for %q", reason)
		}
	case <-time.After(patience):
		t.Fatal("the watchdog does not bite")
	}
	if len(r.notices) == 0 {
		t.Error("the watchdog said nothing meanwhile")
	}
	for len(r.notices) > 0 {
		if n := <-r.notices; n.Alive {
			t.Error("alive without progress")
		}
	}
	close(release)
}

// TestCrashKeepsEverything panics the collector again and again: one start, and a
// dense order.
func TestCrashKeepsEverything(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.awaitCycle(1)
	r.scanner.misbehave(func(context.Context) error { panic("again") })
	r.scanNow()
	r.await("the restart and a cycle", func(s *control.State) bool {
		return service(s, "collection/collector").Restarts >= 1 && s.Cycle.Count >= 2
	})
	_ = r.stop()
	starts := 0
	err := r.store.Query(t.Context(), store.Query{}, func(e *event.Event) error {
		if e.Kind == event.KindStart {
			starts++
		}
		return nil
	})
	if err != nil || starts != 1 {
		t.Errorf("%d starts of one process, %v", starts, err)
	}
}

// TestHungServiceDoesNotKeepOthersFromStopping: the error names it.
func TestHungServiceDoesNotKeepOthersFromStopping(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.awaitCycle(1)
	release := make(chan struct{})
	entered := make(chan struct{})
	r.extra.orders <- func() error { close(entered); <-release; return nil }
	<-entered
	err := r.stop()
	close(release)
	if !errors.Is(err, tree.ErrUnstopped) || !strings.Contains(err.Error(), "admin/extra") {
		t.Errorf("Run: %v, want ErrUnstopped naming admin/extra", err)
	}
	if r.machine.State() != fsm.CollectorStopped {
		t.Errorf("the collector is %s", r.machine.State())
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Watchdog: -1})
	for _, want := range []string{"store", "scanner", "log", "abort", "watchdog -1ns", "socket"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
}

func TestDeadState(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.awaitCycle(1)
	database := r.store.Stats().Path
	state, err := DeadState(t.Context(), database)
	if err != nil || state.Health != control.HealthNotResponding {
		t.Errorf("while another holds it: %+v, %v", state, err)
	}
	_ = r.stop()
	if err := r.store.Close(true); err != nil {
		t.Fatal(err)
	}
	state, err = DeadState(t.Context(), database)
	if state.Store.BacklogEvents != 0 || state.Mode != "standalone" {
		t.Errorf("a standalone run owes %d events in mode %s", state.Store.BacklogEvents, state.Mode)
	}
	if err != nil || state.Clean == nil || !*state.Clean || state.Health != control.HealthNotRunning || state.Collector.State != "stopped" {
		t.Errorf("stopped: %+v, %v", state, err)
	}
	if _, err := DeadState(t.Context(), database+"-none"); !IsNoStore(err) {
		t.Errorf("no store: %v", err)
	}
}

// TestCollectorThatCrashesOverTheStop comes back, carries out what it was told, and
// the run ends in order.
func TestCollectorThatCrashesOverTheStop(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.awaitCycle(1)
	scanning := make(chan struct{})
	r.scanner.misbehave(func(ctx context.Context) error {
		close(scanning)
		for r.machine.State() != fsm.CollectorShuttingDown {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		panic("at the worst moment")
	})
	if _, err := r.Reload(t.Context(), collect.Update{Values: map[string]string{collect.KeyInterval: "5"}}); err != nil {
		t.Fatal(err)
	}
	<-scanning
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
