package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect/event"
)

// manager is the receiving end of NOTIFY_SOCKET.
type manager struct {
	conn *net.UnixConn
	path string

	mu   sync.Mutex // guards seen
	seen []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // t.TempDir may pass the limit of a socket's path
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{path: filepath.Join(dir, "s")}
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(m.receive)
	t.Cleanup(func() {
		_ = m.conn.Close()
		wg.Wait()
		_ = os.RemoveAll(dir)
	})
	return m
}

func (m *manager) receive() {
	buf := make([]byte, 4096)
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			return
		}
		m.mu.Lock()
		m.seen = append(m.seen, strings.Split(string(buf[:n]), "\n")...)
		m.mu.Unlock()
	}
}

// index is where the first line that begins so stands at or after from, -1 if
// there is none.
func (m *manager) index(from int, prefix string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.seen[from:], func(s string) bool { return strings.HasPrefix(s, prefix) })
	if i < 0 {
		return -1
	}
	return from + i
}

func (m *manager) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.seen)
}

// startConfigured starts a daemon with a configuration file and extra environment.
func startConfigured(t *testing.T, config string, environ ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, database: newDatabase(t), log: new(log), done: make(chan struct{})}
	d.cmd = program(context.Background(), "run", "--database", d.database, "--config", config)
	d.cmd.Env = append(d.cmd.Env, environ...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(d.done)
		_ = d.cmd.Wait()
	})
	t.Cleanup(d.kill)
	return d
}

func writeConfig(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServiceManager follows one life: ready with the first snapshot, alive,
// reloaded, stopping.
func TestServiceManager(t *testing.T) {
	m := newManager(t)
	config := filepath.Join(t.TempDir(), "procmond.yaml")
	writeConfig(t, config, "interval: 5\n")
	d := startConfigured(t, config, "NOTIFY_SOCKET="+m.path)
	waitFor(t, "READY", func() bool { return m.index(0, "READY=1") >= 0 })
	var doc stateDocument
	waitFor(t, "an answer", func() bool { // a loaded machine may not give one within a second
		doc, _ = readState(t, d.database)
		return doc.Health != "not_responding"
	})
	if doc.Cycle.Count == 0 {
		t.Errorf("ready before the first snapshot: %+v\n%s", doc, d.log)
	}
	waitFor(t, "WATCHDOG", func() bool { return m.index(0, "WATCHDOG=1") >= 0 })
	waitFor(t, "STATUS", func() bool { return m.index(0, "STATUS=") >= 0 })

	writeConfig(t, config, "interval: 3600\nlog_level: debug\nretention: 24h\n")
	seen := m.count()
	d.signal(syscall.SIGHUP)
	waitFor(t, "RELOADING", func() bool { return m.index(seen, "RELOADING=1") >= 0 })
	at := m.index(seen, "RELOADING=1")
	waitFor(t, "READY after it", func() bool { return m.index(at, "READY=1") > 0 })
	if m.index(at, "MONOTONIC_USEC=") != at+1 {
		t.Error("no MONOTONIC_USEC with RELOADING")
	}
	waitFor(t, "the new interval", func() bool { return d.interval() == 3600 })
	if text := d.log.String(); !strings.Contains(text, "retention") || !strings.Contains(text, "wait for a restart") {
		t.Errorf("the log does not say that retention waits for a restart:\n%s", text)
	}

	writeConfig(t, config, "interval: 1\nmax_processes: many\n")
	seen = m.count()
	d.signal(syscall.SIGHUP)
	waitFor(t, "the end of a reload with faults", func() bool {
		at := m.index(seen, "RELOADING=1")
		return at >= 0 && m.index(at, "READY=1") >= 0
	})
	for _, want := range []string{"procmond.yaml:1: interval", "procmond.yaml:2: max_processes"} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("the log does not name the fault %s:\n%s", want, d.log)
		}
	}
	if got := d.interval(); got != 3600 {
		t.Errorf("interval %v after a reload with faults, want 3600", got)
	}

	if code := d.stop(); code != 0 {
		t.Errorf("stop: exit %d\n%s", code, d.log)
	}
	if m.index(0, "STOPPING=1") < 0 {
		t.Error("no STOPPING")
	}
}

func (d *daemon) signal(sig os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// interval is what state says.
func (d *daemon) interval() float64 {
	d.t.Helper()
	out, _, _ := run(d.t, "state", "--json", "--database", d.database)
	var doc struct {
		Interval struct {
			ConfiguredS float64 `json:"configured_s"`
		} `json:"interval"`
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		d.t.Fatal(err)
	}
	return doc.Interval.ConfiguredS
}

// TestSecondDaemon and the two after it look at exit codes of real processes.
func TestSecondDaemon(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "5")
	d.awaitCycle(1)
	_, stderr, code := run(t, "run", "--database", d.database)
	if code != int(exitInUse) || !strings.Contains(stderr, "in use") || !strings.Contains(stderr, "state --database "+d.database) {
		t.Errorf("exit %d, want %d: %s", code, exitInUse, stderr)
	}
	if _, stderr, code := run(t, "store", "verify", "--database", d.database); code != int(exitInUse) {
		t.Errorf("verify of a running daemon's store: exit %d: %s", code, stderr)
	}
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d", code)
	}
	if out, stderr, code := run(t, "store", "verify", "--database", d.database); code != 0 || !strings.Contains(out, "Nothing is wrong") {
		t.Errorf("verify: exit %d\n%s%s", code, out, stderr)
	}
	out, _, code := run(t, "state", "--database", d.database)
	if code != int(exitNotRunning) || !strings.Contains(out, "in order") {
		t.Errorf("state after a stop: exit %d\n%s", code, out)
	}
}

