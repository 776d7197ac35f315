//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// TestTrackerImage: what an exec has replaced by the time it is read belongs to the
// one that replaced it.
func TestTrackerImage(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(7, zoo.Sleeper(7, 5))
	for name, second := range map[string]func(at uint64) message{
		"exec": func(at uint64) message { return execed(at, 7) },
		"fork": func(at uint64) message { return forked(at, 1, 7) },
	} {
		t.Run(name, func(t *testing.T) {
			w, r := scripted(t, f.Dir)
			at := now(t)
			w.say(execed(at, 7), second(at+1))
			all := r.next(2)
			if x := all[0]; x.Args != nil || x.Exe != "" || x.Comm != "" || !x.Missing.Failed.Has(event.FieldArgs) || !x.Missing.Failed.Has(event.FieldUID) {
				t.Errorf("the first has %+v", x)
			}
			if x := all[1]; name == "exec" && !slices.Equal(x.Args, []string{"sleeper", "--for", "ever"}) {
				t.Errorf("the second has %+v", x)
			}
		})
	}
}

// TestTrackerOthersImage: what another process with the same PID has is not told.
func TestTrackerOthersImage(t *testing.T) {
	f := zoo.NewFixture(t)
	w, r := scripted(t, f.Dir)
	f.Put(7, zoo.Sleeper(7, 5))
	w.say(forked(now(t), 1, 7))
	if x := r.next(1)[0]; x.Start != 5*procfile.Tick || x.StartApprox {
		t.Fatalf("got %+v", x)
	}
	for name, start := range map[string]uint64{"earlier": 4, "later": 6, "in the future": 1 << 40} {
		f.Put(7, zoo.Sleeper(7, start))
		w.say(execed(now(t), 7))
		if x := r.next(1)[0]; x.Args != nil || x.Exe != "" || x.Start != 5*procfile.Tick || !x.Missing.Failed.Has(event.FieldArgs) {
			t.Errorf("%s: got %+v", name, x)
		}
	}
	f.Put(7, zoo.Sleeper(7, 5))
	w.say(execed(now(t), 7))
	if x := r.next(1)[0]; len(x.Args) != 3 || x.Exe != "/usr/bin/sleeper" || x.PPID != 815 || x.Session != 815 || x.UID != 1 || x.EUID != 2 || x.GID != 5 || x.EGID != 6 || x.CapEffective != 5 || !x.Missing.IsZero() {
		t.Errorf("got %+v", x)
	}
}

// TestTrackerInherits: a child that is gone has what its parent had, and what it was
// told to have changed itself.
func TestTrackerInherits(t *testing.T) {
	f := zoo.NewFixture(t)
	w, r := scripted(t, f.Dir)
	f.Put(7, zoo.Sleeper(7, 5))
	at := now(t)
	w.say(
		forked(at, 7, 8), execed(at+1, 8),
		happened(whatUID, at+2, 8, 8, 11, 12), happened(whatSID, at+3, 8, 8),
		forked(at+4, 8, 9), exited(at+5, 9, 9, 3<<8, 8), exited(at+6, 8, 8, 9|0x80, 0),
	)
	all := r.next(5)
	inherited := handed
	if x := all[0]; x.Comm != "sleeper" || x.UID != 1 || x.CapEffective != 5 || x.Session != 815 || x.Missing.Inherited != inherited || !x.StartApprox || x.Start != x.At || x.ParentStart != 5*procfile.Tick {
		t.Errorf("fork: %+v", x)
	}
	inherited = inherited.Without(event.FieldName).Without(event.FieldCapabilities)
	if x := all[1]; x.Comm != "" || x.UID != 1 || x.CapEffective != 0 || x.Missing.Inherited != inherited || x.PPID != 7 || x.Start != all[0].Start || !x.Missing.Failed.Has(event.FieldCapabilities) {
		t.Errorf("exec: %+v", x)
	}
	if x := all[2]; x.UID != 11 || x.EUID != 12 || x.GID != 5 || x.Session != 8 || x.TTY != 0 || x.PPID != 8 {
		t.Errorf("second fork: %+v", x)
	}
	if x := all[3]; *x.Exit != (event.Exit{Code: 3}) || x.PPID != 8 || x.Start != all[2].Start {
		t.Errorf("exit: %+v of %+v", x.Exit, x)
	}
	if x := all[4]; *x.Exit != (event.Exit{Signal: 9, Core: true}) || x.PPID != 7 || x.ParentStart != 5*procfile.Tick || x.Start != all[0].Start {
		t.Errorf("second exit: %+v of %+v", x.Exit, x)
	}
}

// TestTrackerNoArguments: a process may have none, before Linux 5.18 not even an empty
// one. So has one that has no memory any more, of which they are not known.
func TestTrackerNoArguments(t *testing.T) {
	f := zoo.NewFixture(t)
	w, r := scripted(t, f.Dir)
	for exe, gone := range map[string]bool{"/usr/bin/sleeper": false, "": true} {
		e := zoo.Sleeper(7, 5)
		e.Cmdline, e.Exe = "", exe
		f.Put(7, e)
		f.Must(os.WriteFile(f.Path(7, "cmdline"), nil, 0o600))
		w.say(execed(now(t), 7))
		if x := r.next(1)[0]; len(x.Args) != 0 || x.Missing.Failed.Has(event.FieldArgs) != gone {
			t.Errorf("executable %q: got %+v", exe, x)
		}
	}
}

