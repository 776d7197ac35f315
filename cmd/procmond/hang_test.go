package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/portable"
)

// hangingScanner takes one good snapshot and hangs in the second, as a reader of
// a stuck file system does.
type hangingScanner struct {
	collect.Scanner
	scans int
}

func (s *hangingScanner) Scan(ctx context.Context, full bool, snap *collect.Snapshot) error {
	if s.scans++; s.scans > 1 {
		hangHere()
	}
	return s.Scanner.Scan(ctx, full, snap)
}

// hangHere waits for ever; the channel keeps the runtime from calling it a
// deadlock.
func hangHere() { <-make(chan struct{}) }

// hang is procmond on a host that hangs.
func hang() {
	p := invocation{args: os.Args[1:], environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}
	p.scanner = func() (collect.Scanner, error) {
		scanner, err := portable.New(portable.Config{})
		return &hangingScanner{Scanner: scanner}, err
	}
	os.Exit(int(p.main()))
}

// TestHang lets a scan hang: state must name the collector, then the watchdog
// must end the process with its goroutines in the log and the reason beside the
// database.
func TestHang(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	d := startAs(t, "procmond-hangs", database, "--interval", "5", "--watchdog", "15s")
	d.awaitCycle(1)
	waitFor(t, "state to name what hangs", func() bool {
		doc, code := readState(t, database)
		reasons := strings.Join(doc.Reasons, " ")
		return code == int(exitUnhealthy) && doc.Health == "unhealthy" && strings.Contains(reasons, "collection/collector")
	})
	if code := d.wait(); code != int(exitWatchdog) {
		t.Fatalf("exit %d, want %d\n%s", code, exitWatchdog, d.log)
	}
	for _, want := range []string{"hangHere", "goroutine ", "collection/collector"} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("%q is not in the log:\n%.2000s", want, d.log)
		}
	}
	// On a host as busy as one with tests may be, the store is not read within state's second.
	waitFor(t, "state to say it afterwards", func() bool {
		out, _, code := run(t, "state", "--database", database)
		return code == int(exitNotRunning) && strings.Contains(out, "no progress")
	})

	began := time.Now()
	next := startDaemon(t, database, "--interval", "5")
	next.awaitCycle(1)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the next start took %v", took)
	}
	events := readEvents(t, database)
	if !slices.ContainsFunc(events, func(e eventDocument) bool { return e.Kind == "sensor" && strings.Contains(e.line, "crashed") }) {
		t.Error("the next run does not say that the one before crashed")
	}
}
