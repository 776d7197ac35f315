package collect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/kernel"
)

// losing lets the source lose what happens.
func (w *world) losing(happens func()) {
	w.kernel.with(func() { w.kernel.lose = true })
	happens()
	w.kernel.with(func() { w.kernel.lose = false })
}

const lostReason = "Kernel events were lost: more happened than could be taken in time."

func TestLossIsOneEventAndOneScan(t *testing.T) {
	listening(t, func(w *world) { w.kernel.restless = true }, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.fork(1, 8)
		pass(time.Second)
		w.store.take()
		lastGood := time.Now()
		w.losing(func() {
			w.kernel.fork(1, 9)
			w.kernel.exec(8, "/bin/a")
			told()
			w.kernel.exit(7, 0)
		})
		told()
		w.expect("not before the scan")
		scans := w.host.scanCount()
		if got := w.handle.Status(); !slices.Contains(got.Degraded, lostReason) || got.Totals.Lost != (Lost{Forks: 1, Execs: 1, Exits: 1}) {
			t.Errorf("status %+v", got)
		}
		pass(3500 * time.Millisecond)
		if w.host.scanCount() != scans {
			t.Error("a scan before its time")
		}
		pass(time.Second) // 5 s after the begin of the last
		w.expect("made up for", "loss ring_overflow", "scan stop 7", "scan start 9", "scan exec 8 name exe args")
		if got := w.host.scanCount() - scans; got != 1 {
			t.Errorf("%d scans", got)
		}
		l := w.lastOf(event.KindLoss).Loss
		if l.Count != 3 || !l.Known || l.From.After(lastGood) || lastGood.Sub(l.From) > 200*time.Millisecond || l.To.Sub(l.From) > 6*time.Second {
			t.Errorf("loss %+v, good until %v", l, lastGood)
		}
		if got := w.handle.Status(); got.Totals.LossWindows != 1 || !slices.Contains(got.Degraded, lostReason) {
			t.Errorf("status %+v", got)
		}
		pass(2 * DefaultInterval)
		w.expect("all is well")
		if got := w.handle.Status(); len(got.Degraded) > 0 || got.Totals.Lost != (Lost{Forks: 1, Execs: 1, Exits: 1}) {
			t.Errorf("status %+v", got)
		}
		w.sameAsHost()
	})
}

func TestLossOfNobodyKnowsHowMuch(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.kernel.with(func() { w.kernel.lost = kernel.Lost{Other: 3, Unknown: true} })
		pass(6 * time.Second)
		w.expect("a loss", "loss ring_overflow")
		if l := w.lastOf(event.KindLoss).Loss; l.Known || l.Count != 3 {
			t.Errorf("loss %+v", l)
		}
	})
}

// A source that had gone deaf says since when.
func TestLossThatWasNoticedLate(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		pass(time.Minute)
		deaf := time.Now().Add(-12 * time.Second)
		w.kernel.with(func() {
			w.kernel.lost, w.kernel.since = kernel.Lost{Unknown: true}, w.kernel.now()-12*time.Second
		})
		pass(6 * time.Second)
		if l := w.lastOf(event.KindLoss).Loss; l.From.Sub(deaf).Abs() > 10*time.Millisecond {
			t.Errorf("loss from %v, want %v", l.From, deaf)
		}
	})
}

// Losses that go on make no more scans than one in 5 s, each with one event.
func TestLossesDoNotMakeScansWithoutEnd(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		pass(10 * time.Second)
		scans := w.host.scanCount()
		for range 300 {
			w.kernel.with(func() { w.kernel.lost.Exits++ })
			told()
		}
		if got := w.host.scanCount() - scans; got < 6 || got > 7 {
			t.Errorf("%d scans in 30 s", got)
		}
		pass(10 * time.Second)
		var count uint64
		for _, e := range w.store.kept() {
			if e.Loss != nil {
				count += e.Loss.Count
			}
		}
		if got := w.handle.Status().Totals; got.LossWindows > 8 || got.Lost.Exits != 300 || count != 300 {
			t.Errorf("totals %+v, %d in events", got, count)
		}
	})
}

// Another interval must not put off the scan that makes up for a loss.
func TestLossAndAnotherInterval(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.losing(func() { w.kernel.fork(1, 7) })
		told()
		hour := time.Hour
		if _, err := w.handle.AdjustInterval(t.Context(), Adjust{Value: &hour}); err != nil {
			t.Error(err)
		}
		pass(6 * time.Second)
		w.expect("made up for", "loss ring_overflow", "scan start 7")
	})
}

