package collect

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestScanThatHangsIsNoticed(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		hang := make(chan struct{})
		w.host.with(func() { w.host.hang = hang })
		pass(DefaultInterval + DefaultScanDeadline)
		if w.beats.age() > beatEvery {
			t.Errorf("silent before the deadline for %v", w.beats.age())
		}
		pass(time.Minute)
		if w.beats.age() < time.Minute-beatEvery || w.beats.last != activityScan {
			t.Errorf("beat %v ago in %s", w.beats.age(), w.beats.last)
		}
		health, err := w.handle.HealthCheck(t.Context()) // the actor itself answers
		if err != nil || health.Level != LevelUnhealthy || !strings.Contains(health.Reasons[0], "The scan has not returned for 120 s") {
			t.Errorf("health %v, %v", health, err)
		}
		w.host.with(func() { w.host.hang = nil })
		close(hang)
		synctest.Wait()
		pass(beatEvery)
		if w.beats.age() > beatEvery || w.handle.Status().Stuck {
			t.Error("no recovery")
		}
	})
}

func TestSlowScanIsEndedAtItsDeadline(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.host.with(func() { w.host.slow = true })
		pass(DefaultInterval + DefaultScanDeadline)
		if got := w.handle.Status(); got.Totals.ScansFailed != 1 || got.Stuck {
			t.Errorf("status %+v", got)
		}
		w.host.with(func() { w.host.slow = false })
	})
}

func TestHungScanIsLeftBehindAndWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		hang := make(chan struct{})
		w.host.hang = hang
		w.serve(w.collector())
		w.begin()
		began := time.Now()
		if err := w.stop(); !errors.Is(err, context.Canceled) || time.Since(began) != joinPatience {
			t.Errorf("Serve ended with %v after %v", err, time.Since(began))
		}
		w.serve(w.collector()) // another collector on the same mailbox
		pass(5 * time.Minute)
		if got := w.host.scanCount(); got != 1 {
			t.Errorf("%d scans at once", got)
		}
		if !w.handle.Status().Stuck {
			t.Error("not said to be stuck")
		}
		w.host.with(func() { w.host.hang = nil })
		close(hang)
		synctest.Wait()
		w.expect("goes on", "sensor started", "scan start 7")
		_ = w.stop()
	})
}

func TestShutdownWaitsForTheScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		hang := make(chan struct{})
		w.host.hang = hang
		w.serve(w.collector())
		w.begin()
		type answered struct {
			result ShutdownResult
			err    error
		}
		answers := make(chan answered, 2)
		for range 2 {
			go func() {
				r, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Deadline: time.Now().Add(time.Minute), Reason: "sigterm"})
				answers <- answered{r, err}
			}()
		}
		pass(30 * time.Second)
		w.expect("not yet", "sensor started")
		close(hang)
		for range 2 {
			if a := <-answers; a.err != nil || !a.result.Complete {
				t.Errorf("answer %+v", a)
			}
		}
		w.expect("all of it", "scan start 7", "sensor stopped")
		if err := <-w.ended; !errors.Is(err, errDone) {
			t.Errorf("Serve ended with %v", err)
		}
		if got := w.handle.Status(); got.State.State != "stopped" || got.State.Cause != "sigterm" {
			t.Errorf("status %+v", got.State)
		}
		w.cancel()
	})
}

func TestShutdownAbandonsAScanAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		hang := make(chan struct{})
		w.host.hang = hang
		w.serve(w.collector())
		w.begin()
		began := time.Now()
		result, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Deadline: began.Add(10 * time.Second), Reason: "sigterm"})
		if err != nil || result.Complete || !strings.Contains(result.Detail, "abandoned") || time.Since(began) != 10*time.Second {
			t.Errorf("answer %+v, %v after %v", result, err, time.Since(began))
		}
		w.expect("last words", "sensor started", "sensor stopped")
		if err := <-w.ended; !errors.Is(err, errDone) {
			t.Errorf("Serve ended with %v", err)
		}
		close(hang)
		w.cancel()
	})
}

func TestShutdownDoesNotWaitForARefusingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(w.collector())
		w.begin()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		result, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "sigterm"})
		if err != nil || result.Complete || !strings.Contains(result.Detail, "no space left") {
			t.Errorf("answer %+v, %v", result, err)
		}
		if err := <-w.ended; !errors.Is(err, errDone) {
			t.Errorf("Serve ended with %v", err)
		}
		w.cancel()
	})
}

func TestServeOfAStoppedMachineIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.cfg.Machine.Fire("abort", "test"); err != nil {
			t.Fatal(err)
		}
		c := w.collector()
		if err := c.Serve(t.Context()); !errors.Is(err, errDone) {
			t.Errorf("Serve ended with %v", err)
		}
		if _, err := w.handle.HealthCheck(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("answer %v", err)
		}
	})
}