// TestTrackerOrphan: who ends after its parent has the parent that the end tells, and
// none if that tells none.
func TestTrackerOrphan(t *testing.T) {
	w, r := scripted(t, t.TempDir())
	at := now(t)
	w.say(
		forked(at, 1, 6), forked(at+1, 6, 7), forked(at+2, 7, 8), forked(at+3, 7, 9), exited(at+4, 7, 7, 0, 6),
		exited(at+5, 8, 8, 0, 6), exited(at+6, 9, 9, 0, 0),
	)
	all := r.next(7)
	if x := all[5]; x.PID != 8 || x.PPID != 6 {
		t.Errorf("got %+v", x)
	}
	if x := all[6]; x.PID != 9 || x.PPID != 0 || x.ParentStart != 0 {
		t.Errorf("got %+v", x)
	}
}

// TestTrackerReusedPID: the exit of a process that was reaped is told after the next
// one with its PID has begun.
func TestTrackerReusedPID(t *testing.T) {
	w, r := scripted(t, t.TempDir())
	at := now(t)
	w.say(
		forked(at, 1, 7),
		forked(at+10, 1, 7), exited(at+20, 7, 7, 1<<8, 0), exited(at+30, 7, 7, 2<<8, 1),
		forked(at+40, 1, 7), forked(at+50, 1, 7), exited(at+60, 7, 7, 4<<8, 1), exited(at+70, 7, 7, 3<<8, 0),
	)
	all := r.next(8)
	of := func(start time.Duration) (code int32) {
		for _, x := range all {
			if x.Kind == KindExit && x.Start == start {
				code = code*10 + x.Exit.Code
			}
		}
		return code
	}
	for i, want := range map[int]int32{0: 1, 1: 2, 4: 3, 5: 4} {
		if got := of(all[i].Start); got != want {
			t.Errorf("process %d ended with %d, want %d", i, got, want)
		}
	}
	if all[2].At >= all[1].At {
		t.Errorf("the first ended at %v, the second began at %v", all[2].At, all[1].At)
	}
}

// deadLeader is a process whose first thread has ended, with so many threads.
func deadLeader(threads int) zoo.Entry {
	e := zoo.Sleeper(7, 5)
	e.Stat = fmt.Sprintf("7 (sleeper) Z 815 7 815 0 -1 0 0 0 0 0 0 0 0 0 20 0 %d 0 5 0 0\n", threads)
	e.Cmdline, e.Exe = "", ""
	return e
}

// TestTrackerThreads: a process ends with its last thread, and has the status of that.
func TestTrackerThreads(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(7, zoo.Sleeper(7, 5))
	for name, first := range map[string][]message{
		"known":   {forked(now(t), 1, 7), threadMade(now(t), 7, 71), threadMade(now(t), 7, 72)},
		"unknown": {},
	} {
		t.Run(name, func(t *testing.T) {
			w, r := scripted(t, f.Dir)
			f.Put(7, zoo.Sleeper(7, 5))
			w.say(first...)
			r.next(min(len(first), 1))
			w.say(exited(now(t), 71, 7, 0, 0)) // is not told
			w.say(forked(now(t), 7, 8))
			r.next(1)
			f.Put(7, deadLeader(2))
			w.say(exited(now(t), 7, 7, 1<<8, 815)) // nor is this
			w.say(forked(now(t), 1, 9))
			r.next(1)
			f.Put(7, deadLeader(1))
			w.say(exited(now(t), 72, 7, 5<<8, 0))
			if x := r.next(1)[0]; x.Kind != KindExit || x.PID != 7 || x.Exit.Code != 5 || x.Start != 5*procfile.Tick {
				t.Errorf("got %+v", x)
			}
			w.say(exited(now(t), 73, 7, 6<<8, 0), forked(now(t), 1, 10))
			r.next(1)
		})
	}
}

// TestTrackerFormerLeader: the thread that was the first one says late that it has
// ended, when another one has run a program in its place.
func TestTrackerFormerLeader(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(7, zoo.Sleeper(7, 5))
	w, r := scripted(t, f.Dir)
	at := now(t)
	w.say(forked(at, 1, 7), threadMade(at, 7, 71), execed(at+1, 7), exited(at+2, 7, 7, 0, 1), forked(at+3, 1, 8))
	if all := r.next(3); all[2].Kind != KindFork {
		t.Errorf("got %+v", all)
	}
	f.Remove(7)
	w.say(exited(now(t), 7, 7, 5<<8, 0))
	if x := r.next(1)[0]; x.Exit.Code != 5 || x.Start != 5*procfile.Tick {
		t.Errorf("got %+v", x)
	}
}

