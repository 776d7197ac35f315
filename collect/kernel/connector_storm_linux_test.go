//go:build amd64 || arm64

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// listenOrSkip opens the source, or skips the test where it is known not to be there.
func listenOrSkip(t testing.TB, c Config) *connectorSource {
	t.Helper()
	s, err := openConnection(c, connectorHost{namespace: ownNamespace, socket: openConnector})
	var u *Unavailable
	if errors.As(err, &u) && u.Reason != ReasonFailed {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// namedStorm is a storm whose processes have a name that nobody else's have.
func namedStorm(t testing.TB) (s storm, name string) {
	t.Helper()
	s = newStorm(t)
	name = "storm" + strconv.Itoa(os.Getpid())
	path := filepath.Join(t.TempDir(), name)
	if err := os.Link(s.path, path); err != nil {
		t.Fatal(err)
	}
	return storm{path}, name
}

func hear(t testing.TB) *recorder {
	t.Helper()
	return &recorder{t: t, source: listenOrSkip(t, Config{})}
}

// settle reads until the source has told of a process that is started for it, and so
// of all that happened before. A source with a small buffer may lose the first of them.
func (r *recorder) settle() {
	r.t.Helper()
	for began := time.Now(); time.Since(began) < deadline; {
		cmd := run(r.t, "nothing", nil)
		last := func(x *Record) bool { return x.Kind == KindExit && int(x.PID) == cmd.Process.Pid }
		if r.within(deadline/12, last) != nil {
			return
		}
	}
	r.t.Fatalf("nothing is told any more, after %d records", len(r.records))
}

// TestConnectorExecStorm: each of many short programs is told of once, with the code
// that it ends with, and with its arguments or with the word that they were gone.
func TestConnectorExecStorm(t *testing.T) {
	const n, tag = 20_000, "storm"
	program, r := compiled(t, "code"), hear(t)
	s, name := namedStorm(t)
	var took time.Duration
	r.during(20*time.Millisecond, func() { took = s.run(t, "exec", n, program, tag) })
	r.settle()
	if r.lost.Any() {
		t.Fatalf("lost %+v", r.lost)
	}
	lives, withArgs, withExe := 0, 0, 0
	seen := make(map[int]bool)
	open := make(map[int32]*Record) // forks of the storm, then execs
	for i := range r.records {
		x := &r.records[i]
		before := open[x.PID]
		switch {
		case x.Kind == KindFork && x.Comm == name:
			if before != nil {
				t.Fatalf("%+v\nafter %+v", x, before)
			}
			open[x.PID] = x
		case before == nil:
		case x.Kind == KindExec:
			if before.Kind != KindFork || x.Start != before.Start && !before.StartApprox {
				t.Fatalf("%+v\nafter %+v", x, before)
			}
			open[x.PID] = x
			if x.Exe != "" && x.Exe != program || int(x.UID) != os.Getuid() || x.PPID == 0 {
				t.Fatalf("got %+v", x)
			}
			if gone := x.Missing.Failed.Has(event.FieldArgs); gone != (len(x.Args) == 0) {
				t.Fatalf("got %+v", x)
			}
			if x.Exe != "" {
				withExe++
			}
			if len(x.Args) > 0 {
				withArgs++
			}
		case x.Kind == KindExit:
			delete(open, x.PID)
			if before.Kind == KindFork { // a worker of the storm
				continue
			}
			if before.Start != x.Start {
				t.Fatalf("%+v\nafter %+v", x, before)
			}
			lives++
			if len(before.Args) == 0 {
				continue
			}
			id, err := strconv.Atoi(strings.TrimPrefix(before.Args[1], tag+"-"))
			if err != nil || seen[id] || len(before.Args) != 3 || before.Args[2] != strconv.Itoa(id%256) || x.Exit.Code != int32(id%256) || x.Exit.Signal != 0 {
				t.Fatalf("%+v with %+v\nafter %+v", x, x.Exit, before)
			}
			seen[id] = true
		}
	}
	if lives != n || len(open) != 0 {
		t.Errorf("%d lives of %d, %d that did not end", lives, n, len(open))
	}
	t.Logf("%d programs in %v, %.0f a second; %.2f %% with arguments, %.2f %% with the executable; note %q",
		n, took, n/took.Seconds(), float64(withArgs)/n*100, float64(withExe)/n*100, r.source.(*connectorSource).Note())
}

// TestConnectorForkStorm: many processes that run nothing; ten times as many with
// PROCMOND_KERNEL_STORM.
func TestConnectorForkStorm(t *testing.T) {
	n := 10_000
	if os.Getenv("PROCMOND_KERNEL_STORM") != "" {
		n = 100_000
	}
	r := hear(t)
	s, name := namedStorm(t)
	var took time.Duration
	r.during(20*time.Millisecond, func() { took = s.run(t, "vfork", n) })
	r.settle()
	forks, exits, approx := r.told(t, name)
	if lost := int(r.lost.Other); forks+exits+lost < 2*n || (lost == 0 && forks < n) || r.lost.Unknown {
		t.Errorf("%d forks, %d exits of %d, lost %+v", forks, exits, n, r.lost)
	}
	t.Logf("%d processes in %v, %.0f a second, lost %+v, %d with an approximate start", n, took, float64(n)/took.Seconds(), r.lost, approx)
}

// told counts the forks by processes of that name, and the exits of their children. It
// fails if anything is told twice.
func (r *recorder) told(t *testing.T, name string) (forks, exits, approx int) {
	t.Helper()
	open := make(map[int32]*Record)
	for i := range r.records {
		x := &r.records[i]
		switch before := open[x.PID]; {
		case x.Kind == KindFork && x.Comm == name:
			if before != nil && !r.lost.Any() {
				t.Fatalf("%+v\nafter %+v", x, before)
			}
			open[x.PID] = x
			forks++
			if x.StartApprox {
				approx++
			}
		case x.Kind == KindExit && before != nil:
			if before.Start != x.Start {
				t.Fatalf("%+v\nafter %+v", x, before)
			}
			delete(open, x.PID)
			exits++
		}
	}
	if len(open) != 0 && !r.lost.Any() {
		t.Errorf("%d did not end", len(open))
	}
	return forks, exits, approx
}

// TestConnectorThreadsEndTogether: a process ends once, whichever of its threads is the
// last.
func TestConnectorThreadsEndTogether(t *testing.T) {
	const n = 3_000
	r := hear(t)
	s, name := namedStorm(t)
	r.during(20*time.Millisecond, func() { s.run(t, "threads", n) })
	r.settle()
	codes := 0
	for i := range r.records {
		if x := &r.records[i]; x.Kind == KindExit && x.Exit.Code == 7 && x.Exit.Signal == 0 {
			codes++
		}
	}
	forks, exits, _ := r.told(t, name)
	if r.lost.Any() || forks != n+2 || exits != forks || codes < n {
		t.Errorf("%d forks, %d exits, %d with the right code, of %d, lost %+v", forks, exits, codes, n, r.lost)
	}
}

// TestConnectorTakeover: a process in which another thread than the first runs a program
// goes on.
func TestConnectorTakeover(t *testing.T) {
	const n = 3_000
	program, r := compiled(t, "code"), hear(t)
	s, name := namedStorm(t)
	r.during(20*time.Millisecond, func() { s.run(t, "takeover", n, program, "take") })
	r.settle()
	lives := make(map[int32][]Kind)
	whole := 0
	for i := range r.records {
		x := &r.records[i]
		_, mine := lives[x.PID]
		switch {
		case x.Kind == KindFork && x.Comm == name:
			lives[x.PID] = []Kind{x.Kind}
		case mine:
			lives[x.PID] = append(lives[x.PID], x.Kind)
		}
		if x.Kind == KindExit && mine {
			if slices.Equal(lives[x.PID], []Kind{KindFork, KindExec, KindExit}) {
				whole++
			} else if len(lives[x.PID]) != 2 || x.Exit.Code != 0 { // a worker of the storm
				t.Errorf("process %d: %v with %+v", x.PID, lives[x.PID], x.Exit)
			}
			delete(lives, x.PID)
		}
	}
	if whole != n || r.lost.Any() {
		t.Errorf("%d whole lives of %d, lost %+v", whole, n, r.lost)
	}
}

// TestConnectorApproximateStart compares the time of a fork, which stands in for a start
// that can not be read, with the start that an eBPF program sees.
func TestConnectorApproximateStart(t *testing.T) {
	const n = 2_000
	exact, r := record(t), hear(t)
	s, name := namedStorm(t)
	from := len(exact.records)
	r.during(20*time.Millisecond, func() { s.run(t, "vfork", n) })
	r.settle()
	exact.settle()
	starts := make(map[int32]time.Duration)
	for _, x := range exact.records[from:] {
		if x.Kind == KindFork && x.Comm == name {
			starts[x.PID] = x.Start
		}
	}
	var late []time.Duration
	ticks, wrong := 0, 0
	for _, x := range r.records {
		start, ok := starts[x.PID]
		switch {
		case x.Kind != KindFork || x.Comm != name || !ok:
			continue
		case !x.StartApprox && x.Start != start.Truncate(procfile.Tick):
			wrong++
		}
		late = append(late, x.At-start)
		if x.At.Truncate(procfile.Tick) != start.Truncate(procfile.Tick) {
			ticks++
		}
	}
	slices.Sort(late)
	if len(late) < n || wrong > 0 || late[0] < 0 || late[len(late)/2] > time.Millisecond {
		t.Fatalf("%d of %d, %d wrong, %v", len(late), n, wrong, late)
	}
	t.Logf("later by %v at the median, %v at 99 %%, %v at most; %d of %d in another tick", late[len(late)/2], late[len(late)*99/100], late[len(late)-1], ticks, len(late))
}
