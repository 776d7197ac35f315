package collect

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// bubble runs a test with a collector being served, and stops it.
func bubble(t *testing.T, prepare func(w *world), test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if prepare != nil {
			prepare(w)
		}
		w.serve(w.collector())
		test(t, w)
		if err := w.stop(); !errors.Is(err, context.Canceled) && !errors.Is(err, errDone) {
			t.Errorf("Serve ended with %v", err)
		}
		w.checkStore()
	})
}

func (w *world) expect(what string, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.store.take()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestRunBeginsWithSensorAndBaseline(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(1, 1); w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.expect("before begin", "sensor started")
		pass(time.Hour)
		w.expect("still waiting")
		w.begin()
		w.expect("baseline", "scan start 1", "scan start 7")
		w.host.spawn(9, 9)
		pass(DefaultInterval)
		w.expect("second scan", "scan start 9")
		if got := w.handle.Status().Cycle; got.Count != 2 || got.Processes != 3 || got.Events != 1 {
			t.Errorf("cycle %+v", got)
		}
	})
}

func TestParents(t *testing.T) {
	bubble(t, func(w *world) {
		w.host.spawn(1, 1)
		w.host.spawn(20, 30).record.PPID = 30 // the child has the lower PID
		w.host.spawn(30, 20)
		w.host.spawn(40, 40).record.PPID = 99
	}, func(t *testing.T, w *world) {
		w.begin()
		w.expect("starts", "sensor started", "scan start 1", "scan start 30", "scan start 20", "scan start 40")
		starts := w.store.kept()[1:]
		if starts[2].Process.ParentID != starts[1].Process.ID {
			t.Error("a child in the same batch does not know its parent")
		}
		if p := starts[3].Process; !p.ParentID.IsZero() || !p.Missing.Gone.Has(event.FieldParent) {
			t.Errorf("unknown parent: %v, missing %+v", p.ParentID, p.Missing)
		}
		if p := starts[0].Process; p.Missing.Absent().Has(event.FieldParent) {
			t.Error("process 1 has no parent, which is known")
		}
		w.host.with(func() { w.host.procs[20].record.PPID = 1 })
		pass(DefaultInterval)
		w.expect("reparented", "scan modify 20 parent_id")
		last := w.store.kept()[len(w.store.kept())-1]
		if want := starts[0].Process.ID.String(); last.Changes[0].New != want || last.Changes[0].Old != starts[1].Process.ID.String() {
			t.Errorf("changes %v", last.Changes)
		}
	})
}

func TestReuseOfAPIDIsAStopAndAStart(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.host.spawn(7, 6)
		pass(DefaultInterval)
		w.expect("reuse", "sensor started", "scan start 7", "scan stop 7", "scan start 7")
		if w.store.kept()[1].Process.ID == w.store.kept()[3].Process.ID {
			t.Error("two processes have one id")
		}
		stop := w.store.kept()[2]
		if stop.NotBefore.IsZero() || stop.NotBefore.After(stop.Time) || stop.Process.Exe == "" || !stop.Process.Missing.Gone.Has(event.FieldExit) {
			t.Errorf("stop %+v", stop)
		}
	})
}

func TestUnknownStartIsNotAnotherProcess(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5); w.host.spawn(8, 0) }, func(_ *testing.T, w *world) {
		w.begin()
		w.host.with(func() { w.host.procs[7].record.StartTicks, w.host.procs[8].record.StartTicks = 0, 9 })
		pass(DefaultInterval)
		w.expect("unknown", "sensor started", "scan start 8", "scan start 7")
		w.host.with(func() { w.host.procs[8].record.StartTicks = 10 })
		pass(DefaultInterval)
		w.expect("known by now", "scan stop 8", "scan start 8")
	})
}

func TestZombies(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5); w.host.spawn(8, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.host.with(func() {
			w.host.procs[7].record.State = 'Z'
			w.host.procs[7].record.Exe = ""
			w.host.procs[7].exit = &event.Exit{Code: 3}
			w.host.procs[8].record.State, w.host.procs[8].record.Threads = 'Z', 2
		})
		zombie := w.host.spawn(9, 6)
		w.host.with(func() { zombie.record.State = 'Z' })
		pass(DefaultInterval)
		w.expect("ended", "sensor started", "scan start 7", "scan start 8", "scan stop 7", "scan start 9", "scan stop 9")
		if stop := w.store.kept()[3]; stop.Exit == nil || stop.Exit.Code != 3 || stop.Process.Exe != "/bin/p7" {
			t.Errorf("stop of a zombie: %+v", stop)
		}
		pass(5 * DefaultInterval)
		w.host.kill(7)
		w.host.kill(9)
		pass(DefaultInterval)
		w.expect("reaped")
		if got := w.store.alive(); len(w.store.rows()) != 1 || got[0] != 8 {
			t.Errorf("table %v, alive %v", w.store.rows(), got)
		}
	})
}

func TestZombieIsRememberedAcrossRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		w.serve(w.collector())
		w.begin()
		w.host.with(func() { w.host.procs[7].record.State = 'Z' })
		pass(DefaultInterval)
		_ = w.stop()
		w.store.take()
		w.newRun()
		w.serve(w.collector())
		w.begin()
		w.expect("second run", "sensor started", "sensor crashed", "loss down")
		w.host.spawn(7, 5) // the PID again, within the same tick
		pass(DefaultInterval)
		w.expect("reused in one tick", "scan start 7")
		_ = w.stop()
		for _, p := range w.store.rows() {
			if p.Generation != 1 || p.PID != 7 {
				t.Errorf("process %d of generation %d, want 7 of generation 1", p.PID, p.Generation)
			}
		}
		if len(w.store.rows()) != 1 {
			t.Errorf("table %v", w.store.rows())
		}
		w.checkStore()
	})
}

func TestListingThatMissesAProcess(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5); w.host.spawn(8, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.with(func() { w.host.missed[7] = true })
		pass(DefaultInterval)
		w.expect("found by asking again")
		w.host.with(func() { w.host.missed[7], w.host.probeErr = true, errBroken })
		pass(DefaultInterval)
		w.expect("not sure")
		if got := w.handle.Status().Cycle.Unconfirmed; got != 1 {
			t.Errorf("unconfirmed %d", got)
		}
		w.host.with(func() { w.host.probeErr = nil })
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("gone", "scan stop 7")
	})
}

func TestExecModifyAndWhatCouldNotBeRead(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.UID, w.host.procs[7].record.Args = 5, []string{"a b", "c"} })
		pass(DefaultInterval)
		w.expect("modify", "scan modify 7 args uid")
		if got := w.store.kept()[len(w.store.kept())-1].Changes; got[0].Old != "p7" || got[0].New != "'a b' c" || got[1].New != "5" {
			t.Errorf("changes %v", got)
		}
		w.host.with(func() { w.host.procs[7].record.Exe, w.host.procs[7].record.UID = "/bin/sh", 6 })
		pass(DefaultInterval)
		w.expect("another image", "scan exec 7 exe uid")
		w.host.with(func() { w.host.procs[7].exec = true })
		pass(DefaultInterval)
		w.expect("the same image again", "scan exec 7")
		w.host.with(func() {
			r := &w.host.procs[7].record
			r.Exe, r.Args, r.Name = "", nil, "renamed"
			r.Missing.Denied = event.FieldSet(0).With(event.FieldExe).With(event.FieldArgs)
		})
		pass(DefaultInterval)
		w.expect("unreadable", "scan modify 7 name")
		if got := w.store.kept()[len(w.store.kept())-1].Process; got.Exe != "/bin/sh" || len(got.Args) != 2 {
			t.Errorf("what was known is lost: %+v", got)
		}
	})
}

// TestSurroundings: what a process moves to is a modify; what its source does not
// give any more, because a setting has changed, is not shown for ever.
func TestSurroundings(t *testing.T) {
	bubble(t, func(w *world) {
		r := &w.host.spawn(7, 5).record
		r.CWD, r.Cgroup, r.Env, r.RSSKind = "/srv", "/a.slice", []string{"LANG=C"}, event.RSSExact
	}, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.with(func() {
			r := &w.host.procs[7].record
			r.CWD, r.Cgroup, r.ContainerID, r.Env = "/", "/b/c0ffee", "c0ffee", nil
		})
		pass(DefaultInterval)
		w.expect("moved", "scan modify 7 cwd cgroup container_id env")
		w.host.with(func() {
			r := &w.host.procs[7].record
			r.CWD, r.Cgroup, r.ContainerID = "", "", ""
			r.Missing.Unsupported = event.FieldSet(0).With(event.FieldCWD).With(event.FieldCgroup).With(event.FieldContainer)
			delete(w.host.reported, 7)
		})
		pass(DefaultInterval)
		w.expect("not given any more")
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("ended", "scan stop 7")
		p := w.store.kept()[len(w.store.kept())-1].Process
		if p.CWD != "" || p.ContainerID != "" || !p.Missing.Unsupported.Has(event.FieldCWD) || p.RSSKind != event.RSSExact {
			t.Errorf("the last event says what nobody has read: %+v", p)
		}
	})
}

