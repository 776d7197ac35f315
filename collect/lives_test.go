package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/kernel"
)

// lives is a random history of a host whose kernel tells of it, and of a collector that
// also scans it, crashes, and has a store that fails.
type lives struct {
	*world
	t     *rapid.T
	actor *Collector
	goOn  func() // lets the scan go on that was stopped
	lossy bool   // things are lost, and counted
	codes int32
}

// TestRandomLives: whatever happens, and whenever it is told, a process has one start,
// and one end at most. If nothing was lost, each thing that happened has one event.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) { randomLife(t, rt) })
	})
}

func randomLife(t *testing.T, rt *rapid.T) {
	l := &lives{world: newWorld(t), t: rt, goOn: func() {}, lossy: rapid.Bool().Draw(rt, "lossy")}
	defer l.end()
	l.begins()
	actions := map[string]func(*rapid.T){
		"fork": l.fork, "fork2": l.fork, "clone": l.clone, "exec": l.exec, "exec2": l.exec, "exit": l.exit, "exit2": l.exit,
		"die": l.die, "reap": l.reap, "reuse": l.reuse, "change": l.change, "wait": l.wait, "wait2": l.wait,
		"stop": l.stopScan, "go": l.letGo, "doubt": l.doubt, "outage": l.outage, "late": l.late, "late2": l.late, "fail": l.failScan,
		"": l.check,
	}
	if l.lossy {
		maps.Copy(actions, map[string]func(*rapid.T){
			"lose": l.lose, "crash": l.crash, "restart": l.restart, "source": l.source, "absent": l.absent,
		})
	}
	rt.Repeat(actions)
	l.atLast()
}

func (l *lives) begins() {
	l.listen()
	if l.lossy && rapid.Bool().Draw(l.t, "strangers") { // who was there before anybody listened
		l.kernel.fork(1, 6)
		l.kernel.fork(6, 7)
		pass(procTick) // nobody could tell them from who has their PID in the same tick
		l.kernel.with(func() { l.kernel.records, l.kernel.began = nil, l.kernel.tick() })
	}
	l.slowStart()
	l.cfg.Settings.Interval = MinInterval
	l.actor = l.collector()
	l.serve(l.actor)
	l.begin()
}

// slowStart may let the first scan wait.
func (l *lives) slowStart() {
	if rapid.Bool().Draw(l.t, "slow first scan") {
		l.stopScan(nil)
	}
}

// begin is the world's, with a context of this bubble.
func (l *lives) begin() {
	if _, err := l.handle.BeginMonitoring(context.Background(), Begin{Cause: "standalone"}); err != nil {
		l.t.Fatal(err)
	}
	synctest.Wait()
}

// end stops what runs, also after a failure.
func (l *lives) end() {
	l.store.with(func() { l.store.fail, l.store.doubt = nil, nil })
	l.letGo(nil)
	_ = l.stop()
}

func (l *lives) free() int32 {
	pid := rapid.Int32Range(2, 7).Draw(l.t, "pid")
	if l.host.procs[pid] != nil {
		l.t.Skip("taken")
	}
	return pid
}

// living returns the PID of a process, or skips the action.
func (l *lives) living(zombie bool) int32 {
	var pids []int32
	l.host.with(func() {
		for pid, p := range l.host.procs {
			if pid != 1 && zombie == (p.record.State == event.StateZombie) {
				pids = append(pids, pid)
			}
		}
	})
	if len(pids) == 0 {
		l.t.Skip("nobody")
	}
	slices.Sort(pids)
	return rapid.SampledFrom(pids).Draw(l.t, "process")
}

func (l *lives) parent() int32 {
	if rapid.Bool().Draw(l.t, "of the first") {
		return 1
	}
	return l.living(false)
}

func (l *lives) code() int32 { l.codes++; return l.codes }

func (l *lives) fork(*rapid.T)  { l.kernel.fork(l.parent(), l.free()) }
func (l *lives) clone(*rapid.T) { l.kernel.clone(1, l.parent(), l.free()) }
func (l *lives) exit(*rapid.T)  { l.kernel.exit(l.living(false), l.code()) }
func (l *lives) die(*rapid.T)   { l.kernel.die(l.living(false), l.code()) }
func (l *lives) reap(*rapid.T)  { l.kernel.reap(l.living(true)) }

func (l *lives) exec(*rapid.T) {
	exe := fmt.Sprintf("/bin/%d", rapid.IntRange(1, 3).Draw(l.t, "exe"))
	l.kernel.exec(l.living(false), exe, exe)
}

func (l *lives) reuse(*rapid.T) {
	pid := l.living(false)
	for range rapid.IntRange(1, 3).Draw(l.t, "times") {
		l.kernel.exit(pid, l.code())
		l.kernel.fork(1, pid)
	}
}

// change is what only a scan can find.
func (l *lives) change(*rapid.T) {
	pid := l.living(false)
	l.host.with(func() { l.host.procs[pid].record.CWD = fmt.Sprint(rapid.IntRange(0, 3).Draw(l.t, "directory")) })
}

