package collect

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// exec replaces the image of a process by the same one: only the scanner can
// tell, and it does so once.
func (w *world) exec(pid int32) {
	w.host.with(func() { w.host.procs[pid].exec = true })
}

func TestExecOutlivesAFailedScan(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(_ *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.exec(7)
		w.host.with(func() { w.host.scanErr = errBroken })
		pass(DefaultInterval)
		w.expect("failed")
		pass(DefaultInterval)
		w.expect("good again", "loss scan_failed", "scan exec 7")
		pass(DefaultInterval)
		w.expect("told once")
	})
}

func TestExecOutlivesAnOutageOfTheStore(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(_ *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.exec(7)
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		pass(DefaultInterval)
		w.expect("full")
		w.store.with(func() { w.store.fail = nil })
		pass(maxBackOff)
		w.expect("space again", "loss store_unavailable", "recovered exec 7")
		pass(DefaultInterval)
		w.expect("told once")
	})
}

// The events of a cycle take more than one batch, and the second one fails: what
// the first one reported is not reported again.
func TestExecIsNotToldTwiceAfterHalfACycle(t *testing.T) {
	const n = maxBatchEvents + 10
	bubble(t, func(w *world) {
		for pid := range int32(n) {
			w.host.spawn(pid+1, uint64(pid)+1)
		}
	}, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		for pid := range int32(n) {
			w.exec(pid + 1)
		}
		calls := 0
		w.store.with(func() {
			w.store.fail = func() error {
				if calls++; calls == 2 {
					return errFull
				}
				return nil
			}
		})
		pass(DefaultInterval)
		pass(DefaultInterval)
		told := map[int32]int{}
		for _, e := range w.store.kept() {
			if e.Kind == event.KindExec {
				told[e.Process.PID]++
			}
		}
		for pid := range int32(n) {
			if got := told[pid+1]; got != 1 {
				t.Errorf("exec of %d was reported %d times", pid+1, got)
			}
		}
	})
}

func TestExecOutlivesARestartOfTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		c := w.collector()
		w.serve(c)
		w.begin()
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { return errBroken } })
		w.exec(7)
		pass(DefaultInterval)
		if err := <-w.ended; !errors.Is(err, errBroken) {
			t.Fatalf("Serve ended with %v", err)
		}
		w.cancel()
		w.store.with(func() { w.store.fail = nil })
		w.serve(c)
		w.expect("after the restart", "recovered exec 7")
		_ = w.stop()
	})
}

// What a broken scan left in the buffer of the good one before it is old news.
func TestExecIsNotToldAgainByAScanThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(7, 5)
		c := w.collector()
		w.serve(c)
		w.begin()
		w.exec(7)
		pass(DefaultInterval)
		w.expect("one", "sensor started", "scan start 7", "scan exec 7")
		w.host.with(func() { w.host.panics = true })
		pass(DefaultInterval)
		if err := <-w.ended; err == nil {
			t.Fatal("no panic")
		}
		w.cancel()
		w.host.with(func() { w.host.panics = false })
		w.serve(c)
		pass(DefaultInterval)
		w.expect("and no more")
		_ = w.stop()
	})
}

func TestExecOfAProcessThatIsGoneIsForgotten(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.exec(7)
		w.host.with(func() { w.host.scanErr = errBroken })
		pass(DefaultInterval)
		w.host.kill(7)
		w.host.spawn(7, 6)
		pass(DefaultInterval)
		w.expect("another", "loss scan_failed", "scan stop 7", "scan start 7")
		if got := fmt.Sprint(w.cfg.Mailbox.run.execs); got != "map[]" {
			t.Errorf("still known: %s", got)
		}
	})
}

func TestExecWhileHeldIsPartOfTheStart(t *testing.T) {
	bubble(t, func(w *world) { w.cfg.Settings.MinLifetime = 2 * DefaultInterval }, func(_ *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.spawn(7, 7)
		pass(DefaultInterval)
		w.exec(7)
		pass(time.Duration(2.5 * float64(DefaultInterval)))
		w.expect("one start", "scan start 7")
	})
}
