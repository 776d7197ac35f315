package procfs

import (
	"strings"
	"testing"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/scantest"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

func TestMain(m *testing.M) { scantest.Main(m, source()) }

func TestScanner(t *testing.T) { scantest.Run(t, source()) }

// source is this package in the tests that all sources pass.
func source() scantest.Source {
	return scantest.Source{
		New: func(proc string) (collect.Scanner, error) { return New(Config{Proc: proc}) },
		Everything: func() (collect.Scanner, error) {
			return New(Config{Enhanced: true, Env: []string{zoo.RoleVariable}})
		},
		Unsupported: unsupported,
		Known:       func(s collect.Scanner) int { return len(s.(*Scanner).known.records) },
	}
}

func newScanner(t testing.TB, c Config) *Scanner {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNonsenseIsSkipped: no process can keep the others from being seen.
func TestNonsenseIsSkipped(t *testing.T) {
	f := newFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	f.Put(2, zoo.Entry{Stat: "2 (nonsense)"})
	f.Put(3, zoo.Entry{Stat: zoo.Sleeper(4, 1).Stat})
	f.Put(5, zoo.Entry{Stat: strings.Repeat("5 (x) ", 1000)})
	f.Put(6, zoo.Sleeper(6, 1))
	snap := scantest.Scan(t, newScanner(t, Config{Proc: f.Dir}), false)
	scantest.Whole(t, snap, 1)
	scantest.Whole(t, snap, 6)
	if len(snap.Observations) != 2 || snap.Hidden != 3 {
		t.Errorf("%d processes and %d hidden, want 2 and 3", len(snap.Observations), snap.Hidden)
	}
}

// TestSteadyScanAllocatesNothing: what a scan of known processes costs in memory
// does not grow with their number.
func TestSteadyScanAllocatesNothing(t *testing.T) {
	allocs := func(n int, enhanced bool) float64 {
		f := newFixture(t)
		f.putSelf()
		for pid := 1; pid <= n; pid++ {
			f.Put(pid, zoo.Sleeper(pid, 1))
			f.surround(pid, surrounded)
		}
		s, snap := newScanner(t, Config{Proc: f.Dir, Enhanced: enhanced, Env: []string{"LANG"}}), new(collect.Snapshot)
		if enhanced {
			s.enhanced.exact = true
		}
		return testing.AllocsPerRun(2*rereadEvery, func() {
			if err := s.Scan(t.Context(), false, snap); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, enhanced := range []bool{false, true} {
		if few, many := allocs(10, enhanced), allocs(200, enhanced); many > few || few > 20 {
			t.Errorf("enhanced %v: %v allocations a scan with 10 processes, %v with 200", enhanced, few, many)
		}
	}
}

// TestZombieIsAskedOnce: how it ended is found out at the first sight.
func TestZombieIsAskedOnce(t *testing.T) {
	s := newScanner(t, Config{})
	c := zoo.Start(t, "exit 7", nil)
	c.Ended()
	first := scantest.Observed(t, scantest.Scan(t, s, false), c.PID)
	second := scantest.Observed(t, scantest.Scan(t, s, false), c.PID)
	if first.Exit == nil || first.Exit != second.Exit || *first.Exit != (event.Exit{Code: 7, CPU: first.CPU}) {
		t.Errorf("exits %+v and %+v", first.Exit, second.Exit)
	}
}
