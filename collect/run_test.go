package collect

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// twoRuns makes a first run with three processes, and then a second one after
// what happens between.
func twoRuns(t *testing.T, between func(w *world), test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for pid := range int32(3) {
			w.host.spawn(pid+1, uint64(pid)+1)
		}
		w.serve(w.collector())
		w.begin()
		_ = w.stop()
		w.store.take()
		w.newRun()
		pass(time.Minute)
		between(w)
		pass(time.Minute)
		w.serve(w.collector())
		w.begin()
		test(t, w)
		_ = w.stop()
		w.checkStore()
	})
}

func TestSecondRunReportsWhatHappenedMeanwhile(t *testing.T) {
	twoRuns(t, func(w *world) {
		w.host.kill(2)
		w.host.spawn(4, 4)
		w.host.with(func() { w.host.procs[3].record.UID = 9 })
	}, func(t *testing.T, w *world) {
		w.expect("second run", "sensor started", "sensor crashed", "loss down",
			"recovered stop 2", "recovered start 4", "recovered modify 3 uid")
		n := len(w.store.kept())
		down, stop := w.store.kept()[n-4].Loss, w.store.kept()[n-3]
		if got := down.To.Sub(down.From); got != 2*time.Minute {
			t.Errorf("down for %v", got)
		}
		if !stop.NotBefore.Equal(down.From) || stop.Time.Before(down.To) {
			t.Errorf("stop between %v and %v", stop.NotBefore, stop.Time)
		}
		pass(DefaultInterval)
		w.expect("nothing twice")
		w.host.kill(3)
		pass(DefaultInterval)
		w.expect("as usual", "scan stop 3")
	})
}

func TestSecondRunAfterACleanEnd(t *testing.T) {
	twoRuns(t, func(w *world) { w.store.clean = true }, func(_ *testing.T, w *world) {
		w.expect("second run", "sensor started", "loss down")
	})
}

func TestWhatStartsUnderTheEyesOfARunIsNotRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.host.spawn(1, 1)
		w.serve(w.collector())
		w.begin()
		_ = w.stop()
		w.store.take()
		w.newRun()
		w.serve(w.collector())
		pass(time.Second)
		w.host.spawn(5, 5)
		w.begin()
		w.expect("second run", "sensor started", "sensor crashed", "loss down", "scan start 5")
		_ = w.stop()
	})
}

func TestReboot(t *testing.T) {
	twoRuns(t, func(w *world) {
		w.cfg.Host.BootID, w.cfg.Host.BootTime = "boot-2", time.Now()
		w.host.kill(3)
		w.host.with(func() {
			w.store.table[event.Identity{}.ID()] = &event.Process{PID: 77, State: 'Z', ID: event.Identity{}.ID()}
		})
	}, func(t *testing.T, w *world) {
		got := sorted(w.store.take())
		want := sorted([]string{
			"sensor started", "sensor crashed", "loss down",
			"recovered stop 1 boot", "recovered stop 2 boot", "recovered stop 3 boot",
			"recovered start 1", "recovered start 2",
		})
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got %q\nwant %q", got, want)
		}
		if len(w.store.rows()) != 2 || w.store.bootID != "boot-2" {
			t.Errorf("table of %s: %v", w.store.bootID, w.store.rows())
		}
		for _, e := range w.store.kept() {
			if e.Kind == event.KindStop && !e.Time.Equal(w.cfg.Host.BootTime) {
				t.Errorf("stop at %v", e.Time)
			}
			if want := map[event.Kind]string{event.KindStop: "boot-1"}[e.Kind]; want != "" && e.BootID != want {
				t.Errorf("%s of boot %q, want %q", e.Kind, e.BootID, want)
			}
		}
	})
}

// A crash right after the old boot's stops must not end the new boot's
// processes, whatever was written of them.
func TestRebootWithACrashInTheMiddle(t *testing.T) {
	twoRuns(t, func(w *world) { w.cfg.Host.BootID = "boot-2" }, func(_ *testing.T, w *world) {
		_ = w.stop()
		w.store.take()
		w.newRun()
		w.cfg.Host.BootID = "boot-2"
		w.serve(w.collector())
		w.begin()
		w.expect("third run", "sensor started", "sensor crashed", "loss down")
	})
}

