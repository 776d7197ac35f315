package collect

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/kernel"
)

// listening runs a test with a collector that has found process 1 and hears of the
// others.
func listening(t *testing.T, prepare func(w *world), test func(t *testing.T, w *world)) {
	t.Helper()
	bubble(t, func(w *world) {
		w.listen()
		if prepare != nil {
			prepare(w)
		}
	}, func(t *testing.T, w *world) {
		w.begin()
		told() // the end of the first scan
		w.store.take()
		test(t, w)
	})
}

// listen gives the world a kernel, whose first process is there already.
func (w *world) listen() {
	w.kernel = newFakeKernel(w.host)
	w.cfg.Events = w.kernel
	w.host.spawn(1, 1)
}

// told lets the collector hear what has happened.
func told() { pass(100 * time.Millisecond) }

// lastOf is the last event of a kind.
func (w *world) lastOf(k event.Kind) *event.Event {
	w.t.Helper()
	for _, e := range slices.Backward(w.store.kept()) {
		if e.Kind == k {
			return e
		}
	}
	w.t.Fatalf("there is no %v", k)
	return nil
}

// pids are those of the durable table.
func (w *world) pids() []int32 {
	var pids []int32
	for _, p := range w.store.rows() {
		pids = append(pids, p.PID)
	}
	slices.Sort(pids)
	return pids
}

func (w *world) expectTable(what string, want ...int32) {
	w.t.Helper()
	if got := w.pids(); !slices.Equal(got, want) {
		w.t.Errorf("%s: the table has %v, want %v", what, got, want)
	}
}

func TestShortLifeIsTold(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		start := w.kernel.fork(1, 7).start
		pass(time.Second)
		w.kernel.exec(7, "/bin/true", "true", "-v")
		w.kernel.exit(7, 3)
		told()
		w.expect("all of it", "kernel start 7", "kernel exec 7 name exe args", "kernel stop 7")
		w.expectTable("it is gone", 1)
		begin, exec, stop := w.lastOf(event.KindStart), w.lastOf(event.KindExec), w.lastOf(event.KindStop)
		if off := begin.Time.Sub(w.kernel.boot.Add(start)).Abs(); off > time.Millisecond || begin.BootTime != start || begin.Process.StartTicks != uint64(start/procfile.Tick) {
			t.Errorf("start at %v, %v, ticks %d; want %v", begin.Time, begin.BootTime, begin.Process.StartTicks, start)
		}
		if got := exec.BootTime - start; got < time.Second || got > time.Second+time.Millisecond || (exec.Time.Sub(begin.Time)-got).Abs() > time.Millisecond {
			t.Errorf("exec %v after the start, at %v", got, exec.Time)
		}
		if p := exec.Process; p.Exe != "/bin/true" || !slices.Equal(p.Args, []string{"true", "-v"}) || exec.Changes[2].New != "true -v" || exec.Changes[2].Old != "p1" {
			t.Errorf("exec of %q %q, changes %v", p.Exe, p.Args, exec.Changes)
		}
		if stop.Exit == nil || stop.Exit.Code != 3 || stop.Process.CPU != time.Millisecond || stop.Process.Exe != "/bin/true" || !stop.NotBefore.IsZero() {
			t.Errorf("stop %+v, exit %+v", stop, stop.Exit)
		}
		for _, e := range []*event.Event{begin, exec, stop} {
			if e.Process.ID != begin.Process.ID || e.Process.ParentID != w.store.kept()[1].Process.ID {
				t.Errorf("%v of %v, child of %v", e.Kind, e.Process.ID, e.Process.ParentID)
			}
			if late := e.Observed.Sub(e.Time); late < 0 || late > 60*time.Millisecond {
				t.Errorf("%v was heard %v late", e.Kind, late)
			}
		}
		pass(DefaultInterval)
		w.expect("no scan adds to it")
	})
}