func (l *lives) wait(*rapid.T) {
	pass(rapid.SampledFrom([]time.Duration{5 * time.Millisecond, 30 * time.Millisecond, time.Second, 6 * time.Second}).Draw(l.t, "time"))
	l.alive()
}

// alive fails if the actor has ended.
func (l *lives) alive() {
	select {
	case err := <-l.ended:
		l.ended <- err
		l.t.Fatalf("the actor has ended: %v", err)
	default:
	}
}

// stopScan lets the next scan wait before it looks at a process.
func (l *lives) stopScan(*rapid.T) {
	l.goOn()
	l.goOn = l.world.stopScan(rapid.Int32Range(0, 7).Draw(l.t, "before"))
}

func (l *lives) letGo(*rapid.T) {
	l.goOn()
	l.goOn = func() {}
}

func (l *lives) failScan(*rapid.T) { l.host.with(func() { l.host.scanErr = errBroken }) }

func (l *lives) doubt(*rapid.T) {
	l.inDoubt(rapid.IntRange(1, 3).Draw(l.t, "append"), rapid.Bool().Draw(l.t, "written"), errFull)
}

// outage is a time without a store.
func (l *lives) outage(*rapid.T) {
	l.store.with(func() { l.store.fail, l.store.doubt = func() error { return errFull }, nil })
	pass(rapid.SampledFrom([]time.Duration{time.Millisecond, 10 * time.Second}).Draw(l.t, "time"))
	l.store.with(func() { l.store.fail = nil })
}

// late lets some records overtake others, or all be told later than they happen. What is
// late by less than holdBack may be unknown to Through.
func (l *lives) late(*rapid.T) {
	l.kernel.with(func() {
		l.kernel.late = rapid.SampledFrom([]time.Duration{0, holdBack / 2, time.Second, 8 * time.Second}).Draw(l.t, "late")
		l.kernel.hasty = rapid.Bool().Draw(l.t, "hasty")
	})
}

func (l *lives) lose(*rapid.T) { l.kernel.with(func() { l.kernel.lose = !l.kernel.lose }) }

func (l *lives) absent(*rapid.T) {
	l.kernel.with(func() {
		l.kernel.absent, l.kernel.began = !l.kernel.absent, l.kernel.now()
		l.kernel.lost.Unknown = l.kernel.absent
	})
}

// source is another one that begins where the one before has ended.
func (l *lives) source(*rapid.T) {
	l.kernel.with(func() {
		l.kernel.records, l.kernel.began, l.kernel.note = nil, l.kernel.tick(), "another"
	})
}

// crash ends the actor with an append that fails, written or not.
func (l *lives) crash(*rapid.T) {
	began := time.Now()
	l.inDoubt(1, rapid.Bool().Draw(l.t, "written"), errBroken)
	for crashed := false; !crashed; {
		if time.Since(began) > time.Minute {
			l.t.Fatal("nothing is appended")
		}
		pass(time.Second)
		l.letGo(nil)
		select {
		case err := <-l.ended:
			if !errors.Is(err, errBroken) {
				l.t.Fatalf("the actor has ended: %v", err)
			}
			crashed = true
		default:
		}
	}
	l.store.with(func() { l.store.fail, l.store.doubt = nil, nil })
	l.cancel()
	if rapid.Bool().Draw(l.t, "another collector") {
		l.actor = l.collector()
	}
	l.serve(l.actor)
}

// restart is another run of the daemon: what was not read is gone.
func (l *lives) restart(*rapid.T) {
	l.store.with(func() { l.store.fail, l.store.doubt = nil, nil })
	l.letGo(nil)
	_ = l.stop()
	pass(procTick) // it can not be faster
	l.host.with(func() {
		clear(l.host.reported)
		for _, p := range l.host.procs {
			p.seen, p.exec = false, false
		}
	})
	l.kernel.with(func() { l.kernel.records, l.kernel.began, l.kernel.lost = nil, l.kernel.tick(), kernel.Lost{} })
	l.newRun()
	l.slowStart()
	l.cfg.Settings.Interval = MinInterval
	l.actor = l.collector()
	l.serve(l.actor)
	l.begin()
}

// name is what a process and its events have in common.
type name struct {
	pid   int32
	ticks uint64
}

// counts are the events of processes with one name, which are several if a PID is used
// again within a tick.
type counts struct{ starts, execs, stops int }

