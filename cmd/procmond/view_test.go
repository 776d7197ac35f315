package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/supervisor/control"
)

var viewNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *time.Time {
	at := viewNow.Add(-d)
	return &at
}

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update if this is meant): %s", path, diff)
	}
}

func busyState() *control.State {
	return &control.State{
		Mode: "standalone", Running: true, Health: control.HealthDegraded, PID: 4711, Version: "1.2.3", StartedAt: before(26 * time.Hour),
		Reasons:      []string{"Service collection/collector keeps failing and rests until 12:01: boom\x1b[2J.", "The disk is slow."},
		Collector:    control.Collector{State: "running", Since: before(26 * time.Hour), Cause: "standalone", Activity: "append", ActivityMS: 2500, LastError: "scan: no"},
		Registration: control.Registration{State: "unregistered"},
		Config:       control.ConfigState{Version: 3, Pending: []string{"collection_interval"}},
		Sources:      control.Sources{Events: "none", Snapshots: "procfs", EnhancedMetadata: "on", RSSKind: "exact"},
		Interval:     control.Interval{ConfiguredS: 30, CurrentS: 45, Reason: "pressure"},
		Cycle:        control.Cycle{Count: 12, LastAt: before(3 * time.Second), DurationMS: 12.34, Processes: 321, Events: 2, LeftOut: 5},
		Totals:       control.Totals{Events: 999, ScansFailed: 1},
		Hashes: &control.Hashes{
			Hashed: 40, Bytes: 33 << 20, Cached: 39, Waiting: 2, Skipped: 3, Deferred: 1,
			Skips: []control.HashSkip{{Reason: "permission denied", Count: 2}, {Reason: "too big", Count: 1}},
		},
		Store: control.Store{
			Path: "/var/lib/daemoneye/processes.db", InService: false, Reason: "no space left", Since: before(time.Minute),
			Epoch: strings.Repeat("ab", 16), Head: 1000, Kept: 990, Floor: 11, Bytes: 5 << 20, Removed: 10,
		},
		Services: []control.Service{
			{Path: "collection/collector", State: "backoff", Since: before(time.Minute), Restarts: 3, Panics: 1, LastError: "boom", LastPanic: "boom at x.go:1"},
			{Path: "admin/watchdog", State: "running", Since: before(26 * time.Hour)},
		},
		Loss:        []control.Loss{{Cause: "down", Count: 1}, {Cause: "max_processes", Count: 2, Missing: 40}},
		Transitions: []control.Transition{{Machine: "collector", From: "waiting_for_agent", To: "running", Cause: "standalone", At: *before(26 * time.Hour)}},
	}
}

func TestStateText(t *testing.T) {
	clean := true
	dead := &control.State{
		Mode: "standalone", Health: control.HealthNotRunning, Clean: &clean, AsOf: before(time.Hour), Reasons: []string{"No daemon runs."},
		Collector: control.Collector{State: "stopped", Since: before(time.Hour), Cause: "shutdown"},
		Store:     control.Store{Path: "/p.db", Epoch: strings.Repeat("00", 16), Head: 0, Floor: 1},
	}
	last := &fatalRecord{Time: *before(2 * time.Hour), Code: exitStorage, Reason: "write WAL: input/output error"}
	silent := &control.State{Mode: "standalone", Running: true, Health: control.HealthNotResponding, PID: 7, Reasons: []string{"It does not answer."}}
	golden(t, "state-busy.golden", stateText(busyState(), nil, false, 120, viewNow))
	golden(t, "state-dead.golden", stateText(dead, last, false, 120, viewNow))
	golden(t, "state-silent.golden", stateText(silent, nil, false, 120, viewNow))
	if text := stateText(busyState(), nil, true, 120, viewNow); !strings.Contains(text, "\x1b[33mdegraded\x1b[0m") {
		t.Error("a terminal gets no colours")
	}
}

const startEvent = `{"seq":7,"kind":"start","source":"scan","time":"2026-03-01T11:59:58.5Z","pid":12,"ppid":1,"uid":1000,` +
	`"name":"cat","exe":"/usr/bin/cat","args":["cat","/etc/\\x1bhosts"],"exit_code":null,"changes":[],"missing":{}}`

