package portable

import (
	"strings"
	"testing"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/internal/scantest"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

func TestMain(m *testing.M) { scantest.Main(m, source()) }

func TestScanner(t *testing.T) {
	t.Setenv("HOST_PROC", "/nowhere") // gopsutil's own setting must not lead it elsewhere
	scantest.Run(t, source())
}

// source is this package in the tests that all sources pass.
func source() scantest.Source {
	open := func(proc string) (collect.Scanner, error) { return New(Config{Proc: proc}) }
	return scantest.Source{
		New:         open,
		Everything:  func() (collect.Scanner, error) { return open("") },
		Unsupported: unsupported,
		Known:       func(s collect.Scanner) int { return len(s.(*Scanner).known) },
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

func TestFailedScanIsFollowedByAFullOne(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	f.Put(2, zoo.Entry{Stat: "2 (nonsense)"})
	s := newScanner(t, Config{Proc: f.Dir})
	var snap collect.Snapshot
	if err := s.Scan(t.Context(), false, &snap); err == nil || !strings.Contains(err.Error(), "process 2") {
		t.Fatalf("error %v, want one that names process 2", err)
	}
	f.Remove(2)
	scantest.Whole(t, scantest.Scan(t, s, false), 1) // its first report was thrown away
}
