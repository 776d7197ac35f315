package collect

import (
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// firstScan runs test while the first scan of a run is on its way. It has seen process 1,
// 5 and 7, who were there before anybody listened, and waits before it looks at 9.
func firstScan(t *testing.T, test func(t *testing.T, w *world, goOn func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.listen()
		for _, pid := range []int32{5, 7, 9} {
			p := w.host.spawn(pid, uint64(pid))
			p.start, p.record.PPID = time.Duration(pid)*procfile.Tick, 1
		}
		goOn := w.stopScan(9)
		w.serve(w.collector())
		w.begin()
		w.expect("nothing yet", "sensor started")
		test(t, w, goOn)
		_ = w.stop()
		w.checkStore()
	})
}

// What happens during the first scan is told when that has found who was there before:
// a child knows its parent and has its image, and who ends has a start.
func TestFirstScanComesFirst(t *testing.T) {
	firstScan(t, func(t *testing.T, w *world, goOn func()) {
		w.kernel.fork(5, 3)
		w.kernel.fork(5, 12)
		w.kernel.exec(12, "/bin/twelve")
		w.kernel.fork(12, 13)
		w.kernel.exit(13, 3)
		w.kernel.exec(5, "/bin/five")
		w.kernel.exit(7, 4)
		told()
		w.expect("nobody knows the parents yet")
		goOn()
		w.expect("the scan, and then the kernel",
			"scan start 1", "scan start 5", "scan start 7", "scan start 9", "kernel start 3", "kernel start 12",
			"kernel exec 12 name exe args", "kernel start 13", "kernel stop 13", "kernel exec 5 name exe args", "kernel stop 7")
		ids := make(map[int32]event.ID)
		for _, e := range w.store.kept() {
			p := e.Process
			if e.Kind == event.KindStart {
				ids[p.PID] = p.ID
			}
			if p.PPID != 0 && p.PID != 1 && (p.ParentID.IsZero() || p.ParentID != ids[p.PPID]) {
				t.Errorf("%s has the parent %v, want %v", line(e), p.ParentID, ids[p.PPID])
			}
			if e.Kind == event.KindStop && (e.Exit == nil || e.Exit.Code != map[int32]int32{13: 3, 7: 4}[p.PID]) {
				t.Errorf("%s ended with %+v", line(e), e.Exit)
			}
			if p.PID == 3 && p.Exe != "/bin/p5" {
				t.Errorf("3 has the image %q", p.Exe)
			}
		}
		w.kernel.exec(3, "/bin/three")
		told()
		w.expect("goes on", "kernel exec 3 name exe args")
		pass(DefaultInterval)
		w.expect("nothing was missed")
		w.sameAsHost()
	})
}

// A scan that takes long is not waited for.
func TestSlowFirstScanIsNotAwaited(t *testing.T) {
	firstScan(t, func(_ *testing.T, w *world, goOn func()) {
		w.kernel.fork(5, 12)
		pass(baseMost - time.Second)
		w.expect("it waits")
		pass(2 * time.Second)
		w.expect("long enough", "kernel start 12")
		w.kernel.exit(12, 0)
		w.kernel.exit(7, 0) // whom the scan has seen alive
		told()
		w.expect("and so are others", "kernel stop 12")
		goOn()
		w.expect("the scan", "scan start 1", "scan start 5", "scan start 9")
		pass(DefaultInterval)
		w.expect("nothing was missed")
		w.sameAsHost()
	})
}

// What does not fit is not waited for.
func TestStormDuringTheFirstScan(t *testing.T) {
	firstScan(t, func(t *testing.T, w *world, goOn func()) {
		for range maxWaiting {
			w.kernel.fork(5, 12)
			w.kernel.exit(12, 0)
		}
		pass(time.Second)
		goOn()
		pass(time.Second)
		if got := len(w.store.take()); got != 4+2*maxWaiting {
			t.Errorf("%d events, want %d", got, 4+2*maxWaiting)
		}
		w.sameAsHost()
	})
}

// A stop does not wait for the first scan.
func TestShutdownDuringTheFirstScan(t *testing.T) {
	firstScan(t, func(t *testing.T, w *world, goOn func()) {
		w.kernel.fork(5, 12)
		told()
		asked := time.Now()
		const patience = 3 * time.Second
		_, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "test", Deadline: asked.Add(patience)})
		if took := time.Since(asked); err != nil || took > patience+time.Second {
			t.Errorf("took %v: %v", took, err)
		}
		w.expect("it is told nevertheless", "kernel start 12", "sensor stopped")
		goOn()
	})
}

// A table of an earlier run knows who ended with which code.
func TestFirstScanOfAnotherRun(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.fork(1, 8)
		told()
		_ = w.stop()
		w.newRun()
		w.host.with(func() { clear(w.host.reported) })
		w.host.kill(8) // while nobody listens
		w.store.take()
		goOn := w.stopScan(1)
		w.serve(w.collector())
		w.begin()
		w.kernel.exit(7, 9)
		told()
		goOn()
		w.expect("8 by the scan, 7 by the kernel", "sensor started", "sensor crashed", "loss down", "recovered stop 8", "kernel stop 7")
		if e := w.lastOf(event.KindStop); e.Exit == nil || e.Exit.Code != 9 {
			t.Errorf("7 ended with %+v", e.Exit)
		}
	})
}