func TestThresholds(t *testing.T) {
	bubble(t, func(w *world) {
		w.host.spawn(7, 5)
		w.cfg.Settings.MemoryThreshold, w.cfg.Settings.CPUThreshold = 50, 50
	}, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		set := func(rss uint64, burn time.Duration, what string, want ...string) {
			t.Helper()
			w.host.with(func() {
				w.host.procs[7].record.RSS = rss
				w.host.procs[7].record.CPU += burn
			})
			pass(DefaultInterval)
			w.expect(what, want...)
		}
		set(14<<20, 0, "40 %, not enough")
		set(15<<20, 0, "50 % of the last reported", "scan modify 7 rss")
		set(10<<20, 0, "33 % down")
		set(7<<20, 0, "53 % down", "scan modify 7 rss")
		set(7<<20, 14*time.Second, "47 points")
		set(7<<20, 15*time.Second, "50 points", "scan modify 7 cpu")
		set(7<<20, 15*time.Second, "as reported")
		set(16<<20, 0, "both", "scan modify 7 rss cpu")
		got := w.store.kept()[len(w.store.kept())-1].Changes
		if _, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{KeyMemoryThreshold: "200"}}); err != nil {
			t.Error(err)
		}
		set(33<<20, 0, "106 %, not enough any more", "sensor config")
		if got[1].Old != "50.0%" || got[1].New != "0.0%" || got[0].Old != "7340032" {
			t.Errorf("changes %v", got)
		}
	})
}

func TestSmallProcessesMayBreathe(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5).record.RSS = 1 << 20 }, func(_ *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.RSS = 4 << 20 })
		pass(DefaultInterval)
		w.expect("300 %, but 3 MiB")
	})
}

func TestFailedScanIsOneLoss(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.kill(7) // a failed scan must not end what it did not see
		w.host.spawn(8, 8)
		for range 2 {
			w.host.with(func() { w.host.scanErr = errBroken })
			pass(DefaultInterval)
			w.expect("failed")
		}
		health, err := w.handle.HealthCheck(t.Context())
		if err != nil || health.Level != LevelDegraded || !strings.Contains(health.Reasons[0], "The last 2 scans failed: input/output error") {
			t.Errorf("health %v, %v", health, err)
		}
		pass(DefaultInterval)
		w.expect("good again", "loss scan_failed", "scan stop 7", "scan start 8")
		if got := w.handle.Status(); got.Totals.ScansFailed != 2 || len(got.Degraded) != 0 {
			t.Errorf("status %+v", got)
		}
	})
}

func TestScanThatPanicsEndsTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		c := w.collector()
		w.host.panics = true
		w.serve(c)
		w.begin()
		err := <-w.ended
		if err == nil || !strings.Contains(err.Error(), "scanner is broken") || !strings.Contains(err.Error(), "fake_test.go") {
			t.Fatalf("Serve ended with %v", err)
		}
		w.cancel()
		w.host.with(func() { w.host.panics = false })
		w.serve(c)
		w.expect("after the restart", "sensor started", "scan start 7")
		if got := w.handle.Status(); got.Totals.Restarts != 1 || got.State.State != "running" {
			t.Errorf("status %+v", got)
		}
		_ = w.stop()
	})
}

func TestActorEndsWithAnErrorOfTheStoreAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		c := w.collector()
		w.serve(c)
		w.begin()
		w.store.with(func() { w.store.fail = func() error { return errBroken } })
		pass(time.Second)
		w.host.spawn(8, 8)
		pass(DefaultInterval)
		if err := <-w.ended; !errors.Is(err, errBroken) {
			t.Fatalf("Serve ended with %v", err)
		}
		w.cancel()
		w.store.with(func() { w.store.fail = nil })
		w.serve(c)
		w.expect("no second start of the run", "sensor started", "scan start 7", "scan start 8")
		_ = w.stop()
		w.checkStore()
	})
}
