package collect

import (
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/kernel"
)

// stopScan makes the next scan stop before it looks at pid, or when it has seen all if
// that is 0, until the function that it returns is called.
func (w *world) stopScan(at int32) (goOn func()) {
	gate := make(chan struct{})
	w.host.with(func() {
		w.host.pause = func(pid int32) {
			if pid == at {
				<-gate
			}
		}
	})
	return func() {
		w.host.with(func() { w.host.pause = nil })
		close(gate)
		told() // its end
	}
}

// during runs test while a scan is on its way that has seen process 1 and 7, in all
// orders of what may come when: the records are heard while it runs, when it has ended,
// or only some time after that.
func during(t *testing.T, happens func(w *world), want ...string) {
	t.Helper()
	for name, late := range map[string]time.Duration{"heard while it runs": -1, "heard at its end": 0, "heard after its end": time.Second} {
		t.Run(name, func(t *testing.T) {
			listening(t, func(w *world) { w.host.spawn(9, 9) }, func(_ *testing.T, w *world) {
				w.kernel.fork(1, 7)
				told()
				w.store.take()
				goOn := w.stopScan(9)
				pass(DefaultInterval)
				w.kernel.with(func() { w.kernel.late = max(0, late) })
				happens(w)
				if late < 0 {
					told()
				}
				goOn()
				if late > 0 {
					pass(late + 100*time.Millisecond)
				}
				w.expect("when the scan has ended", want...)
				w.kernel.with(func() { w.kernel.late = 0 })
				pass(DefaultInterval)
				w.expect("the next scan")
				w.sameAsHost()
			})
		})
	}
}

// sameAsHost fails the test if the durable table is not what the host has.
func (w *world) sameAsHost() {
	w.t.Helper()
	rows := map[int32]*event.Process{}
	for _, p := range w.store.rows() {
		if rows[p.PID] != nil {
			w.t.Errorf("two rows of %d", p.PID)
		}
		rows[p.PID] = p
	}
	w.host.with(func() {
		for pid, p := range w.host.procs {
			row := rows[pid]
			delete(rows, pid)
			switch {
			case row == nil:
				w.t.Errorf("the table lacks %d", pid)
			case row.StartTicks != p.record.StartTicks || (row.State == event.StateZombie) != (p.record.State == event.StateZombie) ||
				p.record.State != event.StateZombie && (row.Exe != p.record.Exe || row.UID != p.record.UID || row.PPID != p.record.PPID || row.CWD != p.record.CWD):
				w.t.Errorf("the table has %+v, the host %+v", row, p.record)
			}
		}
	})
	for pid := range rows {
		w.t.Errorf("the table has %d, which the host has not", pid)
	}
}

func TestEndAfterTheScanHasSeenIt(t *testing.T) {
	during(t, func(w *world) { w.kernel.exit(7, 0) }, "kernel stop 7")
}

func TestZombieAfterTheScanHasSeenIt(t *testing.T) {
	during(t, func(w *world) { w.kernel.die(7, 0) }, "kernel stop 7")
}

func TestStartAfterTheScanHasPassed(t *testing.T) {
	during(t, func(w *world) { w.kernel.fork(1, 8) }, "kernel start 8")
}

// The scan has listed nothing of it, but looks at its PID all the same.
func TestStartUnderTheEyesOfTheScan(t *testing.T) {
	during(t, func(w *world) {
		w.kernel.exit(9, 0)
		w.kernel.fork(1, 9)
		w.kernel.exec(9, "/bin/a")
	}, "kernel stop 9", "kernel start 9", "kernel exec 9 name exe args")
}

func TestExecAfterTheScanHasSeenIt(t *testing.T) {
	during(t, func(w *world) { w.kernel.exec(7, "/bin/a", "a") }, "kernel exec 7 name exe args")
}

func TestExecBeforeTheScanSeesIt(t *testing.T) {
	during(t, func(w *world) { w.kernel.exec(9, "/bin/a", "a") }, "kernel exec 9 name exe args")
}

func TestShortLifeDuringAScan(t *testing.T) {
	during(t, func(w *world) {
		w.kernel.fork(1, 8)
		w.kernel.exit(8, 0)
	}, "kernel start 8", "kernel stop 8")
}

func TestReuseOfAPIDDuringAScan(t *testing.T) {
	during(t, func(w *world) {
		w.kernel.exit(7, 0)
		pass(procTick)
		w.kernel.fork(1, 7)
	}, "kernel stop 7", "kernel start 7")
}

// The scan has seen the first of three, of which none is left.
func TestReuseOfAPIDTwiceDuringAScan(t *testing.T) {
	during(t, func(w *world) {
		w.kernel.exit(7, 0)
		pass(procTick)
		for range 2 {
			w.kernel.fork(1, 7)
			w.kernel.exit(7, 0)
		}
	}, "kernel stop 7", "kernel start 7", "kernel stop 7", "kernel start 7", "kernel stop 7")
}

const procTick = 20 * time.Millisecond