// TestTrackerDoubt: after a loss, a thread may have been made that was not told of.
func TestTrackerDoubt(t *testing.T) {
	f := zoo.NewFixture(t)
	w, r := scripted(t, f.Dir)
	f.Put(7, zoo.Sleeper(7, 5))
	w.say(forked(now(t), 1, 7))
	r.next(1)
	f.Put(7, deadLeader(2))
	w.lose(3, unix.ENOBUFS)
	w.say(exited(now(t), 7, 7, 0, 1), forked(now(t), 1, 8))
	if x := r.next(1)[0]; x.Kind != KindFork {
		t.Errorf("got %+v", x)
	}
	if want := (Lost{Other: 3, Unknown: r.lost.Unknown}); r.lost != want {
		t.Errorf("lost %+v, want %+v", r.lost, want)
	}
}

// TestTrackerIsBounded: what is remembered of processes whose end is lost is
// forgotten.
func TestTrackerIsBounded(t *testing.T) {
	files, err := newProcessFiles(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.close() }()
	clock, err := newBootClock()
	if err != nil {
		t.Fatal(err)
	}
	tr := newTracker(files, clock)
	for pid := range int32(2 * maxLives) {
		m := forked(now(t), 1, pid)
		tr.fork(&m)
		tr.records = tr.records[:0]
	}
	if n := len(tr.lives); n > maxLives {
		t.Errorf("%d are remembered", n)
	}
}

// TestConnectorLosses: what the kernel drops is counted when it shows, and what does
// not show is said to be unknown.
func TestConnectorLosses(t *testing.T) {
	w, r := scripted(t, t.TempDir())
	fork := func(cpu uint32) message {
		m := forked(now(t), 1, 7)
		m.cpu = cpu
		return m
	}
	w.say(fork(0))
	r.next(1)
	w.lose(0, unix.ENOBUFS)
	for !r.lost.Unknown {
		r.drain()
	}
	r.lost = Lost{}
	w.lose(5, nil)
	w.say(fork(1)) // the base of another CPU
	w.say(fork(0))
	r.next(2)
	for r.lost.Other < 6 { // one of its numbers went to the other CPU
		r.drain()
	}
	if want := (Lost{Other: 6}); r.lost != want {
		t.Errorf("lost %+v, want %+v", r.lost, want)
	}
}

// TestConnectorStuck: reading the arguments of a stuck process is left behind, and
// what else happens is told.
func TestConnectorStuck(t *testing.T) {
	// Its file system ends with the thread that has started it: no worker may get that.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	victim := zoo.NewStuck(t, "stuck")
	victim.Stick()
	w, r := scripted(t, "/proc")
	s := r.source.(*connectorSource)
	w.say(execed(now(t), victim.PID), forked(now(t), 1, 1<<22))
	all := r.next(2)
	st := statOf(t, int(victim.PID))
	if x := all[0]; x.Args != nil || !x.Missing.Failed.Has(event.FieldArgs) || x.Exe != testBinary(t) || x.Start != start(&st) || x.Comm == "" {
		t.Errorf("got %+v", x)
	}
	w.say(execed(now(t), victim.PID)) // is not tried again
	r.next(1)
	if n := s.tracker.files.hung.Len(); n != 1 || s.Note() == "" {
		t.Errorf("%d workers hang, note %q", n, s.Note())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	victim.Release()
	zoo.Await(t, "the worker", func() bool { return s.tracker.files.hung.Len() == 0 })
}

// TestTrackerForgets: after losses, who has ended without a word is forgotten, and
// who lives is not.
func TestTrackerForgets(t *testing.T) {
	w, r := scripted(t, "/proc")
	tr := r.source.(*connectorSource).tracker
	pid, err := zoo.FreePID()
	if err != nil {
		t.Skip(err)
	}
	w.say(forked(now(t), 1, pid), forked(now(t), 1, int32(os.Getpid())))
	r.next(2)
	w.lose(1, unix.ENOBUFS)
	w.say(forked(now(t), 1, pid+1))
	r.next(1)
	if err := r.source.Close(); err != nil { // then the tracker is ours
		t.Fatal(err)
	}
	if _, ok := tr.lives[pid]; ok || tr.lives[int32(os.Getpid())] == nil || tr.lives[pid+1] == nil {
		t.Errorf("it remembers %v", tr.lives)
	}
}

// TestTrackerLateLook: when the end of a first thread is looked at, a later image of the
// process has ended too.
func TestTrackerLateLook(t *testing.T) {
	w, r := scripted(t, t.TempDir())
	at := now(t)
	w.say(
		forked(at, 1, 7), threadMade(at, 7, 71), exited(at+1, 7, 7, 3<<8, 1),
		execed(at+2, 7), exited(at+3, 7, 7, 5<<8, 1), forked(at+4, 1, 8),
	)
	all := r.next(4)
	if x := all[3]; x.Kind != KindExit || x.Exit.Code != 5 || x.Start != all[0].Start || x.At != all[2].At-1 {
		t.Errorf("got %+v", all)
	}
}
