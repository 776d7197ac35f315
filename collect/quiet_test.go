package collect

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/kernel"
)

// excluding keeps the processes that the rules match quiet.
func excluding(rules ...string) func(w *world) {
	return func(w *world) { w.cfg.Settings.Exclude, _ = ParseScope(rules) }
}

func TestExclusionOfWhatTheKernelTells(t *testing.T) {
	listening(t, excluding("exe:/bin/secret"), func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.exec(7, "/bin/secret", "secret")
		w.kernel.fork(7, 8) // with the excluded image
		told()
		w.expect("it was in scope at first", "kernel start 7")
		w.kernel.exec(8, "/bin/open", "open")
		w.kernel.fork(7, 9)
		w.kernel.exit(9, 0)
		told()
		w.expect("into scope", "kernel start 8")
		if p := w.lastOf(event.KindStart).Process; p.Exe != "/bin/open" || p.ParentID.IsZero() {
			t.Errorf("process %+v", p)
		}
		w.kernel.exec(8, "/bin/secret", "secret")
		w.kernel.exec(8, "/bin/other", "other")
		told()
		w.expect("out of it and into it again", "kernel exec 8 name exe args")
		if got := w.lastOf(event.KindExec).Changes[1]; got.Old != "/bin/open" || got.New != "/bin/other" {
			t.Errorf("what is not reported on is told: %+v", got)
		}
		w.kernel.exec(8, "/bin/secret", "secret")
		w.kernel.fork(8, 10)
		w.kernel.exit(7, 0)
		w.kernel.exit(8, 0)
		told()
		w.expect("whoever was told of has an end", "kernel stop 7", "kernel stop 8")
		pass(DefaultInterval)
		w.expect("a scan adds nothing")
		for _, e := range w.store.kept() {
			if e.Process.Exe == "/bin/secret" {
				t.Errorf("%v tells of what is not reported on", e.Kind)
			}
		}
		w.kernel.exit(10, 0)
		told()
		w.expect("nobody knows of 10")
		w.expectTable("nor has it a row", 1)
	})
}

// An excluded process that comes into scope in the eyes of a scan is compared with what
// was reported last.
func TestExclusionAndScan(t *testing.T) {
	listening(t, excluding("exe:/bin/secret"), func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.exec(7, "/bin/secret")
		told()
		w.store.take()
		pass(DefaultInterval)
		w.kernel.with(func() { w.kernel.quiet = true })
		w.kernel.exec(7, "/bin/open")
		w.kernel.with(func() { w.kernel.quiet = false })
		pass(DefaultInterval)
		w.expect("a scan finds it", "scan exec 7 name exe args")
		w.kernel.fork(7, 8)
		told()
		w.expect("its child has its image", "kernel start 8")
		if p := w.lastOf(event.KindStart).Process; p.Exe != "/bin/open" {
			w.t.Errorf("process %+v", p)
		}
	})
}

func TestLimitOfWhatTheKernelTells(t *testing.T) {
	listening(t, func(w *world) { w.cfg.Settings.MaxProcesses = 3 }, func(t *testing.T, w *world) {
		for pid := range int32(4) {
			w.kernel.fork(1, pid+7)
		}
		w.kernel.exec(9, "/bin/a")
		told()
		w.expect("room for two", "kernel start 7", "kernel start 8", "loss max_processes")
		w.kernel.exit(10, 0)
		told()
		w.expect("who is left out has no end")
		w.kernel.exit(7, 0)
		w.kernel.fork(1, 11)
		w.kernel.fork(1, 12)
		told()
		w.expect("room for one more", "kernel stop 7", "kernel start 11")
		w.kernel.exit(8, 0)
		pass(2 * DefaultInterval)
		w.expect("who was left out is let in", "kernel stop 8", "kernel start 9")
		w.expectTable("three of four", 1, 9, 11)
		if got := w.handle.Status().Cycle.LeftOut; got != 1 {
			t.Errorf("%d left out", got)
		}
	})
}

// Who takes up no room leaves none.
func TestLimitAndScope(t *testing.T) {
	listening(t, func(w *world) {
		excluding("exe:/bin/secret")(w)
		w.cfg.Settings.MaxProcesses = 2
	}, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		told()
		w.kernel.exec(7, "/bin/secret") // makes room for 8
		w.kernel.fork(1, 8)
		w.kernel.exit(7, 0) // makes none for 9
		w.kernel.fork(1, 9)
		told()
		w.expect("one after the other", "kernel start 7", "kernel start 8", "kernel stop 7", "loss max_processes")
		w.kernel.exec(9, "/bin/secret")
		w.kernel.exec(8, "/bin/secret")
		w.kernel.fork(1, 10)
		told()
		w.expect("10 has taken it", "kernel start 10")
		w.kernel.exec(8, "/bin/open")
		w.kernel.exec(9, "/bin/open")
		told()
		w.expect("so there is none to come back to")
		w.kernel.with(func() { w.kernel.quiet = true })
		w.kernel.exit(10, 0)
		w.kernel.with(func() { w.kernel.quiet = false })
		w.kernel.fork(1, 10)
		told()
		w.expect("an end that was lost leaves room", "kernel stop 10", "kernel start 10")
	})
}