// A process that only forks runs its parent's image, and the record says so.
func TestForkInheritsTheImage(t *testing.T) {
	listening(t, func(w *world) {
		r := &w.host.procs[1].record
		r.CWD, r.Cgroup, r.LoginUID, r.Missing.Denied = "/srv", "/a.slice", 1000, fieldsOf(event.FieldNamespaces)
	}, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.fork(7, 8)
		told()
		w.expect("starts", "kernel start 7", "kernel start 8")
		for _, e := range w.store.kept()[2:] {
			p := e.Process
			if p.Exe != "/bin/p1" || p.Args[0] != "p1" || p.CWD != "/srv" || p.Cgroup != "/a.slice" || p.LoginUID != 1000 || p.State != 'R' || p.CPU != 0 {
				t.Errorf("process %+v", p)
			}
			if m := p.Missing; !m.Inherited.Has(event.FieldExe) || !m.Inherited.Has(event.FieldCWD) || m.Inherited.Has(event.FieldUID) ||
				m.Inherited.Has(event.FieldNamespaces) || !m.Denied.Has(event.FieldNamespaces) || m.Absent().Has(event.FieldStartTime) {
				t.Errorf("missing %+v", m)
			}
		}
		if p := w.store.kept()[3].Process; p.ParentID != w.store.kept()[2].Process.ID {
			t.Error("8 does not know its parent")
		}
		pass(DefaultInterval)
		w.expect("the scan finds them as they were told")
	})
}

// The image is the creator's and the parent is the parent, where these are two.
func TestCloneParent(t *testing.T) {
	listening(t, func(w *world) { w.host.spawn(5, 5) }, func(t *testing.T, w *world) {
		w.kernel.clone(1, 5, 7)
		told()
		w.expect("start", "kernel start 7")
		if p := w.lastOf(event.KindStart).Process; p.Exe != "/bin/p5" || p.PPID != 1 || p.ParentID != w.store.kept()[1].Process.ID {
			t.Errorf("process %+v", p)
		}
	})
}

// A child that outlives its parent has another one, which its next exec tells, or a scan.
func TestParentThatDiesFirst(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		first := w.store.kept()[1].Process.ID
		w.kernel.fork(1, 7)
		w.kernel.fork(7, 8)
		w.kernel.fork(7, 9)
		w.kernel.exit(7, 0)
		told()
		w.expect("the parent is gone", "kernel start 7", "kernel start 8", "kernel start 9", "kernel stop 7")
		if p := w.lastOf(event.KindStart).Process; p.PPID != 7 || p.ParentID != w.lastOf(event.KindStop).Process.ID {
			t.Errorf("started by %d", p.PPID)
		}
		w.kernel.exec(8, "/bin/a", "a")
		told()
		w.expect("the exec tells", "kernel exec 8 parent_id name exe args")
		if p := w.lastOf(event.KindExec).Process; p.PPID != 1 || p.ParentID != first {
			t.Errorf("child of %d", p.PPID)
		}
		pass(DefaultInterval)
		w.expect("the scan tells of the other one", "scan modify 9 parent_id")
		w.kernel.exit(9, 0)
		told()
		w.expect("it ends", "kernel stop 9")
		if p := w.lastOf(event.KindStop).Process; p.PPID != 1 || p.ParentID != first {
			t.Errorf("child of %d", p.PPID)
		}
	})
}

func TestExecOfAProcessThatNobodyKnows(t *testing.T) {
	listening(t, func(w *world) { w.host.procs[1].record.UID = 1000 }, func(t *testing.T, w *world) {
		w.host.spawn(7, 7).start = time.Second // before anybody listened, and no scan has seen it
		w.kernel.exec(7, "/bin/a")
		w.host.spawn(8, 8).start = time.Second
		w.kernel.exit(8, 0)
		told()
		w.expect("it is not known when they started")
		if got := w.handle.Status().Totals; got.Unmatched != 2 || got.Heard != 2 {
			t.Errorf("totals %+v", got)
		}
		pass(DefaultInterval)
		w.expect("a scan finds it", "scan start 7")
		w.kernel.with(func() { w.kernel.quiet = true })
		w.kernel.fork(1, 9)
		w.kernel.fork(1, 10)
		w.kernel.with(func() { w.kernel.quiet = false })
		w.kernel.exec(9, "/bin/b", "b")
		w.kernel.exit(10, 4)
		told()
		w.expect("starts that nobody told of", "kernel start 9", "kernel exec 9 exe args", "kernel start 10", "kernel stop 10")
		if p := w.lastOf(event.KindStart).Process; p.Name != "p1" || p.UID != 1000 || !p.Missing.Inherited.Has(event.FieldUID) || !p.Missing.Inherited.Has(event.FieldName) {
			t.Errorf("an exit does not tell who it was: %+v", p)
		}
		w.kernel.with(func() { w.kernel.quiet = true })
		w.kernel.fork(77, 11)
		w.kernel.with(func() { w.kernel.quiet = false })
		w.kernel.exit(11, 0)
		told()
		w.expect("nor did its parent", "kernel start 11", "kernel stop 11")
		if p := w.lastOf(event.KindStart).Process; !p.Missing.Failed.Has(event.FieldUID) || !p.Missing.Failed.Has(event.FieldName) || !p.Missing.Failed.Has(event.FieldExe) || p.Missing.Inherited != 0 {
			t.Errorf("nobody knows who it was: %+v", p)
		}
		pass(DefaultInterval)
		w.expect("and a scan adds nothing")
	})
}

