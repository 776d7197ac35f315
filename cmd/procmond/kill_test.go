package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

// sleeper is a process whose life the test knows, named by its argument.
type sleeper struct {
	id    string
	cmd   *exec.Cmd
	stdin io.Closer // the process lives until this is closed
	alive bool
}

// startSleeper returns when the process has exec'd: it has answered.
func startSleeper(t *testing.T, id string) *sleeper {
	t.Helper()
	cmd := program(context.Background(), id)
	cmd.Args[0] = "procmond-sleeper"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len(sleeperReady))); err != nil {
		t.Fatalf("sleeper %s: %v", id, err)
	}
	s := &sleeper{id: id, cmd: cmd, stdin: stdin, alive: true}
	t.Cleanup(s.end)
	return s
}

// end lets the process end and reaps it.
func (s *sleeper) end() {
	if s.alive {
		s.alive = false
		_ = s.stdin.Close()
		_ = s.cmd.Wait()
	}
}

const sleeperReady = "ready"

// sleep is what a sleeper runs.
func sleep() {
	_, _ = os.Stdout.WriteString(sleeperReady)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// kills is how often TestKill kills the daemon.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("PROCMOND_KILLS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 5
	}
	return 20
}

// TestKill kills the daemon at random moments while processes come and go. All
// that was shown must still be there, in place, and at the end each process
// must have one start, and one stop if it ended.
func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("PROCMOND_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("PROCMOND_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	database := newDatabase(t)
	var sleepers []*sleeper
	var shown []eventDocument
	for kill := range kills() {
		d := startDaemon(t, database, "--interval", "5")
		for range 1 + rng.IntN(3) {
			sleepers = append(sleepers, startSleeper(t, fmt.Sprintf("kill-test-%d-%d", seed, len(sleepers))))
		}
		if kill == 0 || rng.IntN(3) > 0 { // at least one run sees something
			d.awaitCycle(1)
		}
		pause(time.Duration(rng.IntN(300)) * time.Millisecond)
		d.kill()
		for range 1 + rng.IntN(2) {
			sleepers[rng.IntN(len(sleepers))].end()
		}
		shown = checkKept(t, database, shown, kill)
	}

	d := startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	if code := d.stop(); code != 0 {
		t.Fatalf("the last stop ended with %d:\n%s", code, d.log)
	}
	shown = checkKept(t, database, shown, kills())
	checkLives(t, shown, sleepers)
}

// pause lets a random moment pass; nothing is expected of it.
func pause(d time.Duration) { <-time.After(d) }

// checkKept reads the dead daemon's events: dense, and a continuation of those
// that were shown before.
func checkKept(t *testing.T, database string, before []eventDocument, kill int) []eventDocument {
	t.Helper()
	if _, err := os.Stat(database); err != nil {
		return nil // killed before there was a store
	}
	now := readEvents(t, database)
	t.Logf("kill %d: %d events", kill, len(now))
	checkContinues(t, before, now)
	return now
}

// checkLives compares the events with what the test knows.
func checkLives(t *testing.T, events []eventDocument, sleepers []*sleeper) {
	t.Helper()
	starts, stops := map[string]int{}, map[string]int{}
	ids := map[string][]string{} // argument -> process ids
	for _, e := range events {
		switch e.Kind {
		case "start":
			if starts[e.ProcessID]++; starts[e.ProcessID] > 1 {
				t.Errorf("process %s (pid %d %q) was started twice", e.ProcessID, e.PID, e.Args)
			}
			if len(e.Args) > 1 {
				ids[e.Args[1]] = append(ids[e.Args[1]], e.ProcessID)
			}
		case "stop":
			if stops[e.ProcessID]++; stops[e.ProcessID] > 1 || starts[e.ProcessID] == 0 {
				t.Errorf("process %s (pid %d %q) has %d stops, %d starts", e.ProcessID, e.PID, e.Args, stops[e.ProcessID], starts[e.ProcessID])
			}
		}
	}
	seen := 0
	for _, s := range sleepers {
		found := ids[s.id]
		if len(found) > 0 {
			seen++
		}
		switch {
		case s.alive && len(found) != 1:
			t.Errorf("%s is alive and has %d starts", s.id, len(found))
		case s.alive && stops[found[0]] != 0:
			t.Errorf("%s is alive and was stopped", s.id)
		case !s.alive && len(found) > 0 && stops[found[0]] != 1:
			t.Errorf("%s has ended and has %d stops", s.id, stops[found[0]])
		}
	}
	t.Logf("%d events, %d sleepers, %d of them seen", len(events), len(sleepers), seen)
	if seen == 0 || !slices.ContainsFunc(sleepers, func(s *sleeper) bool { return !s.alive && len(ids[s.id]) > 0 }) {
		t.Error("no sleeper was seen to live and end: this run proved nothing")
	}
}