// What is lost while a scan is on its way needs another one.
func TestLossDuringAScan(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		pass(DefaultInterval - time.Second)
		goOn := w.stopScan(0)
		pass(2 * time.Second)
		w.losing(func() { w.kernel.fork(1, 7) })
		told()
		goOn()
		w.expect("too late for this one")
		pass(6 * time.Second)
		w.expect("the next", "loss ring_overflow", "scan start 7")
	})
}

// A table from which something may be missing is not said to be complete.
func TestTableIsCompleteAsOf(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		pass(time.Second)
		w.kernel.fork(1, 7)
		told()
		if age := time.Since(w.store.completeAsOf()); age > 200*time.Millisecond {
			t.Errorf("complete as of %v ago", age)
		}
		w.losing(func() { w.kernel.exit(7, 0) })
		told()
		before := w.store.completeAsOf()
		w.kernel.fork(1, 8)
		told()
		if !w.store.completeAsOf().Equal(before) {
			t.Error("complete though something was lost")
		}
		goOn := w.stopScan(0)
		pass(6 * time.Second)
		w.kernel.fork(1, 9)
		told()
		if !w.store.completeAsOf().Equal(before) {
			t.Error("complete though what was lost was not found yet")
		}
		goOn()
		if age := time.Since(w.store.completeAsOf()); age > 3*time.Second { // it was stopped so long
			t.Errorf("complete as of %v ago, after the scan", age)
		}
		w.kernel.with(func() { w.kernel.began = w.kernel.now() })
		w.host.with(func() { w.host.scanErr = errBroken })
		told()
		before = w.store.completeAsOf()
		w.kernel.fork(1, 10)
		told()
		if !w.store.completeAsOf().Equal(before) {
			t.Error("complete though nobody told of what was between two sources")
		}
	})
}

// A change of the source is told, and nothing is missing between the two.
func TestSourceChanges(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		pass(10 * time.Second)
		w.kernel.with(func() { w.kernel.quiet = true })
		w.kernel.fork(1, 7)
		w.kernel.with(func() {
			w.kernel.quiet, w.kernel.began, w.kernel.note = false, w.kernel.now(), "Kernel events come from another."
			w.kernel.call()
		})
		told()
		w.expect("at once", "sensor source", "scan start 7")
		if got := w.lastOf(event.KindSensor).Sensor.Detail; got != "Kernel events come from another." {
			t.Errorf("detail %q", got)
		}
		w.kernel.fork(1, 8)
		told()
		w.expect("goes on", "kernel start 8")
		w.kernel.with(func() { w.kernel.absent = true })
		scans := w.host.scanCount()
		pass(5 * time.Second)
		if got := w.host.scanCount() - scans; got != 1 {
			t.Errorf("%d scans since nobody tells", got)
		}
		w.kernel.with(func() { w.kernel.absent, w.kernel.began = false, w.kernel.now() })
		pass(5 * time.Second)
		if got := w.host.scanCount() - scans; got != 2 {
			t.Errorf("%d scans since", got)
		}
	})
}

// A source that fails is one loss of nobody knows how much.
func TestSourceFails(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		pass(10 * time.Second)
		w.kernel.with(func() {
			w.kernel.lost.Unknown, w.kernel.began, w.kernel.note = true, w.kernel.now(), "It has failed."
			w.kernel.call()
		})
		told()
		w.expect("at once", "sensor source", "loss ring_overflow")
	})
}

// inDoubt makes the n-th append from now on fail; written says that it was durable all
// the same.
func (w *world) inDoubt(n int, written bool, cause error) {
	calls, failed := 0, false
	once := func(now bool) error {
		if failed || !now || calls < n {
			return nil
		}
		failed = true
		return cause
	}
	w.store.with(func() {
		w.store.fail = func() error { calls++; return once(!written) }
		w.store.doubt = func() error { return once(written) }
	})
}