// What could not be read of a new image is not what the old one was.
func TestExecThatCouldNotBeRead(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.with(func() {
			w.kernel.spoil = func(r *kernel.Record) {
				r.Exe, r.Args, r.Missing.Failed = "", nil, fieldsOf(event.FieldExe, event.FieldArgs)
			}
		})
		w.kernel.exec(7, "/bin/true", "true")
		told()
		w.expect("told", "kernel start 7", "kernel exec 7 name")
		p := w.lastOf(event.KindExec).Process
		if p.Exe != "" || p.Args != nil || !p.Missing.Failed.Has(event.FieldExe) || p.Missing.Inherited.Has(event.FieldExe) {
			t.Errorf("process %+v", p)
		}
		pass(DefaultInterval)
		w.expect("what it is, not that it was executed again", "scan modify 7 exe args")
	})
}

func TestArgumentsOfTheKernelAreRedacted(t *testing.T) {
	listening(t, func(w *world) {
		redactor, err := event.NewRedactor([]string{"token"})
		if err != nil {
			t.Fatal(err)
		}
		w.cfg.Settings.Redactor = redactor
	}, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.exec(7, "/bin/a", "a", "--token=verysecret")
		w.kernel.fork(7, 8)
		w.kernel.exit(7, 0)
		told()
		for _, e := range w.store.kept() {
			if text := string(event.AppendJSON(nil, e)); strings.Contains(text, "verysecret") {
				t.Errorf("%v tells the secret: %s", e.Kind, text)
			}
		}
		for _, p := range w.store.rows() {
			if strings.Contains(strings.Join(p.Args, " "), "verysecret") {
				t.Error("the table has the secret")
			}
		}
		pass(DefaultInterval)
		w.expect("the scan covers the same", "kernel start 7", "kernel exec 7 name exe args", "kernel start 8", "kernel stop 7", "scan modify 8 parent_id")
	})
}

func TestZombieThatIsTold(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.die(7, 3)
		told()
		w.expect("told", "kernel start 7", "kernel stop 7")
		w.expectTable("it waits to be collected", 1, 7)
		pass(3 * DefaultInterval)
		w.expect("no scan tells it again")
		_ = w.stop()
		w.newRun()
		w.serve(w.collector())
		w.begin()
		w.expect("nor another run", "sensor started", "sensor crashed", "loss down")
		w.kernel.reap(7)
		w.kernel.fork(1, 7)
		told()
		w.expect("its PID is somebody else's", "kernel start 7")
		w.kernel.exit(7, 0)
		pass(DefaultInterval)
		w.expect("who ends", "kernel stop 7")
		w.expectTable("all are gone", 1)
	})
}

func TestReuseOfAPIDWithinOneTick(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		for range 3 {
			w.kernel.fork(1, 7)
			w.kernel.exit(7, 0)
		}
		w.kernel.fork(1, 7)
		told()
		w.expect("four lives", "kernel start 7", "kernel stop 7", "kernel start 7", "kernel stop 7", "kernel start 7", "kernel stop 7", "kernel start 7")
		w.uniqueIDs()
		pass(DefaultInterval)
		w.expect("the last of which goes on")
		w.expectTable("it is there", 1, 7)
		for range 2 {
			w.kernel.fork(1, 8)
			w.kernel.exit(8, 0)
		}
		told()
		w.expect("two of which nothing is left", "kernel start 8", "kernel stop 8", "kernel start 8", "kernel stop 8")
		w.uniqueIDs()
	})
}

// uniqueIDs fails the test if two starts have one id.
func (w *world) uniqueIDs() {
	w.t.Helper()
	seen := map[event.ID]bool{}
	for _, e := range w.store.kept() {
		if e.Kind == event.KindStart && seen[e.Process.ID] {
			w.t.Errorf("a second process has the id of %d", e.Process.PID)
		}
		seen[e.Process.ID] = true
	}
}