func TestRebootOfATableThatWasNeverComplete(t *testing.T) {
	for boot, want := range map[string]string{"boot-1": "recovered stop 3", "boot-2": "recovered stop 3 boot"} {
		twoRuns(t, func(w *world) {
			w.store.asOf, w.store.bootID = time.Time{}, ""
			w.cfg.Host.BootID = boot
			w.host.kill(3)
		}, func(t *testing.T, w *world) {
			got := strings.Join(w.store.take(), "\n")
			if !strings.Contains(got+"\n", want+"\n") {
				t.Errorf("%s: %s", boot, got)
			}
		})
	}
}

func TestFirstEventOfAnEpochNamesTheLastOne(t *testing.T) {
	bubble(t, func(w *world) {
		w.store.fresh = event.Table{PreviousEpoch: event.Epoch{9}, PreviousSeq: 77, Quarantined: "/var/lib/x.corrupt"}
	}, func(t *testing.T, w *world) {
		w.expect("start", "sensor started", "loss store_quarantined")
		if got := w.store.kept()[0].Sensor; got.PreviousEpoch != (event.Epoch{9}) || got.PreviousSeq != 77 || got.Version != "1.2.3" {
			t.Errorf("sensor %+v", got)
		}
		if got := w.store.kept()[1].Loss.Hint; !strings.Contains(got, "/var/lib/x.corrupt") {
			t.Errorf("hint %q", got)
		}
	})
}

func TestEpochThatChangesInTheMiddleOfARun(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		pass(DefaultInterval)
		w.store.with(func() {
			w.store.events, w.store.asOf, w.store.bootID, w.store.fail = nil, time.Time{}, "", nil
			w.store.epoch = event.Epoch{2}
			clear(w.store.table)
		})
		pass(maxBackOff)
		w.expect("new store", "sensor health", "loss store_unavailable", "scan start 7")
		if got := w.store.kept()[0].Sensor; got.PreviousEpoch != (event.Epoch{1}) || got.PreviousSeq != 2 {
			t.Errorf("sensor %+v", got)
		}
	})
}

// A store that was an older copy of itself keeps its table: nothing is reported twice.
func TestRewoundStoreInTheMiddleOfARun(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		pass(DefaultInterval)
		w.store.with(func() {
			w.store.events, w.store.fail = nil, nil
			w.store.epoch = event.Epoch{2}
			w.store.fresh = event.Table{PreviousEpoch: event.Epoch{1}, PreviousSeq: 50, Rewound: "/var/lib/x.rewound"}
		})
		w.host.spawn(8, 8)
		pass(maxBackOff)
		w.expect("rewound store", "sensor health", "loss store_rewound", "loss store_unavailable", "recovered start 8")
		if got := w.store.kept()[0].Sensor; got.PreviousEpoch != (event.Epoch{1}) || got.PreviousSeq != 50 {
			t.Errorf("sensor %+v", got)
		}
		if got := w.store.kept()[1].Loss.Hint; !strings.Contains(got, "/var/lib/x.rewound") {
			t.Errorf("hint %q", got)
		}
	})
}

func TestSecondRunOnARewoundStore(t *testing.T) {
	twoRuns(t, func(w *world) {
		w.host.kill(2)
		w.store.with(func() {
			w.store.events, w.store.epoch = nil, event.Epoch{2}
			w.store.fresh = event.Table{PreviousEpoch: event.Epoch{1}, PreviousSeq: 50, Rewound: "/var/lib/x.rewound"}
		})
	}, func(_ *testing.T, w *world) {
		w.expect("second run", "sensor started", "sensor crashed", "loss down", "loss store_rewound", "recovered stop 2")
	})
}

// The store finds its damage while nobody writes: no append fails before the next
// one would go into the new store.
func TestStoreReplacedBetweenTwoCycles(t *testing.T) {
	bubble(t, func(w *world) {
		for pid := range int32(3) {
			w.host.spawn(pid+11, 5)
		}
	}, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.store.with(func() {
			w.store.events, w.store.asOf, w.store.bootID = nil, time.Time{}, ""
			w.store.epoch = event.Epoch{2}
			w.store.fresh = event.Table{PreviousEpoch: event.Epoch{1}, PreviousSeq: 4, Quarantined: "/aside"}
			clear(w.store.table)
		})
		w.host.kill(13)
		w.host.spawn(14, 14)
		pass(DefaultInterval + maxBackOff)
		w.expect("new store", "sensor health", "loss store_quarantined", "loss store_unavailable", "scan start 11", "scan start 12", "scan start 14")
		if got := w.handle.Status().Epoch; got != (event.Epoch{2}) {
			t.Errorf("epoch %v", got)
		}
		if got := w.store.alive(); len(got) != 3 {
			t.Errorf("table %v", got)
		}
	})
}