func TestHeldStarts(t *testing.T) {
	listening(t, func(w *world) { w.cfg.Settings.MinLifetime = time.Second }, func(t *testing.T, w *world) {
		pass(2 * time.Second)
		w.store.take()
		w.kernel.fork(1, 6)
		w.kernel.fork(6, 7)
		w.kernel.exec(7, "/bin/a", "a")
		w.kernel.fork(1, 8)
		pass(500 * time.Millisecond)
		w.kernel.exit(8, 0)
		w.kernel.fork(1, 9)
		w.kernel.die(9, 0)
		w.kernel.exit(6, 0)
		told()
		w.expect("too young")
		if got := w.handle.Status(); got.Totals.ShortLived != 3 || got.Held != 1 {
			t.Errorf("%d short-lived, %d held", got.Totals.ShortLived, got.Held)
		}
		pass(time.Second)
		w.expect("old enough", "kernel start 7")
		e := w.lastOf(event.KindStart)
		if e.Process.Exe != "/bin/a" || e.BootTime != w.host.procs[7].start || e.Process.ParentID.IsZero() {
			t.Errorf("start %+v", e)
		}
		w.kernel.reap(9)
		pass(DefaultInterval)
		w.expect("a scan adds nothing")
		w.expectTable("one is left", 1, 7)
	})
}

// Who is old enough by its end is told, though nobody had the time to say so before.
func TestHeldStartThatIsDueAtItsEnd(t *testing.T) {
	listening(t, func(w *world) { w.cfg.Settings.MinLifetime = time.Second }, func(t *testing.T, w *world) {
		pass(2 * time.Second)
		w.store.take()
		w.kernel.with(func() { w.kernel.lag = 5 * time.Second })
		w.kernel.fork(1, 7)
		w.kernel.fork(7, 8)
		pass(500 * time.Millisecond)
		w.kernel.exec(8, "/bin/a", "a")
		w.kernel.exit(7, 0)
		pass(700 * time.Millisecond)
		w.kernel.exit(8, 3)
		w.kernel.with(func() { w.kernel.lag = 0 })
		told()
		w.expect("told", "kernel start 8", "kernel stop 8")
		if p := w.lastOf(event.KindStart).Process; p.Exe != "/bin/a" || p.ParentID.IsZero() {
			t.Errorf("process %+v", p)
		}
		if e := w.lastOf(event.KindStop).Exit; e == nil || e.Code != 3 {
			t.Errorf("exit %+v", e)
		}
	})
}

// A PID that is somebody else's while it is asked for: the other one has its own time
// to wait.
func TestHeldPIDIsReusedWhileItIsProbed(t *testing.T) {
	listening(t, func(w *world) { w.cfg.Settings.MinLifetime = time.Second }, func(_ *testing.T, w *world) {
		pass(2 * time.Second)
		w.store.take()
		w.kernel.fork(1, 7)
		pass(900 * time.Millisecond)
		w.host.with(func() {
			w.host.probing = func(pid int32) {
				w.host.with(func() { w.host.probing = nil })
				<-time.After(time.Millisecond)
				w.kernel.exit(7, 0)
				w.kernel.fork(1, 7)
			}
		})
		pass(time.Second)
		w.expect("the first was old enough", "kernel start 7", "kernel stop 7")
		pass(time.Second)
		w.expect("and the second is by now", "kernel start 7")
		w.uniqueIDs()
	})
}

// A host whose events need much room makes no batch that is too big.
func TestBatchesOfWhatTheKernelTells(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		args := make([]string, 100)
		for i := range args {
			args[i] = strings.Repeat("a", 300)
		}
		exe := "/" + strings.Repeat("e", 4000)
		for pid := range int32(200) {
			w.kernel.fork(1, pid+7)
			w.kernel.exec(pid+7, exe, args...)
			w.kernel.fork(pid+7, pid+1007)
		}
		pass(time.Second)
		if got := len(w.store.take()); got != 600 {
			t.Errorf("%d events", got)
		}
		if got := len(w.store.written()); got < 10 || got > 60 {
			t.Errorf("%d batches", got)
		}
	})
}

// A storm is taken in batches, between which others are served, and what waits has a
// bound.
func TestStorm(t *testing.T) {
	listening(t, func(w *world) { w.kernel.most = 4096 }, func(t *testing.T, w *world) {
		hold := make(chan struct{})
		w.store.with(func() { w.store.hold = hold })
		const lives = 30_000
		for i := range int32(lives) {
			w.kernel.fork(1, i%20_000+7)
			w.kernel.exit(i%20_000+7, 0)
		}
		told()
		answered := make(chan struct{})
		go func() {
			if _, err := w.handle.AdjustInterval(t.Context(), Adjust{}); err != nil {
				t.Error(err)
			}
			close(answered)
		}()
		for range 200 { // between some 16 it is by chance who comes first
			hold <- struct{}{}
			synctest.Wait()
			if got := w.handle.Status().Waiting; got > maxWaiting+4096 {
				t.Fatalf("%d wait", got)
			}
		}
		select {
		case <-answered:
		default:
			t.Error("no answer in between")
		}
		w.store.with(func() { w.store.hold = nil })
		close(hold)
		pass(2 * DefaultInterval)
		if got := len(w.store.take()); got != 2*lives {
			t.Errorf("%d events", got)
		}
		w.expectTable("all are gone", 1)
	})
}