// The end of who had the PID before was lost, but it must have ended.
func TestReuseOfAPIDAfterALostExit(t *testing.T) {
	for _, within := range []time.Duration{0, time.Second} {
		listening(t, nil, func(t *testing.T, w *world) {
			w.kernel.fork(1, 7)
			pass(within)
			w.kernel.with(func() { w.kernel.quiet = true })
			w.kernel.exit(7, 0)
			w.kernel.with(func() { w.kernel.quiet = false })
			began := w.kernel.fork(1, 7).start
			told()
			w.expect("the end is told", "kernel start 7", "kernel stop 7", "kernel start 7")
			w.uniqueIDs()
			stop := w.lastOf(event.KindStop)
			if stop.Exit != nil || stop.BootTime != began || stop.NotBefore.IsZero() || stop.NotBefore.After(stop.Time) {
				t.Errorf("stop %+v", stop)
			}
			pass(DefaultInterval)
			w.expect("and nothing else")
		})
	}
}

// A fork that comes after a scan has found the process is no second start.
func TestScanIsFasterThanTheRecord(t *testing.T) {
	listening(t, func(w *world) {
		w.kernel.fork(1, 7)
		w.kernel.with(func() { w.kernel.records = nil })
	}, func(t *testing.T, w *world) {
		w.kernel.with(func() {
			p := w.host.procs[7]
			w.kernel.records = append(w.kernel.records, toldRecord{Record: kernel.Record{Kind: kernel.KindFork, PID: 7, PPID: 1, Start: p.start, At: p.start}})
		})
		told()
		w.expect("known already")
		w.kernel.exec(7, "/bin/a")
		w.kernel.exit(7, 0)
		told()
		w.expect("goes on", "kernel exec 7 name exe args", "kernel stop 7")
	})
}

// TestOutOfOrder: what is told in the wrong order within the time that records are held
// back is told in the right one.
func TestOutOfOrder(t *testing.T) {
	listening(t, nil, func(_ *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.kernel.exec(7, "/bin/a")
		w.kernel.fork(7, 8)
		w.kernel.exit(8, 0)
		w.kernel.exit(7, 0)
		w.kernel.with(func() { slices.Reverse(w.kernel.records) })
		told()
		w.expect("in order", "kernel start 7", "kernel exec 7 name exe args", "kernel start 8", "kernel stop 8", "kernel stop 7")
	})
}

func TestNobodyIsAskedWhileWaitingForTheAgent(t *testing.T) {
	bubble(t, func(w *world) { w.listen() }, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		pass(time.Hour)
		if got := w.kernel.readCount(); got != 0 {
			t.Errorf("%d readings", got)
		}
		w.begin()
		if got := w.kernel.readCount(); got == 0 {
			t.Error("nobody listens")
		}
	})
}

func TestNobodyTells(t *testing.T) {
	listening(t, func(w *world) { w.kernel.absent = true }, func(t *testing.T, w *world) {
		before := w.kernel.readCount()
		w.kernel.fork(1, 7)
		w.kernel.fork(1, 8)
		w.kernel.exit(8, 0)
		pass(DefaultInterval)
		w.expect("scans do", "scan start 7")
		if got := w.kernel.readCount() - before; got > 35 {
			t.Errorf("%d readings in 30 s", got)
		}
	})
}

// A source that calls is read at once.
func TestFillingSourceIsRead(t *testing.T) {
	listening(t, func(w *world) { w.kernel.restless = true }, func(t *testing.T, w *world) {
		told()
		for range 100 {
			before := w.kernel.readCount()
			w.kernel.filling <- struct{}{}
			synctest.Wait()
			if w.kernel.readCount() == before {
				t.Fatal("it called in vain")
			}
		}
	})
}

// Whoever rests is woken by the first event after that, and not by each.
func TestFirstEventAfterARest(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		for i := range 5 {
			pass(time.Second + time.Duration(i)*restFor/5) // at any moment of a rest
			w.store.take()
			before := w.kernel.readCount()
			w.kernel.fork(1, 7)
			for range 10 {
				w.kernel.exec(7, "/bin/seven")
				pass(time.Millisecond)
			}
			w.kernel.exit(7, 0)
			if got := w.kernel.readCount() - before; got > 1 {
				t.Errorf("read %d times in 10 ms", got)
			}
			pass(2*readEvery + holdBack)
			if got := w.store.take(); len(got) != 12 {
				t.Errorf("%d events are told in time, want 12: %v", len(got), got)
			}
		}
	})
}

