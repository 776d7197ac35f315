package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownWatcher is procmond with one source of events.
type ownWatcher struct{ program, source string }

func (w *ownWatcher) name() string { return "procmond-" + w.source }

// missing starts a daemon to see whether it takes that source.
func (w *ownWatcher) missing(b *testing.B) string {
	b.Helper()
	dir := benchDir(b)
	defer func() { _ = os.RemoveAll(dir) }()
	d := w.daemon(b, dir)
	defer d.kill()
	events := "nowhere"
	waitFor(b, "the first snapshot", func() bool {
		select {
		case <-d.done:
			return true
		default:
		}
		var doc struct {
			Cycle   struct{ Count uint64 }
			Sources struct{ Events string }
		}
		out, _, _ := run(b, "state", "--json", "--database", d.database)
		if json.Unmarshal([]byte(out), &doc) != nil || doc.Cycle.Count == 0 {
			return false
		}
		events = doc.Sources.Events
		return true
	})
	if want := strings.Replace(w.source, "off", "none", 1); events != want {
		first, _, _ := strings.Cut(d.log.String(), "\n")
		return "its events come from " + events + ": " + first
	}
	return ""
}

func (w *ownWatcher) daemon(b *testing.B, dir string) *daemon {
	b.Helper()
	database := filepath.Join(dir, "processes.db")
	cmd := exec.Command(w.program, "run", "--database", database, "--interval", "30", "--event-driven", w.source, "--log-level", "warning")
	cmd.Env = cleanEnv()
	return start(b, cmd, database)
}

func (w *ownWatcher) start(b *testing.B, dir string) watcherRun {
	b.Helper()
	d := w.daemon(b, dir)
	d.awaitCycle(1)
	return &ownRun{b, d}
}

type ownRun struct {
	b *testing.B
	d *daemon
}

func (r *ownRun) pids() []int { return []int{r.d.cmd.Process.Pid} }

func (r *ownRun) end() {
	if code := r.d.stop(); code != 0 {
		r.b.Fatalf("procmond ended with %d: %s", code, r.d.log)
	}
}

// found asks the store.
func (r *ownRun) found(tag string) int {
	out, errOut, code := run(r.b, "events", "-o", "json", "--limit", "0", "--kind", "start,exec", "--database", r.d.database)
	if code != 0 {
		r.b.Fatalf("events: %s", errOut)
	}
	if losses, _, _ := run(r.b, "events", "-o", "json", "--limit", "0", "--kind", "loss", "--database", r.d.database); losses != "" {
		say("losses: %s", losses)
	}
	return distinctIn([]byte(out), tag)
}

// forkstat prints what the process connector tells, with what it finds in /proc.
type forkstat struct{}

func (*forkstat) name() string { return "forkstat" }

func (*forkstat) missing(*testing.B) string {
	if _, err := exec.LookPath("forkstat"); err != nil {
		return err.Error()
	}
	if os.Getuid() != 0 {
		return "it must be run as root"
	}
	return ""
}

func (*forkstat) start(b *testing.B, dir string) watcherRun {
	b.Helper()
	r := &printing{b: b, path: filepath.Join(dir, "out")}
	r.begin("forkstat")
	return r
}

// printing is a tool whose standard output is what it has to tell.
type printing struct {
	b    *testing.B
	path string
	cmd  *exec.Cmd
}

func (r *printing) begin(name string, args ...string) {
	r.b.Helper()
	out, err := os.Create(r.path)
	if err != nil {
		r.b.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	r.cmd = exec.Command(name, args...)
	r.cmd.Stdout, r.cmd.Stderr = out, out
	if err := r.cmd.Start(); err != nil {
		r.b.Fatal(err)
	}
	r.b.Cleanup(func() { _ = r.cmd.Process.Kill() })
}

func (r *printing) pids() []int { return []int{r.cmd.Process.Pid} }

func (r *printing) end() { interrupt(r.b, r.cmd) }

func (r *printing) found(tag string) int { return distinct(r.b, r.path, tag) }

// interrupt lets a tool end.
func interrupt(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatalf("%v has ended: %v", cmd.Args, err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // each has a code of its own for a signal
}
