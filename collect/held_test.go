package collect

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// holdScan makes the next scan, which begins 8.5 s after the last one, wait for
// what it returns.
func (w *world) holdScan() (release func()) {
	w.t.Helper()
	if _, err := w.handle.UpdateConfig(w.t.Context(), Update{Values: map[string]string{KeyInterval: "8500ms"}}); err != nil {
		w.t.Fatal(err)
	}
	hang := make(chan struct{})
	w.host.with(func() { w.host.hang = hang })
	return func() {
		w.host.with(func() { w.host.hang = nil })
		close(hang)
		synctest.Wait()
	}
}

func (w *world) makeZombie(pid int32, code int32) {
	w.host.with(func() {
		p := w.host.procs[pid]
		p.record.State, p.record.Threads, p.exit = event.StateZombie, 1, &event.Exit{Code: code}
	})
}

// A start that was due while a scan ran, of a process that this scan finds as a
// zombie, is told with its end, and never again.
func TestHeldZombieIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Settings.MinLifetime = 10 * time.Second
		w.serve(w.collector())
		w.begin()
		pass(DefaultInterval - time.Second)
		w.host.spawn(1, 1)
		w.host.spawn(7, 7)
		pass(2 * time.Second) // held at 30 s, due at 39 s
		release := w.holdScan()
		pass(9 * time.Second)
		w.makeZombie(7, 3)
		release()
		w.expect("both", "sensor started", "sensor config", "scan start 7", "scan stop 7", "scan start 1")
		for _, e := range w.store.kept() {
			if e.Process.PID == 7 && (e.Process.PPID != 1 || e.Process.ParentID.IsZero()) {
				t.Errorf("%v without its parent: %+v", e.Kind, e.Process)
			}
			if e.Process.PID == 7 && e.Kind == event.KindStop && (e.Exit == nil || e.Exit.Code != 3) {
				t.Errorf("exit %+v", e.Exit)
			}
		}
		_ = w.stop()
		w.newRun()
		w.cfg.Settings.MinLifetime = 10 * time.Second
		w.serve(w.collector())
		w.begin()
		w.expect("the next run", "sensor started", "sensor crashed", "loss down")
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("and it vanishes")
		_ = w.stop()
		w.checkStore()
	})
}

// A zombie that did not live long enough is not told when it has been a zombie for
// long enough.
func TestShortLivedZombieIsNeverTold(t *testing.T) {
	bubble(t, func(w *world) { w.cfg.Settings.MinLifetime = 10 * time.Second }, func(t *testing.T, w *world) {
		w.begin()
		pass(DefaultInterval - time.Second)
		w.host.spawn(7, 7)
		w.makeZombie(7, 0)
		pass(DefaultInterval)
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		pass(DefaultInterval)
		w.store.with(func() { w.store.fail = nil })
		pass(DefaultInterval)
		w.expect("after an outage", "loss store_unavailable")
		if got := w.handle.Status().Totals.ShortLived; got != 1 {
			t.Errorf("%d short-lived", got)
		}
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("and it vanishes")
		if got := w.store.rows(); len(got) != 0 {
			t.Errorf("table %v", got)
		}
	})
}

// A start that is due between two scans and whose process is a zombie by then is
// not told by the next run either.
func TestHeldZombieFoundByProbeIsNeverTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Settings.MinLifetime = 10 * time.Second
		w.serve(w.collector())
		w.begin()
		pass(DefaultInterval - time.Second)
		w.host.spawn(7, 7)
		pass(2 * time.Second)
		w.makeZombie(7, 0)
		pass(10 * time.Second) // due at 39 s
		if got := w.handle.Status().Totals.ShortLived; got != 1 {
			t.Errorf("%d short-lived", got)
		}
		pass(DefaultInterval)
		_ = w.stop()
		w.expect("one run", "sensor started")
		w.newRun()
		w.cfg.Settings.MinLifetime = 10 * time.Second
		w.serve(w.collector())
		w.begin()
		pass(DefaultInterval)
		w.expect("the next run", "sensor started", "sensor crashed", "loss down")
		w.host.kill(7)
		pass(DefaultInterval)
		w.expect("and it vanishes")
		_ = w.stop()
		w.checkStore()
	})
}

func TestHeldThenExcluded(t *testing.T) {
	for _, ends := range []string{"vanishes", "becomes a zombie"} {
		t.Run(ends, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.cfg.Settings.MinLifetime = 40 * time.Second
				w.cfg.Settings.Exclude, _ = ParseScope([]string{"exe:/bin/secret"})
			}, func(_ *testing.T, w *world) {
				w.begin()
				pass(DefaultInterval - time.Second)
				p := w.host.spawn(7, 7) // due at 69 s
				pass(2 * time.Second)
				w.host.with(func() { p.record.Exe = "/bin/secret" })
				pass(DefaultInterval)
				release := w.holdScan()
				pass(10 * time.Second)
				if ends == "vanishes" {
					w.host.kill(7)
				} else {
					w.makeZombie(7, 0)
				}
				release()
				pass(DefaultInterval)
				w.expect("nothing of it", "sensor started", "sensor config")
			})
		})
	}
}

// Who comes back into scope finds no room where others have taken it.
func TestLimitAfterExclusion(t *testing.T) {
	bubble(t, func(w *world) {
		w.cfg.Settings.MaxProcesses = 1
		w.cfg.Settings.Exclude, _ = ParseScope([]string{"exe:/bin/secret"})
		w.host.spawn(7, 7)
		w.host.spawn(8, 8)
	}, func(t *testing.T, w *world) {
		w.begin()
		w.host.with(func() { w.host.procs[7].record.Exe = "/bin/secret" })
		pass(DefaultInterval)
		w.host.with(func() { w.host.procs[7].record.Exe = "/bin/a" })
		pass(DefaultInterval)
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.UID, w.host.procs[8].record.UID = 5, 5 })
		pass(2 * DefaultInterval)
		w.expect("one of two", "scan modify 8 uid")
		if got := w.handle.Status().Cycle.LeftOut; got != 1 {
			t.Errorf("%d left out", got)
		}
		w.host.kill(8)
		pass(2 * DefaultInterval)
		if got := w.store.take(); !slices.Contains(got, "scan exec 7 exe uid") {
			t.Errorf("room again, and told: %q", got)
		}
	})
}

// Health checks of a collector that does not answer leave room for others.
func TestHealthChecksDoNotFillTheMailbox(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 7) }, func(t *testing.T, w *world) {
		w.begin()
		hold := make(chan struct{})
		w.store.with(func() { w.store.hold = hold })
		w.host.spawn(8, 8)
		pass(DefaultInterval)
		for i := range 2 * mailboxCapacity {
			h, err := w.handle.HealthCheck(t.Context())
			if err != nil || h.Level != LevelUnhealthy {
				t.Fatalf("health check %d: %v, %v", i, h.Level, err)
			}
		}
		done := make(chan error, 1)
		go func() {
			_, err := w.handle.UpdateConfig(t.Context(), Update{})
			done <- err
		}()
		synctest.Wait()
		w.store.with(func() { w.store.hold = nil })
		close(hold)
		if err := <-done; errors.Is(err, ErrMailboxFull) {
			t.Error(err)
		}
	})
}
