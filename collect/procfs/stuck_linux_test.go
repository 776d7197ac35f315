package procfs

import (
	"slices"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/scantest"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// wantStuck checks what is said of a process whose memory can not be looked at.
func wantStuck(t *testing.T, o collect.Observation) {
	t.Helper()
	p := o.Process
	if !p.Missing.Failed.Has(event.FieldArgs) || len(p.Args) != 0 || p.Exe == "" || p.Name == "" || o.Threads < 2 || o.RSS == 0 || o.Exit != nil {
		t.Errorf("got %+v of %+v, want all but the arguments", o, p)
	}
	if p.Missing.Failed.Has(event.FieldEnv) == p.Missing.Unsupported.Has(event.FieldEnv) || p.Missing.Failed.Has(event.FieldCWD) {
		t.Errorf("missing %+v, want the environment to be among it", p.Missing)
	}
}

// TestStuckProcess: a process that nobody can read the arguments of, because the
// lock of its memory is not let go of, stops no scan.
func TestStuckProcess(t *testing.T) {
	for name, config := range map[string]Config{"": {}, "enhanced": {Enhanced: true, Env: []string{zoo.RoleVariable}}} {
		t.Run(name, func(t *testing.T) { testStuckProcess(t, config) })
	}
}

func testStuckProcess(t *testing.T, c Config) {
	c.Patience = 50 * time.Millisecond
	s := newScanner(t, c)
	scantest.Scan(t, s, false)
	victim := zoo.NewStuck(t, "stuck", "behind", "a lock")
	victim.Stick()
	other := zoo.Start(t, "wait", zoo.With("the next one"))
	snap := scantest.Scan(t, s, false)
	wantStuck(t, scantest.Whole(t, snap, victim.PID))
	if p := scantest.Whole(t, snap, other.PID).Process; !slices.Equal(p.Args, []string{"the next one"}) {
		t.Errorf("the next process: %+v", p)
	}
	threads := zoo.Threads(t)
	for i := range 2 * rereadEvery { // its turn comes, and it is not tried again
		began := time.Now()
		o := scantest.Observed(t, scantest.Scan(t, s, i == rereadEvery), victim.PID)
		if took := time.Since(began); took > c.Patience+5*time.Second {
			t.Fatalf("a scan took %v", took)
		}
		if n := s.hung.Len(); n != 1 {
			t.Fatalf("%d workers hang, want 1", n)
		}
		if o.Process != nil {
			wantStuck(t, o)
		}
	}
	if o, err := s.Probe(t.Context(), victim.PID); err != nil {
		t.Error(err)
	} else {
		wantStuck(t, o)
	}
	if n := zoo.Threads(t) - threads; n > 2 {
		t.Errorf("%d more threads than after the first scan", n)
	}
	victim.Release()
	zoo.Await(t, "the arguments", func() bool {
		p := scantest.Observed(t, scantest.Scan(t, s, false), victim.PID).Process
		return p != nil && slices.Equal(p.Args, []string{"stuck", "behind", "a lock"}) && p.Missing.Failed == 0 && len(p.Env) == len(c.Env)
	})
	if n := s.hung.Len(); n != 0 {
		t.Errorf("%d workers hang, want none", n)
	}
}

// TestKnownProcessSticks: what a scan reads of a known process is behind no lock.
func TestKnownProcessSticks(t *testing.T) {
	victim := zoo.NewStuck(t, "known")
	s := newScanner(t, Config{Patience: 50 * time.Millisecond})
	scantest.Scan(t, s, false)
	victim.Stick()
	for range 2 * rereadEvery {
		snap := scantest.Scan(t, s, false)
		if s.turn(victim.PID) {
			wantStuck(t, scantest.Whole(t, snap, victim.PID))
			return
		}
		if o := scantest.Observed(t, snap, victim.PID); o.Process != nil || s.hung.Len() != 0 {
			t.Fatalf("got %+v of %+v, and %d workers hang", o, o.Process, s.hung.Len())
		}
	}
	t.Error("its turn did not come")
}

// TestStuckProcesses: no more than so many are tried, and those that are not are
// read when there is room.
func TestStuckProcesses(t *testing.T) {
	const n, limit = 3, 2
	var victims []*zoo.StuckProcess
	for range n {
		victim := zoo.NewStuck(t, "stuck")
		victim.Stick()
		victims = append(victims, victim)
	}
	s := newScanner(t, Config{Patience: 20 * time.Millisecond, MaxHung: limit})
	threads := zoo.Threads(t)
	for range 3 {
		snap := scantest.Scan(t, s, true)
		for _, victim := range victims {
			wantStuck(t, scantest.Whole(t, snap, victim.PID))
		}
		if n := s.hung.Len(); n != limit {
			t.Fatalf("%d workers hang, want %d", n, limit)
		}
	}
	if more := zoo.Threads(t) - threads; more > limit+4 { // the Go scheduler keeps some in reserve
		t.Errorf("%d more threads", more)
	}
	for _, victim := range victims {
		victim.Release()
		zoo.Await(t, "the arguments", func() bool {
			p := scantest.Observed(t, scantest.Scan(t, s, true), victim.PID).Process
			return slices.Equal(p.Args, []string{"stuck"})
		})
	}
	awaitHung(t, s, 0)
}