func TestStoreOutOfServiceInTheMiddleOfARun(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5); w.host.spawn(8, 5) }, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		w.host.kill(7)
		pass(DefaultInterval)
		began := time.Now()
		health, err := w.handle.HealthCheck(t.Context())
		if err != nil || health.Level != LevelDegraded || !strings.Contains(health.Reasons[0], "no space left") {
			t.Errorf("health %v, %v", health, err)
		}
		pass(time.Hour)
		loads := w.store.loadCount()
		pass(time.Minute)
		if got := w.store.loadCount() - loads; got != 12 {
			t.Errorf("%d attempts a minute", got)
		}
		w.host.spawn(9, 9)
		pass(10 * time.Minute)
		w.store.with(func() { w.store.fail = nil })
		pass(maxBackOff)
		w.expect("back", "loss store_unavailable", "recovered stop 7", "recovered start 9")
		if got := w.store.kept(); !slices.ContainsFunc(got, func(e *event.Event) bool {
			return e.Loss != nil && strings.HasPrefix(e.Loss.Hint, "The database took nothing (") && !strings.Contains(e.Loss.Hint, "()")
		}) {
			t.Error("no loss says why")
		}
		loss := w.store.kept()[len(w.store.kept())-3].Loss
		if loss.From.After(began) || loss.To.Sub(began) < time.Hour {
			t.Errorf("loss from %v to %v", loss.From, loss.To)
		}
		if got := w.handle.Status(); got.Totals.Outages != 1 || !got.OutOfServiceSince.IsZero() {
			t.Errorf("status %+v", got)
		}
		pass(DefaultInterval)
		w.expect("nothing twice")
	})
}

func TestStoreIsTriedWhenItIsSaidToBeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		available := make(chan struct{}, 1)
		w := newWorld(t)
		w.cfg.Available = available
		w.store.fail = func() error { return errFull }
		w.serve(w.collector())
		w.begin() // it answers though there is no store
		pass(time.Minute + time.Millisecond)
		w.store.with(func() { w.store.fail = nil })
		began := time.Now()
		available <- struct{}{}
		synctest.Wait()
		w.expect("back", "sensor started", "loss store_unavailable")
		if time.Since(began) != 0 {
			t.Error("it waited")
		}
		_ = w.stop()
	})
}

// Events that were not accepted are found again, and those that were are not
// repeated, wherever in a big cycle the store gave up.
func TestBigCycleInPartsOfWhichSomeFail(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		for pid := range int32(1000) {
			w.host.spawn(pid+1, uint64(pid)+1)
		}
		calls := 0
		w.store.with(func() {
			w.store.fail = func() error {
				if calls++; calls == 3 {
					return errFull
				}
				return nil
			}
		})
		pass(DefaultInterval)
		if got := w.store.completeAsOf(); !got.Before(time.Now()) {
			t.Error("an incomplete table claims to be complete")
		}
		pass(DefaultInterval)
		starts := 0
		for _, l := range w.store.take() {
			if strings.Contains(l, " start ") {
				starts++
			}
		}
		if starts != 1000 || len(w.store.rows()) != 1000 {
			t.Errorf("%d starts, table of %d", starts, len(w.store.rows()))
		}
	})
}

func TestBigEventsMakeSmallBatches(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		for pid := range int32(200) {
			w.host.spawn(pid+1, 1).record.Args = []string{"x", strings.Repeat("a", 30<<10)}
		}
		w.begin()
		for i, b := range w.store.written() {
			if len(b.Events) > 17 { // with the record in the table, 60 KiB each
				t.Errorf("batch %d has %d events", i, len(b.Events))
			}
		}
	})
}

func TestQuietCycleIsOneBatch(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		w.begin()
		before := len(w.store.written())
		pass(10 * DefaultInterval)
		if got := len(w.store.written()) - before; got != 10 {
			t.Errorf("%d batches for 10 cycles", got)
		}
		last := w.store.written()[len(w.store.written())-1]
		if len(last.Events)+len(last.Put)+len(last.Delete) != 0 || !last.AsOf.Equal(time.Now()) || last.BootID != "boot-1" {
			t.Errorf("batch %+v", last)
		}
	})
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{Settings: Settings{Interval: time.Second, MaxProcesses: -1}, ScanDeadline: -1})
	for _, want := range []string{"scanner", "sink", "loader", "machine", "mailbox", "done error", "log", "boot id", "host id", "scan deadline", "interval", "maximum of processes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of the %s: %v", want, err)
		}
	}
	if errors.Is(err, errDone) {
		t.Error(err)
	}
}
