package collect

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

func mustScope(t testing.TB, rules ...string) Scope {
	t.Helper()
	s, err := ParseScope(rules)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScopeMatches(t *testing.T) {
	s := mustScope(t, "pid:7", "uid:1000", "exe:/usr/lib/*/x", "name:kworker/*", "uid:4294967295")
	for _, c := range []struct {
		p    event.Process
		want bool
	}{
		{event.Process{PID: 7}, true},
		{event.Process{PID: 8}, false},
		{event.Process{UID: 1000}, true},
		{event.Process{UID: 1 << 31}, false},
		{event.Process{UID: 1<<32 - 1}, true},
		{event.Process{UID: 1000, Missing: event.Mask{Denied: event.FieldSet(0).With(event.FieldUID)}}, false},
		{event.Process{Exe: "/usr/lib/a/x"}, true},
		{event.Process{Exe: "/usr/lib/a/b/x"}, false},
		{event.Process{Name: "kworker/0:1"}, true},
	} {
		if got := s.Matches(&c.p); got != c.want {
			t.Errorf("%+v: %v", c.p, got)
		}
	}
	if none := (Scope{}); none.Matches(&event.Process{}) {
		t.Error("an empty scope matches")
	}
}

func TestScopeNamesEveryFault(t *testing.T) {
	rules := []string{"pid:x", "pid:-1", "uid:4294967296", "exe:[", "comm:a", "name:", "nothing", "pid:2147483648"}
	_, err := ParseScope(append([]string{"pid:1"}, rules...))
	for _, rule := range rules {
		if err == nil || !strings.Contains(err.Error(), `"`+rule+`"`) {
			t.Errorf("no word of %q: %v", rule, err)
		}
	}
}

func TestExcludedProcessesAreSilent(t *testing.T) {
	bubble(t, func(w *world) {
		w.cfg.Settings.Exclude = mustScope(t, "exe:/bin/p7")
		w.host.spawn(7, 5)
		w.host.spawn(8, 5).record.PPID = 7
	}, func(t *testing.T, w *world) {
		w.begin()
		w.expect("baseline", "sensor started", "scan start 8")
		w.host.with(func() { w.host.procs[7].record.UID = 3 })
		pass(DefaultInterval)
		w.expect("a change of an excluded process")
		if got := w.handle.Status().Cycle.Excluded; got != 1 {
			t.Errorf("excluded %d", got)
		}
		w.host.with(func() { w.host.procs[7].record.Exe = "/bin/sh" })
		pass(DefaultInterval)
		w.expect("came into scope", "scan start 7")
		w.host.with(func() { w.host.procs[7].record.Exe = "/bin/p7" })
		pass(DefaultInterval)
		w.host.with(func() { w.host.procs[7].record.UID = 4 })
		pass(DefaultInterval)
		w.expect("left scope, which is no stop")
		w.host.with(func() { w.host.procs[7].record.Exe = "/bin/sh" })
		pass(DefaultInterval)
		w.expect("and came back", "scan modify 7 uid")
		w.host.with(func() { w.host.procs[7].record.Exe = "/bin/p7" })
		pass(DefaultInterval)
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("whoever was reported as started gets a stop", "scan stop 7")
	})
}

func TestExcludeThatIsNewInASecondRun(t *testing.T) {
	twoRuns(t, func(w *world) {
		w.cfg.Settings.Exclude = mustScope(t, "pid:2")
		w.host.with(func() { w.host.procs[2].record.UID = 3 })
	}, func(t *testing.T, w *world) {
		w.expect("no stop", "sensor started", "sensor crashed", "loss down")
		if len(w.store.rows()) != 3 {
			t.Errorf("table %v", w.store.rows())
		}
	})
}

func TestMaxProcessesIsStable(t *testing.T) {
	bubble(t, func(w *world) {
		w.cfg.Settings.MaxProcesses = 2
		w.host.spawn(5, 10)
		w.host.spawn(6, 30)
		w.host.spawn(7, 20)
		w.host.spawn(8, 40)
	}, func(t *testing.T, w *world) {
		w.begin()
		w.expect("the oldest", "sensor started", "loss max_processes", "scan start 5", "scan start 7")
		if loss := w.store.kept()[1].Loss; loss.Count != 2 || !loss.Known {
			t.Errorf("loss %+v", loss)
		}
		health, _ := w.handle.HealthCheck(t.Context())
		if health.Level != LevelDegraded || health.Status.Cycle.LeftOut != 2 {
			t.Errorf("health %+v", health)
		}
		w.host.spawn(4, 50)
		w.host.kill(8)
		pass(DefaultInterval)
		w.expect("the known stay, the left out are silent")
		w.host.kill(5)
		pass(DefaultInterval)
		w.expect("room for the oldest that waits", "scan stop 5", "scan start 6")
		w.host.kill(6)
		w.host.with(func() { w.host.procs[7].record.State = 'Z' })
		pass(DefaultInterval)
		w.expect("room for all", "scan stop 6", "scan stop 7", "scan start 4")
		w.host.spawn(10, 60)
		w.host.spawn(11, 70)
		pass(DefaultInterval)
		w.expect("again too many", "loss max_processes", "scan start 10")
	})
}

func TestMaxProcessesThatIsLowerInASecondRun(t *testing.T) {
	twoRuns(t, func(w *world) { w.cfg.Settings.MaxProcesses = 2 }, func(_ *testing.T, w *world) {
		w.expect("no stop", "sensor started", "sensor crashed", "loss down", "loss max_processes")
		w.host.with(func() { w.host.procs[3].record.UID = 5 })
		pass(DefaultInterval)
		w.expect("left out, so silent")
		w.host.kill(1)
		pass(2 * DefaultInterval)
		w.expect("room for the third", "scan stop 1", "scan modify 3 uid")
		w.host.kill(3)
		pass(DefaultInterval)
		w.expect("a process like others", "scan stop 3")
	})
}

func TestMinLifetime(t *testing.T) {
	bubble(t, func(w *world) {
		w.cfg.Settings.MinLifetime = 10 * time.Second
		w.host.spawn(1, 1)
	}, func(t *testing.T, w *world) {
		pass(time.Minute)
		w.begin()
		w.expect("old enough", "sensor started", "scan start 1")
		pass(DefaultInterval - 2*time.Second)
		w.host.spawn(7, 7)
		w.host.spawn(8, 8)
		w.host.spawn(9, 9)
		pass(2 * time.Second)
		w.expect("held")
		if got := w.handle.Status().Held; got != 3 {
			t.Errorf("held %d", got)
		}
		w.host.kill(8)
		w.host.spawn(9, 10) // another one
		pass(7 * time.Second)
		w.expect("still held")
		pass(time.Second)
		w.expect("at its time", "scan start 7")
		if got := w.handle.Status(); got.Totals.ShortLived != 2 || got.Held != 0 {
			t.Errorf("status %+v", got)
		}
		pass(DefaultInterval)
		w.expect("found by the next scan", "scan start 9")
		zombie := w.host.spawn(11, 11)
		w.host.with(func() {
			zombie.record.State, zombie.record.StartTime = 'Z', time.Now().Add(DefaultInterval-time.Second)
		})
		pass(DefaultInterval)
		w.expect("a zombie that can't have lived long")
		if got := w.handle.Status().Totals.ShortLived; got != 3 {
			t.Errorf("short-lived %d", got)
		}
	})
}

func TestMinLifetimeAtAScan(t *testing.T) {
	bubble(t, func(w *world) {
		w.cfg.Settings.MinLifetime = time.Minute
		w.host.spawn(7, 7)
	}, func(t *testing.T, w *world) {
		w.begin()
		w.host.with(func() { w.host.procs[7].record.State = 'Z' })
		pass(DefaultInterval)
		w.expect("ended young", "sensor started")
		if got := w.handle.Status(); got.Totals.ShortLived != 1 || got.Held != 0 {
			t.Errorf("status %+v", got)
		}
		w.host.spawn(8, 8)
		pass(DefaultInterval)
		if _, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{KeyMinLifetime: "0"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.expect("no lifetime, no waiting", "sensor config", "scan start 8")
	})
}

func TestRedactionComesFirst(t *testing.T) {
	redactor, err := event.NewRedactor(nil)
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(w *world) {
		w.cfg.Settings.Redactor = redactor
		w.host.spawn(7, 5).record.Args = []string{"x", "--password=hunter2"}
	}, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.Args = []string{"x", "--password=other"} })
		pass(DefaultInterval)
		w.expect("only what is redacted is compared")
		for _, e := range w.store.kept() {
			if strings.Contains(strings.Join(e.Process.Args, " "), "hunter2") {
				t.Errorf("secret in %v", e.Process.Args)
			}
		}
		for _, p := range w.store.rows() {
			if strings.Contains(strings.Join(p.Args, " "), "hunter2") {
				t.Errorf("secret in the table: %v", p.Args)
			}
		}
	})
}

// Clipping comes before the comparison too: what the store gives back after a
// restart must be what the host shows.
func TestClippingComesFirst(t *testing.T) {
	bubble(t, func(w *world) {
		w.host.spawn(7, 5).record.Args = []string{"x", strings.Repeat("y", event.MaxArgs+1)}
	}, func(t *testing.T, w *world) {
		w.begin()
		p := w.store.kept()[1].Process
		if !p.Missing.Truncated.Has(event.FieldArgs) || len(p.Args[len(p.Args)-1]) > event.MaxArgs {
			t.Errorf("missing %+v", p.Missing)
		}
	})
}