// A source that can not call is looked at.
func TestWhoCanNotCallIsLookedAt(t *testing.T) {
	listening(t, func(w *world) { w.kernel.restless = true }, func(_ *testing.T, w *world) {
		pass(time.Minute)
		w.store.take()
		w.kernel.fork(1, 7)
		pass(2*readEvery + holdBack)
		w.expect("in time", "kernel start 7")
	})
}

// fakeGroups are groups by id, without which nobody knows.
type fakeGroups map[uint64]string

func (g fakeGroups) Of(_ int32, start time.Duration, id uint64) (path, container string, ok bool) {
	path, ok = g[id]
	return path, path, ok && start > 0
}

// TestGroupOfAnExec: who starts a service moves it before its exec; where that can not be
// seen, the group of the parent stands until the next scan.
func TestGroupOfAnExec(t *testing.T) {
	listening(t, func(w *world) {
		w.cfg.Groups = fakeGroups{7: "/seven"}
		w.kernel.spoil = func(r *kernel.Record) { r.CgroupID = uint64(r.PID) }
		w.host.with(func() { w.host.procs[1].record.Cgroup = "/init" })
	}, func(t *testing.T, w *world) {
		for pid, want := range map[int32]string{7: "/seven", 8: "/init"} {
			w.kernel.fork(1, pid)
			w.kernel.exec(pid, "/bin/a")
			told()
			exec := w.lastOf(event.KindExec)
			if p := exec.Process; p.Cgroup != want || p.Missing.Inherited.Has(event.FieldCgroup) != (pid == 8) || (p.ContainerID == want) != (pid == 7) {
				t.Errorf("%d: group %q, container %q, missing %+v", pid, p.Cgroup, p.ContainerID, p.Missing)
			}
			if told := slices.ContainsFunc(exec.Changes, func(c event.Change) bool { return c.Field == event.FieldCgroup && c.New == want }); told != (pid == 7) {
				t.Errorf("%d: changes %+v", pid, exec.Changes)
			}
		}
	})
}

// TestMemoryAfterAnExec: what a scan has measured was of the image before.
func TestMemoryAfterAnExec(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.host.with(func() { w.host.procs[7].record.RSS = 500 << 20 })
		pass(DefaultInterval)
		w.kernel.exec(7, "/bin/a")
		told()
		if p := w.lastOf(event.KindExec).Process; p.RSS != 0 || !p.Missing.Unsupported.Has(event.FieldRSS) {
			t.Errorf("the exec says %d bytes, missing %+v", p.RSS, p.Missing)
		}
		w.host.with(func() { w.host.procs[7].record.RSS = 1 << 20 })
		pass(DefaultInterval)
		for _, e := range w.store.kept() {
			if e.Kind == event.KindModify && slices.ContainsFunc(e.Changes, func(c event.Change) bool { return c.Field == event.FieldRSS }) {
				t.Errorf("the memory of another image passes for a change: %+v", e.Changes)
			}
		}
		w.kernel.exit(7, 0)
		told()
		if p := w.lastOf(event.KindStop).Process; p.RSS != 0 && p.RSS != 1<<20 {
			t.Errorf("the stop says %d bytes", p.RSS)
		}
	})
}

// TestEnvironmentAfterAnExec: the kernel does not tell of the new one. Until it is read
// the one before is not passed for it.
func TestEnvironmentAfterAnExec(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world) {
		w.kernel.fork(1, 7)
		w.host.with(func() { w.host.procs[7].record.Env = []string{"TZ=UTC"} })
		pass(DefaultInterval)
		if p := w.lastOf(event.KindModify).Process; !slices.Equal(p.Env, []string{"TZ=UTC"}) || p.Missing.Inherited.Has(event.FieldEnv) {
			t.Fatalf("it was not read: %+v", p)
		}
		w.host.with(func() { w.host.procs[7].record.Env = []string{"TZ=CET"} })
		w.kernel.exec(7, "/bin/a")
		told()
		if p := w.lastOf(event.KindExec).Process; !p.Missing.Inherited.Has(event.FieldEnv) {
			t.Errorf("the exec says that its environment is %q", p.Env)
		}
		pass(DefaultInterval)
		if p := w.lastOf(event.KindModify).Process; !slices.Equal(p.Env, []string{"TZ=CET"}) || p.Missing.Inherited.Has(event.FieldEnv) {
			t.Errorf("the next scan says %q, missing %+v", p.Env, p.Missing)
		}
	})
}
