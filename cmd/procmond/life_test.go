package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readable is what `state` may take: a second, and what starting a test binary
// on a busy machine adds.
const readable = 3 * time.Second

// stateIn asks for the state and checks how long that took.
func stateIn(t *testing.T, database string) (stateDocument, int) {
	t.Helper()
	began := time.Now()
	doc, code := readState(t, database)
	if took := time.Since(began); took > readable {
		t.Errorf("state took %v", took)
	}
	return doc, code
}

// TestStateOfEveryDaemon asks for the state of a daemon in each condition that
// it can be in; for a hung one see TestHungDaemon.
func TestStateOfEveryDaemon(t *testing.T) {
	database := newDatabase(t)
	if doc, code := stateIn(t, database); code != 3 || doc.Health != "not_running" {
		t.Errorf("no store: exit %d, %+v", code, doc)
	}
	d := startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	if doc, code := stateIn(t, database); code != 0 || doc.Health != "healthy" || doc.PID != d.cmd.Process.Pid {
		t.Errorf("running: exit %d, %+v", code, doc)
	}
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
	if doc, code := stateIn(t, database); code != 3 || doc.Clean == nil || !*doc.Clean || doc.Collector.State != "stopped" {
		t.Errorf("stopped: exit %d, %+v", code, doc)
	}
	d = startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	d.kill()
	if doc, code := stateIn(t, database); code != 3 || doc.Clean == nil || *doc.Clean || doc.Store.Head == 0 {
		t.Errorf("killed: exit %d, %+v", code, doc)
	}
}

// TestStateNeverKeepsADaemonFromStarting asks again and again while daemons
// come and go.
func TestStateNeverKeepsADaemonFromStarting(t *testing.T) {
	database := newDatabase(t)
	stop, asked := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		defer func() { asked <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
				_, _, _ = run(t, "state", "--json", "--database", database)
			}
		}
	}()
	for range 5 {
		d := startDaemon(t, database, "--interval", "5")
		d.awaitCycle(1)
		d.kill()
	}
	close(stop)
	if n := <-asked; n < 5 {
		t.Errorf("asked only %d times", n)
	}
}

// TestDamagedStoreIsSetAside flips bytes of a stopped store. The next daemon
// must run, with another epoch, and say what happened.
func TestDamagedStoreIsSetAside(t *testing.T) {
	database := newDatabase(t)
	d := startDaemon(t, database, "--interval", "5")
	before := d.awaitCycle(1)
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
	damageEverything(t, database)
	d = startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	after, code := readState(t, database)
	if code != 1 || after.Health != "degraded" || !strings.Contains(strings.Join(after.Reasons, " "), "set aside") {
		t.Errorf("exit %d, %s: %v", code, after.Health, after.Reasons)
	}
	if after.Store.Epoch == before.Store.Epoch {
		t.Error("the epoch is the same")
	}
	events := readEvents(t, database)
	if events[0].Kind != "sensor" || !strings.Contains(events[0].line, before.Store.Epoch) {
		t.Errorf("the first event does not name the epoch before: %s", events[0].line)
	}
	told := false
	for _, e := range events {
		told = told || e.Kind == "loss" && strings.Contains(e.line, "store_quarantined")
	}
	if !told {
		t.Error("no loss event tells of the quarantine")
	}
	if set, _ := filepath.Glob(database + ".corrupt-*"); len(set) != 1 {
		t.Errorf("set aside: %v", set)
	}
}

// damageEverything flips a byte in the middle of each table and log.
func damageEverything(t *testing.T, database string) {
	t.Helper()
	flipped := 0
	for _, pattern := range []string{"*.sst", "*.log", "MANIFEST-*"} {
		paths, _ := filepath.Glob(filepath.Join(database, pattern))
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(content) < 100 {
				continue
			}
			content[len(content)/2] ^= 0xff
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			flipped++
		}
	}
	if flipped == 0 {
		t.Fatal("nothing to damage")
	}
}