// Whatever becomes of an append, each record makes one event.
func TestAppendInDoubt(t *testing.T) {
	for _, written := range []bool{false, true} {
		for n := range 4 {
			t.Run(fmt.Sprint(written, n), func(t *testing.T) {
				listening(t, nil, func(t *testing.T, w *world) {
					w.inDoubt(n+1, written, errFull)
					const lives = 3 * maxBatchEvents / 2
					for pid := range int32(lives) {
						w.kernel.fork(1, pid+10)
						w.kernel.exec(pid+10, "/bin/a")
						if pid%2 == 0 {
							w.kernel.exit(pid+10, 0)
						}
					}
					pass(10 * time.Second)
					count := map[string]int{}
					for _, l := range w.store.take() {
						count[strings.Join(strings.Fields(l)[:2], " ")]++
					}
					want := map[string]int{"kernel start": lives, "kernel exec": lives, "kernel stop": lives / 2, "loss store_unavailable": 1}
					if fmt.Sprint(count) != fmt.Sprint(want) {
						t.Errorf("%v, want %v", count, want)
					}
					w.uniqueIDs()
					w.sameAsHost()
					pass(2 * DefaultInterval)
					w.expect("nothing else")
				})
			})
		}
	}
}

// While the store is out of service the kernel keeps what it has room for, and counts
// the rest.
func TestLongOutage(t *testing.T) {
	listening(t, func(w *world) { w.kernel.room = 50 }, func(t *testing.T, w *world) {
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		w.kernel.fork(1, 7)
		told()
		reads := w.kernel.readCount()
		for pid := range int32(100) {
			w.kernel.fork(1, pid+10)
		}
		pass(time.Minute)
		if got := w.kernel.readCount() - reads; got != 0 {
			t.Errorf("%d readings that nobody can take", got)
		}
		if got := w.handle.Status(); got.Waiting != 1 || got.Totals.Heard != 1 {
			t.Errorf("%d wait of %d", got.Waiting, got.Totals.Heard)
		}
		w.store.with(func() { w.store.fail = nil })
		pass(20 * time.Second)
		got := w.store.take()
		starts := 0
		for _, l := range got {
			if strings.Contains(l, " start ") {
				starts++
			}
		}
		if starts != 101 || !slices.Contains(got, "loss ring_overflow") || !slices.Contains(got, "kernel start 59") || slices.Contains(got, "kernel start 60") {
			t.Errorf("%d starts: %q", starts, got)
		}
		if got := w.handle.Status().Totals.Lost; got != (Lost{Forks: 50}) {
			t.Errorf("lost %+v", got)
		}
		for _, e := range w.store.kept() {
			if e.Loss != nil && e.Loss.Cause == event.LossStore && strings.Contains(e.Loss.Hint, "not seen") {
				t.Errorf("what the kernel kept was seen: %s", e.Loss.Hint)
			}
		}
		w.sameAsHost()
	})
}

// What waits when the actor crashes may be the cause. It is given up, and said to be.
func TestCrashOfTheActorGivesUpWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.listen()
		c := w.collector()
		w.serve(c)
		w.begin()
		pass(10 * time.Second)
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { panic("a bug") } })
		happened := time.Now()
		w.kernel.fork(1, 7)
		w.kernel.fork(1, 8)
		w.kernel.exit(8, 0)
		told()
		if err := <-w.ended; err == nil || !strings.Contains(err.Error(), "a bug") {
			t.Fatalf("Serve ended with %v", err)
		}
		w.cancel()
		w.store.with(func() { w.store.fail = nil })
		pass(time.Minute)
		w.serve(c)
		told()
		w.expect("said and made up for", "loss ring_overflow", "scan start 7")
		if l := w.lastOf(event.KindLoss).Loss; l.Count != 3 || !l.Known || l.From.After(happened) {
			t.Errorf("loss %+v of what happened at %v", l, happened)
		}
		if got := w.handle.Status().Totals; got.Lost.Other != 3 || got.LossWindows != 1 {
			t.Errorf("totals %+v", got)
		}
		w.kernel.exit(7, 0)
		told()
		w.expect("goes on", "kernel stop 7")
		_ = w.stop()
		w.checkStore()
	})
}

func TestShutdownTakesWhatWasTold(t *testing.T) {
	for _, what := range []string{"idle", "a scan on its way", "a source that lags"} {
		t.Run(what, func(t *testing.T) {
			listening(t, nil, func(t *testing.T, w *world) {
				goOn := func() {}
				switch what {
				case "a scan on its way":
					goOn = w.stopScan(0)
					pass(DefaultInterval)
				case "a source that lags":
					w.kernel.with(func() { w.kernel.lag = time.Second })
				}
				w.kernel.fork(1, 7)
				w.kernel.fork(1, 8)
				w.kernel.exit(8, 0)
				done := make(chan ShutdownResult, 1)
				go func() {
					result, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "test"})
					if err != nil {
						t.Error(err)
					}
					done <- result
				}()
				told()
				goOn()
				if got := <-done; !got.Complete {
					t.Errorf("result %+v", got)
				}
				w.expect("all of it", "kernel start 7", "kernel start 8", "kernel stop 8", "sensor stopped")
			})
		})
	}
}