// What a scan brought of a process of which the kernel told meanwhile is too old, but
// the scanner will not bring it again by itself.
func TestWhatWasTooOldIsReadAgain(t *testing.T) {
	listening(t, func(w *world) { w.host.spawn(9, 9) }, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		pass(2 * DefaultInterval) // the scanner knows it
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.CWD = "/srv" })
		goOn := w.stopScan(9)
		pass(DefaultInterval)
		w.kernel.exec(7, "/bin/p1", "p1")
		told()
		goOn()
		w.expect("the kernel has the last word", "kernel exec 7 name")
		pass(DefaultInterval)
		w.expect("and the scan the next one", "scan modify 7 cwd")
		pass(DefaultInterval)
		w.expect("once")
	})
}

// The scanner tells of each exec too, later.
func TestExecIsToldOnce(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		pass(DefaultInterval)
		w.store.take()
		w.kernel.exec(7, "/bin/a")
		w.kernel.exec(7, "/bin/a")
		pass(2 * DefaultInterval)
		w.expect("one event each", "kernel exec 7 name exe args", "kernel exec 7")
		w.kernel.with(func() { w.kernel.quiet = true })
		w.kernel.exec(7, "/bin/a")
		pass(DefaultInterval)
		w.expect("one that nobody told of", "scan exec 7")
		w.kernel.exec(7, "/bin/b")
		pass(DefaultInterval)
		w.expect("and another image", "scan exec 7 name exe")
	})
}

// The exec is durable, and the scanner tells of it after the table was loaded again.
func TestExecIsToldOnceAcrossAnOutage(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		pass(DefaultInterval)
		w.store.take()
		w.kernel.exec(7, "/bin/p1", "p1")
		told()
		w.expect("told", "kernel exec 7 name")
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		w.kernel.fork(1, 8)
		told()
		w.store.with(func() { w.store.fail = nil })
		pass(2 * DefaultInterval)
		w.expect("once", "loss store_unavailable", "kernel start 8")
	})
}

// A scan that fails has told of the exec all the same.
func TestExecIsToldOnceThoughAScanFails(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		pass(DefaultInterval)
		w.store.take()
		w.kernel.exec(7, "/bin/a")
		told()
		w.host.with(func() { w.host.scanErr = errBroken })
		pass(3 * DefaultInterval)
		w.expect("once", "kernel exec 7 name exe args", "loss scan_failed")
	})
}

// A source that does not get on must not let a scan pass for newer than it.
func TestScanDoesNotOvertakeTheKernel(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		told()
		w.store.take()
		pass(DefaultInterval - time.Second)
		w.kernel.with(func() { w.kernel.late = 10 * time.Second })
		w.kernel.exit(7, 0)
		w.kernel.fork(1, 8)
		pass(5 * time.Second)
		w.kernel.with(func() { w.kernel.late = 0 })
		w.store.take()
		pass(DefaultInterval)
		pass(DefaultInterval)
		starts := 0
		for _, e := range w.store.kept() {
			if e.Process.PID == 7 && e.Kind == event.KindStop || e.Process.PID == 8 && e.Kind == event.KindStart {
				starts++
			}
		}
		if starts != 2 {
			w.t.Errorf("%d events of an end and a start", starts)
		}
		w.sameAsHost()
		w.uniqueIDs()
	})
}

// approximate makes the source say that who is forked from now on started a tick later
// than it did.
func (w *world) approximate() {
	since := time.Since(w.kernel.boot)
	w.kernel.with(func() {
		w.kernel.spoil = func(r *kernel.Record) {
			if r.Start > since {
				r.Start, r.StartApprox = r.Start+procfile.Tick, true
			}
		}
	})
}

// A start that is known to a tick only is the same for whoever loads the table.
func TestApproximateStartIsLoaded(t *testing.T) {
	for _, seen := range []bool{false, true} {
		listening(t, nil, func(_ *testing.T, w *world) {
			w.approximate()
			w.kernel.fork(1, 7)
			told()
			if seen {
				pass(DefaultInterval)
			}
			w.expect("told", "kernel start 7")
			for range 2 {
				_ = w.stop()
				w.newRun()
				w.host.with(func() { clear(w.host.reported) })
				w.serve(w.collector())
				w.begin()
				told() // the end of its first scan
				w.expect("another run knows it", "sensor started", "sensor crashed", "loss down")
				w.sameAsHost()
			}
			w.kernel.exit(7, 0)
			told()
			w.expect("goes on", "kernel stop 7")
		})
	}
}

func TestExecOfAnApproximateStartIsToldOnce(t *testing.T) {
	listening(t, func(w *world) { w.host.spawn(9, 9) }, func(_ *testing.T, w *world) {
		w.approximate()
		w.kernel.fork(1, 7)
		told()
		goOn := w.stopScan(9)
		pass(DefaultInterval)
		w.kernel.exec(7, "/bin/a", "a")
		told()
		goOn()
		pass(2 * DefaultInterval)
		w.expect("once", "kernel start 7", "kernel exec 7 name exe args")
	})
}