func TestEventLines(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	for _, c := range []struct{ name, event, want string }{
		{"start", startEvent, "11:59:58.500 start       12       1  1000 /usr/bin/cat /etc/\\x1bhosts\n"},
		{
			"stop", `{"kind":"stop","source":"recovered","time":"2026-03-01T11:59:58Z","pid":12,"exe":"/bin/x","args":["x"],"exit_code":3}`,
			"11:59:58.000 stop        12       -     - /bin/x (exit 3) (recovered)\n",
		},
		{
			"kernel thread", `{"kind":"stop","time":"2026-03-01T11:59:58Z","pid":2,"name":"kthreadd","exe":null,"args":null,"signal":9}`,
			"11:59:58.000 stop         2       -     - [kthreadd] (signal 9)\n",
		},
		{
			"another user's", `{"kind":"start","time":"2026-03-01T11:59:58Z","pid":2,"name":"bash","exe":null,"args":["-bash","-i"],"missing":{"exe":"denied"}}`,
			"11:59:58.000 start        2       -     - -bash -i\n",
		},
		{
			"gone", `{"kind":"start","time":"2026-03-01T11:59:58Z","pid":2,"name":"bash","exe":null,"args":null,"missing":{"exe":"gone","args":"gone"}}`,
			"11:59:58.000 start        2       -     - bash\n",
		},
		{
			"login shell", `{"kind":"start","time":"2026-03-01T11:59:58Z","pid":2,"exe":"/usr/bin/bash","args":["-bash"]}`,
			"11:59:58.000 start        2       -     - /usr/bin/bash\n",
		},
		{
			"versioned", `{"kind":"start","time":"2026-03-01T11:59:58Z","pid":2,"exe":"/usr/bin/python3.14","args":["/usr/bin/python3","x.py"]}`,
			"11:59:58.000 start        2       -     - /usr/bin/python3.14 x.py\n",
		},
		{
			"under another name", `{"kind":"start","time":"2026-03-01T11:59:58Z","pid":2,"exe":"/tmp/miner","args":["[kworker/0:1]","-q"]}`,
			"11:59:58.000 start        2       -     - /tmp/miner as [kworker/0:1] -q\n",
		},
		{
			"with a title", `{"kind":"start","time":"2026-03-01T11:59:58Z","pid":2,"exe":"/usr/sbin/nginx","args":["nginx: master /usr/sbin/nginx"]}`,
			"11:59:58.000 start        2       -     - /usr/sbin/nginx as nginx: master /usr/sbin/nginx\n",
		},
		{
			"modify", `{"kind":"modify","time":"2026-03-01T11:59:58Z","pid":2,"exe":"/x","changes":[{"field":"uid","old":"0","new":"1"}]}`,
			"11:59:58.000 modify       2       -     - /x [uid: 0 -> 1]\n",
		},
		{
			"loss", `{"kind":"loss","time":"2026-03-01T11:59:58Z","loss":{"cause":"down","count":3,"hint":"look"}}`,
			"11:59:58.000 loss         -       -     - down: 3 lost: look\n",
		},
		{
			"sensor", `{"kind":"sensor","time":"2026-03-01T11:59:58Z","sensor":{"what":"started","detail":"Now."}}`,
			"11:59:58.000 sensor       -       -     - started: Now.\n",
		},
	} {
		got, err := eventLines{}.line([]byte(c.event))
		if err != nil || got != c.want {
			t.Errorf("%s: got %q (%v), want %q", c.name, got, err, c.want)
		}
	}
	old := eventLines{now: time.Date(2026, 3, 2, 11, 59, 58, 0, time.UTC)}
	if got, err := old.line([]byte(`{"kind":"stop","time":"2026-03-01T11:59:58Z","pid":12,"exe":"/bin/x"}`)); err != nil || got != "Mar  1 11:59 stop        12       -     - /bin/x\n" {
		t.Errorf("of yesterday: %q (%v)", got, err)
	}
	short, err := eventLines{width: 70}.line([]byte(strings.Replace(startEvent, `hosts"`, strings.Repeat("é", 500)+`"`, 1)))
	if n := len([]rune(short)); err != nil || n > 71 {
		t.Errorf("a line of %d characters on a terminal of 70 (%v)", n, err)
	}
	hostile, err := eventLines{paint: true}.line([]byte(`{"kind":"\u001b[2J","exe":"/a\u001b[31m\nb","time":"2026-03-01T11:59:58Z"}`))
	if err != nil || strings.Contains(hostile, "[2J\n") || strings.Count(hostile, "\n") != 1 || strings.Contains(hostile, "\x1b[31m") {
		t.Errorf("a hostile event does something to the terminal: %q %v", hostile, err)
	}
}

func TestLastWords(t *testing.T) {
	database := filepath.Join(t.TempDir(), "p.db")
	var logged, stderr bytes.Buffer
	logger := logrus.New()
	logger.SetOutput(&logged)
	var ended []exitCode
	l := &lastWords{database: database, log: logrus.NewEntry(logger), stderr: &stderr, flush: func() {}, exit: func(c exitCode) { ended = append(ended, c) }}
	l.watchdog("service x hangs")
	if len(ended) != 1 || ended[0] != exitWatchdog {
		t.Errorf("ended %v, want %d", ended, exitWatchdog)
	}
	if !strings.Contains(stderr.String(), "TestLastWords") || !strings.Contains(logged.String(), "service x hangs") {
		t.Errorf("the goroutines or the reason are not in the log")
	}
	r := readFatal(database)
	if r == nil || r.Reason != "service x hangs" || r.Code != exitWatchdog || r.PID != os.Getpid() {
		t.Fatalf("side file %+v", r)
	}
	if err := forgetFatal(database); err != nil || readFatal(database) != nil {
		t.Errorf("forget: %v", err)
	}
	if err := forgetFatal(database); err != nil {
		t.Errorf("forget nothing: %v", err)
	}
	if err := os.WriteFile(database+fatalSuffix, []byte("not JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := readFatal(database); r != nil {
		t.Errorf("nonsense is read as %+v", r)
	}
}