// While the end of a scan is waited for, records wait too, but not without bound.
func TestStormAtTheEnd(t *testing.T) {
	listening(t, func(w *world) { w.kernel.most = 4096 }, func(t *testing.T, w *world) {
		goOn := w.stopScan(0)
		pass(DefaultInterval)
		done := make(chan ShutdownResult, 1)
		go func() {
			result, err := w.handle.GracefulShutdown(t.Context(), Shutdown{Reason: "test"})
			if err != nil {
				t.Error(err)
			}
			done <- result
		}()
		synctest.Wait()
		for i := range int32(maxWaiting) {
			w.kernel.fork(1, i+10)
			w.kernel.exit(i+10, 0)
		}
		pass(10 * time.Second)
		if got := w.handle.Status().Waiting; got < maxWaiting || got > maxWaiting+4096 {
			t.Errorf("%d wait", got)
		}
		goOn()
		if got := <-done; !got.Complete {
			t.Errorf("result %+v", got)
		}
		if got := len(w.store.take()); got != 2*maxWaiting+1 {
			t.Errorf("%d events", got)
		}
	})
}

// The scan ends in the middle of a storm, with no room for more records: it must not be
// compared before they are in.
func TestScanThatEndsInAStorm(t *testing.T) {
	listening(t, func(w *world) { w.kernel.most = 4096 }, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		told()
		goOn := w.stopScan(0)
		pass(DefaultInterval)
		hold := make(chan struct{})
		w.store.with(func() { w.store.hold = hold })
		for i := range int32(maxWaiting) {
			w.kernel.fork(1, i+10)
			w.kernel.exit(i+10, 0)
		}
		told()
		w.kernel.exit(7, 0)
		goOn()
		w.store.with(func() { w.store.hold = nil })
		close(hold)
		pass(time.Second)
		if got := w.store.take(); slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "scan ") && l != "scan start 1" }) {
			t.Error("the scan was faster")
		}
		if got := w.store.kept(); len(got) != 2+2+2*maxWaiting {
			t.Errorf("%d events", len(got))
		}
	})
}

// Nothing is told: that is nearly always so, and must cost nothing.
func TestNothingToldCostsNothing(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		told()
		before, since := w.store.loadCount()+len(w.store.written()), w.handle.mailbox.status.Load()
		reads := w.kernel.readCount()
		pass(4 * time.Second)
		if w.handle.mailbox.status.Load() != since || w.store.loadCount()+len(w.store.written()) != before {
			t.Error("something was done")
		}
		if got := w.kernel.readCount() - reads; got > 5 {
			t.Errorf("%d readings in 4 s", got)
		}
	})
	c := deaf(t)
	c.hear(time.Now())
	if got := testing.AllocsPerRun(100, func() {
		if c.hear(time.Now()) {
			t.Error("something was heard")
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// deaf is a collector to whom nothing is told.
func deaf(t testing.TB) *Collector {
	w := newWorld(t)
	w.cfg.Events = silence{}
	c := w.collector()
	c.reset()
	if err := c.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.nextScan = time.Now().Add(time.Hour)
	return c
}

type silence struct{}

func (silence) Read(b *kernel.Batch) {
	*b = kernel.Batch{Records: b.Records[:0], Now: 2, Began: 1, Through: 2}
}
func (silence) Filling() <-chan struct{} { return nil }
func (silence) Rest() bool               { return true }
func (silence) Exists(int32) bool        { return false }

// A kernel-told process that uses much CPU from the beginning is reported like one that
// a scan has found.
func TestThresholdsOfWhatTheKernelTells(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		pass(DefaultInterval)
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.CPU += 20 * time.Second })
		pass(DefaultInterval)
		w.expect("67 points", "scan modify 7 cpu")
		w.host.with(func() {
			w.host.procs[7].record.CPU += 20 * time.Second
			w.host.procs[7].record.RSS = 16 << 20
		})
		pass(DefaultInterval)
		w.expect("60 % more than the first reading", "scan modify 7 rss")
	})
}

// A source that gets on, but never to the end of the scan, does not keep the collector
// from others for ever.
func TestEndlessCatchingUp(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		pass(2 * time.Second)
		w.kernel.with(func() { w.kernel.lag = time.Hour })
		pass(DefaultInterval + catchUpMost)
		if _, err := w.handle.AdjustInterval(t.Context(), Adjust{}); err != nil {
			t.Error(err)
		}
		if got := w.handle.Status(); got.Totals.ScansFailed != 1 || got.Cycle.Count == 0 {
			t.Errorf("%+v", got.Totals)
		}
		w.kernel.with(func() { w.kernel.lag = 0 })
		pass(2 * DefaultInterval)
		if got := w.handle.Status(); len(got.Degraded) > 0 {
			t.Errorf("still %q", got.Degraded)
		}
	})
}