// check holds the events against what has happened so far.
func (l *lives) check(*rapid.T) {
	if l.store.breaches != nil {
		l.t.Fatal(l.store.breaches)
	}
	told, stages := map[name]counts{}, map[event.ID]event.Kind{}
	for _, e := range l.store.kept() {
		if e.Kind >= event.KindLoss {
			continue
		}
		l.inOrder(stages, e)
		n := name{e.Process.PID, e.Process.StartTicks}
		c := told[n]
		switch e.Kind {
		case event.KindStart:
			c.starts++
		case event.KindExec:
			if e.Source == event.SourceKernel || !l.lossy {
				c.execs++ // a scan can not tell an exec from a fork of whose parent one was lost
			}
		case event.KindStop:
			c.stops++
		}
		told[n] = c
	}
	happened := l.happened()
	for n, c := range told {
		if h := happened[n]; c.starts > h.starts || c.execs > h.execs || c.stops > h.stops {
			l.t.Fatalf("of %v is told %+v, and happened only %+v:\n%s", n, c, h, l.story(n.pid))
		}
	}
}

// inOrder checks that e can come after what was told of its process.
func (l *lives) inOrder(stages map[event.ID]event.Kind, e *event.Event) {
	last, known := stages[e.Process.ID]
	switch {
	case (e.Kind == event.KindStart) == known, last == event.KindStop:
		l.t.Fatalf("%v after %v of %v:\n%s", line(e), last, e.Process.ID, l.story(e.Process.PID))
	case e.Time.IsZero(), e.Observed.Before(e.Time.Add(-time.Millisecond)):
		l.t.Fatalf("%v at %v, observed at %v", line(e), e.Time, e.Observed)
	}
	stages[e.Process.ID] = e.Kind
}

// story is what was told of a PID and of the daemon.
func (l *lives) story(pid int32) string {
	var b strings.Builder
	for _, e := range l.store.kept() {
		if e.Process.PID == pid || e.Kind >= event.KindLoss {
			fmt.Fprintf(&b, "%v %v %v, at %v\n", e.Seq, line(e), e.Process.ID, e.BootTime)
		}
	}
	return b.String()
}

func (l *lives) happened() map[name]counts {
	all := map[name]counts{{1, 1}: {starts: 1}}
	l.host.with(func() {
		for _, p := range l.kernel.lives {
			n := name{p.record.PID, p.record.StartTicks}
			c := all[n]
			c.starts++
			c.execs += p.execs
			if p.exit != nil {
				c.stops++
			}
			all[n] = c
		}
	})
	return all
}

// atLast lets everything come to rest: then the table is what the host has, and if
// nothing was lost all is told.
func (l *lives) atLast() {
	l.letGo(nil)
	l.store.with(func() { l.store.fail, l.store.doubt = nil, nil })
	l.host.with(func() { l.host.scanErr = nil })
	l.kernel.with(func() {
		if l.kernel.absent {
			l.kernel.absent, l.kernel.began = false, l.kernel.now()
		}
		l.kernel.lose, l.kernel.late = false, 0
	})
	pass(20 * time.Second)
	l.alive()
	l.check(nil)
	l.compareTable()
	before := len(l.store.kept())
	pass(20 * time.Second)
	if now := l.store.kept(); len(now) != before {
		l.t.Fatalf("without cause: %v", line(now[len(now)-1]))
	}
	if !l.lossy {
		l.complete()
	}
}

func (l *lives) compareTable() {
	rows := map[int32]*event.Process{}
	for _, p := range l.store.rows() {
		if rows[p.PID] != nil {
			l.t.Fatalf("two rows of %d", p.PID)
		}
		rows[p.PID] = p
	}
	for pid, p := range l.host.procs {
		row, want := rows[pid], &p.record
		delete(rows, pid)
		switch {
		case row == nil:
			l.t.Fatalf("no row of %d", pid)
		case row.StartTicks != want.StartTicks, (row.State == event.StateZombie) != (want.State == event.StateZombie),
			want.State != event.StateZombie && (row.Exe != want.Exe || row.CWD != want.CWD || row.PPID != want.PPID):
			l.t.Fatalf("row %+v, host %+v", row, want)
		}
	}
	if len(rows) > 0 {
		l.t.Fatalf("rows of nobody: %v", rows)
	}
}

// complete checks that nothing is missing, and that the kernel said it.
func (l *lives) complete() {
	told := map[name]counts{}
	codes := map[int32]bool{}
	for _, e := range l.store.kept() {
		n := name{e.Process.PID, e.Process.StartTicks}
		c := told[n]
		switch {
		case e.Kind == event.KindModify || e.Kind >= event.KindLoss || e.Process.PID == 1:
			continue
		case e.Source != event.SourceKernel:
			l.t.Fatalf("not from the kernel: %v", line(e))
		case e.Kind == event.KindStart:
			c.starts++
		case e.Kind == event.KindExec:
			c.execs++
		case e.Kind == event.KindStop:
			c.stops++
			if e.Exit == nil || codes[e.Exit.Code] {
				l.t.Fatalf("stop of %d without an exit of its own: %+v", e.Process.PID, e.Exit)
			}
			codes[e.Exit.Code] = true
		}
		told[n] = c
	}
	for n, want := range l.happened() {
		if got := told[n]; got != want && n.pid != 1 {
			l.t.Fatalf("of %v is told %+v, and happened %+v:\n%s", n, got, want, l.story(n.pid))
		}
	}
}