// TestHungDaemon stops a daemon in its tracks: state must still answer.
func TestHungDaemon(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "5")
	d.awaitCycle(1)
	d.signal(syscall.SIGSTOP)
	began := time.Now()
	doc, code := readState(t, d.database)
	if took := time.Since(began); took > 2*time.Second { // a second, and what a loaded machine adds
		t.Errorf("state took %v", took)
	}
	if code != int(exitUnhealthy) || doc.Health != "not_responding" || doc.PID != d.cmd.Process.Pid {
		t.Errorf("exit %d, health %s, pid %d; want %d, not_responding, %d", code, doc.Health, doc.PID, exitUnhealthy, d.cmd.Process.Pid)
	}
}

// TestSecondSignal: the first one is handled while the second arrives.
func TestSecondSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger := logrus.New()
		logger.SetOutput(io.Discard)
		d := &daemonRun{log: logrus.NewEntry(logger)}
		signals := make(chan os.Signal) // sent by the test
		done := make(chan error, 1)
		go func() { done <- d.attend(func() {}, signals, nil, nil) }()
		signals <- syscall.SIGTERM
		signals <- syscall.SIGINT
		<-time.After(secondSignalAfter - 1)
		signals <- syscall.SIGTERM
		synctest.Wait()
		if len(done) > 0 {
			t.Fatalf("ended by signals of the same moment: %v", <-done)
		}
		<-time.After(1)
		signals <- syscall.SIGTERM
		if err := <-done; exitCodeOf(err) != exitForced {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestTwoSignalsAtOnce: what timeout(1) sends is one request to stop in order.
func TestTwoSignalsAtOnce(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "5")
	d.awaitCycle(1)
	d.signal(syscall.SIGSTOP) // both are there when it goes on
	d.signal(syscall.SIGTERM)
	d.signal(syscall.SIGINT)
	d.signal(syscall.SIGCONT)
	if code := d.wait(); code != 0 {
		t.Errorf("exit %d\n%s", code, d.log)
	}
}

// TestBrokenPipe: a reader that goes away ends events quietly.
func TestBrokenPipe(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "5")
	d.awaitCycle(1)
	cmd := program(t.Context(), "events", "--follow", "-o", "json", "--database", d.database)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	startSleeper(t, "broken-pipe") // something to write
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 0) || stderr.Len() > 0 {
		t.Errorf("ended with %v and said %q", err, stderr.String())
	}
}

// scriptedSource is a store with as many events as its head says.
type scriptedSource struct {
	mu   sync.Mutex // guards head
	head uint64
	more chan struct{} // closed by the test when there is more; capacity 0, only closed
}

func (s *scriptedSource) Head() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

func (s *scriptedSource) Wait(ctx context.Context, _ event.Epoch, after uint64) (uint64, error) {
	if head := s.Head(); head > after {
		return head, nil
	}
	select {
	case <-s.more:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.head > after {
			return s.head, nil
		}
		<-ctx.Done()
		return 0, ctx.Err()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *scriptedSource) Read(_ context.Context, _ event.Epoch, from uint64, limit int, fn func(uint64, []byte) error) error {
	for seq := from; seq <= s.Head() && limit > 0; seq, limit = seq+1, limit-1 {
		e := &event.Event{Seq: seq, Kind: event.KindStart, Process: event.Process{PID: int32(seq), Exe: "/bin/x"}}
		if err := fn(seq, event.Append(nil, e)); err != nil {
			return err
		}
	}
	return nil
}

func TestLiveView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &scriptedSource{head: 5, more: make(chan struct{})}
		var out strings.Builder
		view := newLiveView(source, eventLines{}, func(context.Context) io.Writer { return &out })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = view.Serve(ctx) })
		synctest.Wait()
		source.mu.Lock()
		source.head = 8
		source.mu.Unlock()
		close(source.more)
		synctest.Wait()
		cancel()
		wg.Wait()
		if n := strings.Count(out.String(), "\n"); n != 3 || !strings.Contains(out.String(), " 6       0") {
			t.Errorf("want the three new events, got %q", out.String())
		}

		out.Reset()
		source.mu.Lock()
		source.head = 8 + liveLag + 1
		source.mu.Unlock()
		ctx, cancel = context.WithCancel(t.Context())
		wg.Go(func() { _ = view.Serve(ctx) })
		synctest.Wait()
		cancel()
		wg.Wait()
		if !strings.HasPrefix(out.String(), "2001 events are not shown") {
			t.Errorf("too many are skipped and counted, got %.100q", out.String())
		}
	})
}
