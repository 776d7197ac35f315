package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of these tests; it is only ever reached by a
// failure.
const patience = 60 * time.Second

// waitFor asks until the condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// log collects what a process prints while it runs.
type log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// program is the test binary, which is procmond when its name is procmond.
func program(ctx context.Context, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Args[0] = "procmond"
	cmd.Env = cleanEnv()
	return cmd
}

// cleanEnv is the environment without what would configure procmond.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PROCMOND_") && !strings.HasPrefix(e, "DAEMONEYE_") && !strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			env = append(env, e)
		}
	}
	return env
}

// daemon is a running procmond.
type daemon struct {
	t        testing.TB
	database string
	cmd      *exec.Cmd
	log      *log
	done     chan struct{} // closed once Wait has returned
}

// startDaemon starts procmond on a database; it is killed with the test.
func startDaemon(t testing.TB, database string, args ...string) *daemon {
	t.Helper()
	return startAs(t, "procmond", database, args...)
}

// startAs starts the test binary under another of its names.
func startAs(t testing.TB, name, database string, args ...string) *daemon {
	t.Helper()
	cmd := program(context.Background(), append([]string{"run", "--database", database}, args...)...)
	cmd.Args[0] = name
	return start(t, cmd, database)
}

// start starts cmd, which runs a daemon on database.
func start(t testing.TB, cmd *exec.Cmd, database string) *daemon {
	t.Helper()
	d := &daemon{t: t, database: database, log: new(log), done: make(chan struct{}), cmd: cmd}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait()
	}()
	t.Cleanup(d.kill)
	return d
}

// kill ends the daemon with SIGKILL and waits for its end.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// stop ends the daemon in order and returns its exit code.
func (d *daemon) stop() int {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
	return d.wait()
}

// wait returns the exit code.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		d.kill()
		d.t.Fatalf("the daemon did not end; its log:\n%s", d.log)
		return -1
	}
}

// stateDocument is the part of the state contract that these tests read.
type stateDocument struct {
	Mode      string   `json:"mode"`
	Health    string   `json:"health"`
	Reasons   []string `json:"reasons"`
	PID       int      `json:"pid"`
	Clean     *bool    `json:"clean"`
	Collector struct {
		State string `json:"state"`
	} `json:"collector"`
	Cycle struct {
		Count     uint64 `json:"count"`
		Processes int    `json:"processes"`
	} `json:"cycle"`
	Totals struct {
		KernelEventsLost map[string]uint64 `json:"kernel_events_lost"`
		LossWindows      uint64            `json:"loss_windows"`
	} `json:"totals"`
	Sources struct {
		Events           string `json:"events"`
		EventsNote       string `json:"events_note"`
		Snapshots        string `json:"snapshots"`
		EnhancedMetadata string `json:"enhanced_metadata"`
		RSSKind          string `json:"rss_kind"`
	} `json:"sources"`
	Store struct {
		Epoch string `json:"epoch"`
		Head  uint64 `json:"head"`
		Syncs uint64 `json:"syncs"`
	} `json:"store"`
	Services []struct {
		Path     string `json:"path"`
		State    string `json:"state"`
		Restarts uint64 `json:"restarts"`
	} `json:"services"`
}

// run runs procmond to its end.
func run(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, err bytes.Buffer
	cmd := program(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && !errors.As(e, new(*exec.ExitError)) {
		t.Fatal(e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// readState asks `procmond state`.
func readState(t testing.TB, database string) (stateDocument, int) {
	t.Helper()
	out, errOut, code := run(t, "state", "--json", "--database", database)
	var doc stateDocument
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("state (exit %d) is not JSON: %v\n%s\n%s", code, err, out, errOut)
	}
	return doc, code
}

// awaitCycle waits until the daemon has completed n cycles.
func (d *daemon) awaitCycle(n uint64) stateDocument {
	d.t.Helper()
	var doc stateDocument
	waitFor(d.t, "a complete cycle", func() bool {
		select {
		case <-d.done:
			d.t.Fatalf("the daemon ended with %d; its log:\n%s", d.cmd.ProcessState.ExitCode(), d.log)
		default:
		}
		out, _, _ := run(d.t, "state", "--json", "--database", d.database)
		return json.Unmarshal([]byte(out), &doc) == nil && doc.Cycle.Count >= n
	})
	return doc
}

// eventDocument is the part of the event contract that these tests read.
type eventDocument struct {
	Seq       uint64            `json:"seq"`
	Epoch     string            `json:"epoch"`
	Kind      string            `json:"kind"`
	Source    string            `json:"source"`
	ProcessID string            `json:"process_id"`
	ParentID  string            `json:"parent_id"`
	PID       int               `json:"pid"`
	Name      string            `json:"name"`
	Exe       string            `json:"exe"`
	Args      []string          `json:"args"`
	ExitCode  *int              `json:"exit_code"`
	Missing   map[string]string `json:"missing"`
	line      string
}

// readEvents asks `procmond events` for everything.
func readEvents(t testing.TB, database string) []eventDocument {
	t.Helper()
	out, errOut, code := run(t, "events", "-o", "json", "--limit", "0", "--database", database)
	if code != 0 {
		t.Fatalf("events: exit %d: %s", code, errOut)
	}
	var events []eventDocument
	for line := range strings.Lines(out) {
		e := eventDocument{line: line}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("event is not JSON: %v\n%s", err, line)
		}
		events = append(events, e)
	}
	return events
}

// newDatabase is a path for a store that does not exist yet.
func newDatabase(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "processes.db")
}

// checkContinues compares what was shown before with what is there now.
func checkContinues(t testing.TB, before, now []eventDocument) {
	t.Helper()
	if len(now) < len(before) {
		t.Fatalf("%d events were shown, %d are there", len(before), len(now))
	}
	for i := range now {
		if now[i].Seq != uint64(i+1) {
			t.Fatalf("event %d has sequence %d", i+1, now[i].Seq)
		}
		if i < len(before) && now[i].line != before[i].line {
			t.Fatalf("event %d was\n%sand is\n%s", i+1, before[i].line, now[i].line)
		}
	}
}

// contains reports whether something was printed.
func contains(l *log, text string) bool { return strings.Contains(l.String(), text) }
