package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// programs is how many short programs the storm runs; 20,000 with PROCMOND_KERNEL_STORM.
func programs() int {
	if os.Getenv("PROCMOND_KERNEL_STORM") != "" {
		return 20_000
	}
	return 1000
}

// compiledStorm is what runs programs as fast as the host allows, and the program.
func compiledStorm(t testing.TB) (storm, code string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	dir := t.TempDir()
	for _, name := range []string{"storm", "code"} {
		source := filepath.Join("..", "..", "collect", "kernel", "testdata", name+".c")
		out, err := exec.CommandContext(t.Context(), cc, "-O2", "-static", "-pthread", "-o", filepath.Join(dir, name), source).CombinedOutput()
		if err != nil {
			t.Skipf("compile %s: %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, "storm"), filepath.Join(dir, "code")
}

// TestEveryProgram runs many short programs while the daemon watches: with eBPF each
// is recorded once, whole and in order; with the connector each is, and what could not
// be read is said; without events none is made up.
func TestEveryProgram(t *testing.T) {
	storm, code := compiledStorm(t)
	for _, source := range []string{"ebpf", "connector", "off"} {
		t.Run(source, func(t *testing.T) {
			database := newDatabase(t)
			d := startDaemon(t, database, "--event-driven", source, "--interval", "3600")
			doc := d.awaitCycle(1)
			if source != "off" && doc.Sources.Events != source {
				t.Skipf("no events from %s: %s", source, doc.Sources.EventsNote)
			}
			n := programs()
			cmd := exec.CommandContext(t.Context(), storm, "exec", strconv.Itoa(n), "2", code, "tag")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("storm: %v\n%s", err, out)
			}
			if code := d.stop(); code != 0 { // which takes what the kernel still has
				t.Fatalf("stop: exit %d\n%s", code, d.log)
			}
			events := readEvents(t, database)
			if source != "off" {
				events = grandchildren(cmd.Process.Pid, events)
			}
			checkPrograms(t, source, events, code, n)
		})
	}
}

// grandchildren keeps the events of what the children of a process have started, and
// losses: others on the host may do what they like.
func grandchildren(pid int, events []eventDocument) []eventDocument {
	generation := make(map[string]int)
	return slices.DeleteFunc(events, func(e eventDocument) bool {
		switch parent := generation[e.ParentID]; {
		case parent > 0 && e.Kind == "start":
			generation[e.ProcessID] = parent + 1
		case e.PID == pid && generation[e.ProcessID] == 0: // it has no child with its PID
			generation[e.ProcessID] = 1
		}
		return e.Kind != "loss" && generation[e.ProcessID] != 3
	})
}

// shortLife is what was recorded of one process, in order.
type shortLife struct {
	kinds string // "start exec stop"
	id    string // its argument; empty if it could not be read
	wrong string
	last  string // the last event, as it was read
}

func checkPrograms(t *testing.T, source string, events []eventDocument, code string, n int) {
	t.Helper()
	lives := make(map[string]*shortLife)
	for i := range events {
		e := &events[i]
		if e.Kind == "loss" {
			t.Errorf("there is a loss: %s", e.line)
		}
		if e.ProcessID == "" {
			continue
		}
		l := lives[e.ProcessID]
		if l == nil {
			l = &shortLife{}
			lives[e.ProcessID] = l
		}
		l.take(e, code)
	}
	told, nameless := make(map[string]bool), 0
	for process, l := range lives {
		switch {
		case l.id == "" && l.wrong == "":
			continue
		case l.kinds != "start exec stop":
			t.Errorf("process %s: %s; %s", process, l.kinds, l.last)
		case l.wrong != "":
			nameless++
			if source != "connector" {
				t.Errorf("process %s: %s", process, l.wrong)
			}
		case told[l.id]:
			t.Errorf("%s was told twice", l.id)
		}
		told[l.id] = true
	}
	delete(told, "")
	if source == "off" {
		if len(told) > n/10 {
			t.Errorf("%d programs are recorded without events", len(told))
		}
		return
	}
	if len(told)+nameless != n {
		t.Errorf("%d programs are recorded, and %d of which the arguments are missing, want %d", len(told), nameless, n)
	}
	t.Logf("%d programs whole, %d without arguments", len(told), nameless)
}

// take adds an event to a life.
func (l *shortLife) take(e *eventDocument, code string) {
	l.last = e.line
	l.kinds = strings.TrimSpace(l.kinds + " " + e.Kind)
	switch {
	case e.Kind == "exec" && e.Exe == code && len(e.Args) == 3:
		l.id = e.Args[1]
	case e.Kind == "exec" && (e.Missing["args"] == "failed" || e.Missing["exe"] == "failed"):
		l.wrong = "arguments or executable are missing: " + e.line
	case e.Kind == "exec" && e.Exe == code:
		l.kinds += ", and nobody says what is missing: " + e.line
	case e.Kind == "stop" && l.id != "":
		if want, err := strconv.Atoi(e.Args[2]); err != nil || e.ExitCode == nil || *e.ExitCode != want {
			l.kinds += ", with the wrong exit: " + e.line
		}
	}
}

// vforks is how many processes TestForkStorm starts that end at once; 100,000 with
// PROCMOND_KERNEL_STORM.
func vforks() int {
	if os.Getenv("PROCMOND_KERNEL_STORM") != "" {
		return 100_000
	}
	return 5000
}

// TestForkStorm: of each process of a storm both start and end are recorded, with the
// default buffer; nothing is lost, nor is it afterwards, and the memory that it took is
// given back.
func TestForkStorm(t *testing.T) {
	storm, _ := compiledStorm(t)
	database := newDatabase(t)
	d := startDaemon(t, database, "--interval", "5")
	doc := d.awaitCycle(1)
	if doc.Sources.Events == "none" {
		t.Skipf("no kernel events: %s", doc.Sources.EventsNote)
	}
	before, n := d.rss(), vforks()
	cmd := exec.CommandContext(t.Context(), storm, "vfork", strconv.Itoa(n), "2")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("storm: %v\n%s", err, out)
	}
	most := d.rss()
	doc = d.awaitCycle(d.awaitCycle(0).Cycle.Count + 1)
	lost := doc.Totals.KernelEventsLost
	if doc.Totals.LossWindows > 0 || lost["forks"]+lost["execs"]+lost["exits"]+lost["other"] > 0 {
		t.Errorf("lost %v in %d windows", lost, doc.Totals.LossWindows)
	}
	if doc = d.awaitCycle(doc.Cycle.Count + 1); doc.Totals.LossWindows > 0 {
		t.Errorf("lost %v after the storm", doc.Totals.KernelEventsLost)
	}
	after := d.rss()
	t.Logf("%.0f MB before, %.0f at the end of the storm, %.0f after it", before, most, after)
	if after > 1.5*before+10 && !raceEnabled { // the detector keeps its shadow of what was given back
		t.Errorf("%.0f MB are left of a storm, there were %.0f", after, before)
	}
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
	lives := make(map[string]string)
	for _, e := range grandchildren(cmd.Process.Pid, readEvents(t, database)) {
		lives[e.ProcessID] += e.Kind + " "
	}
	for process, kinds := range lives {
		if kinds != "start stop " {
			t.Errorf("process %s: %s", process, kinds)
		}
	}
	if len(lives) != n {
		t.Errorf("%d processes are recorded, want %d", len(lives), n)
	}
}

// rss is the daemon's resident size, in MB.
func (d *daemon) rss() float64 {
	d.t.Helper()
	statm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "statm"))
	if err != nil {
		d.t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		d.t.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / 1e6
}