// A shutdown with a store that refuses says what is missing.
func TestShutdownWithoutAStore(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		w.kernel.fork(1, 7)
		result, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "test"})
		if err != nil || result.Complete || !strings.Contains(result.Detail, errFull.Error()) {
			t.Errorf("%+v, %v", result, err)
		}
		if err := <-w.ended; !errors.Is(err, errDone) {
			t.Error(err)
		}
		w.ended <- errDone
	})
}

// storm makes more lives than a store that takes that long for a batch can take in a
// minute.
func (w *world) storm(batch time.Duration) {
	w.store.with(func() { w.store.takes = batch })
	for pid := range int32(10_000) {
		w.kernel.fork(1, pid+10)
		w.kernel.exec(pid+10, "/bin/a", "a")
		w.kernel.exit(pid+10, 0)
	}
}

// However slow the store is, who asks the collector does not wait for a storm.
func TestSlowStoreKeepsNobodyWaiting(t *testing.T) {
	const batch = time.Second
	listening(t, nil, func(t *testing.T, w *world) {
		w.storm(batch)
		<-time.After(100 * time.Millisecond)
		for range 5 {
			asked := time.Now()
			if _, err := w.handle.HealthCheck(t.Context()); err != nil || time.Since(asked) > 4*batch {
				t.Errorf("%v after %v", err, time.Since(asked))
			}
		}
		w.store.with(func() { w.store.takes = 0 })
	})
}

// A shutdown keeps its deadline, and says what it has given up for that.
func TestShutdownInAStormKeepsItsDeadline(t *testing.T) {
	const batch, patience = 500 * time.Millisecond, 5 * time.Second
	listening(t, nil, func(t *testing.T, w *world) {
		w.storm(batch)
		<-time.After(100 * time.Millisecond)
		asked := time.Now()
		result, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "test", Deadline: asked.Add(patience)})
		if took := time.Since(asked); took > patience+3*batch {
			t.Errorf("it took %v", took)
		}
		if err != nil || result.Complete || !strings.Contains(result.Detail, "too slow") {
			t.Errorf("%+v, %v", result, err)
		}
		lines := w.store.take()
		if last := lines[len(lines)-2:]; !slices.Equal(last, []string{"loss ring_overflow", "sensor stopped"}) {
			t.Errorf("the last are %q", last)
		}
		kernelEvents := 0
		for _, l := range lines {
			if strings.HasPrefix(l, "kernel ") {
				kernelEvents++
			}
		}
		if l := w.lastOf(event.KindLoss).Loss; l.Known || kernelEvents+int(l.Count) != 30_000 {
			t.Errorf("loss %+v, %d events", l, kernelEvents)
		}
	})
}

// One that comes late, since a scan hangs, gives up nothing that can be stored at once.
func TestLateShutdownTakesWhatWasTold(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		hang := make(chan struct{})
		w.host.with(func() { w.host.hang = hang })
		pass(DefaultInterval)
		w.kernel.fork(1, 7)
		if _, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "test", Deadline: time.Now().Add(-time.Second)}); err != nil {
			t.Error(err)
		}
		w.expect("all", "kernel start 7", "sensor stopped")
		close(hang)
	})
}

// Another part of the daemon has written an event meanwhile: the sequence alone does not
// tell what became of an append.
func TestAppendInDoubtBesideAnother(t *testing.T) {
	for _, written := range []bool{false, true} {
		listening(t, nil, func(_ *testing.T, w *world) {
			w.kernel.fork(1, 7)
			told()
			w.store.with(func() {
				w.store.events = append(w.store.events, &event.Event{
					Kind: event.KindSensor, Sensor: &event.Sensor{What: event.SensorHealth}, Seq: uint64(len(w.store.events) + 1),
				})
			})
			w.inDoubt(1, written, errFull)
			w.kernel.exec(7, "/bin/a", "a")
			pass(10 * time.Second)
			got := sorted(w.store.take())
			if want := []string{"kernel exec 7 name exe args", "kernel start 7", "loss store_unavailable", "sensor health"}; !slices.Equal(got, want) {
				w.t.Errorf("written: %v: %q", written, got)
			}
		})
	}
}
