//go:build amd64 || arm64

package kernel

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// storm is a program of testdata.
type storm struct{ path string }

func newStorm(t testing.TB) storm { return storm{compiled(t, "storm")} }

// run makes n processes and returns how long that took.
func (s storm) run(t testing.TB, kind string, n int, args ...string) time.Duration {
	const workers = "2"
	out, err := exec.CommandContext(t.Context(), s.path, append([]string{kind, strconv.Itoa(n), workers}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("storm %s: %v\n%s", kind, err, out)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Error(err)
	}
	return time.Duration(ns)
}

// identity is a process.
type identity struct {
	pid   int32
	start time.Duration
}

func identityOf(r *Record) identity { return identity{r.PID, r.Start} }

// TestExecStorm: each of many short programs is told of once, with its arguments, and
// with the code that it ends with.
func TestExecStorm(t *testing.T) {
	const n, tag = 20_000, "storm"
	program, s, r := compiled(t, "code"), newStorm(t), record(t)
	var took time.Duration
	r.during(20*time.Millisecond, func() { took = s.run(t, "exec", n, program, tag) })
	if r.lost.Any() {
		t.Fatalf("lost %+v", r.lost)
	}
	execs := make(map[identity]int)
	for i := range r.records {
		x := &r.records[i]
		if x.Kind != KindExec || x.Exe != program {
			continue
		}
		if len(x.Args) != 3 || x.Args[0] != program || !x.Missing.IsZero() || x.Comm != "code" || x.PPID == 0 || x.ParentStart == 0 {
			t.Fatalf("got %+v", x)
		}
		id, err := strconv.Atoi(strings.TrimPrefix(x.Args[1], tag+"-"))
		if err != nil || x.Args[2] != strconv.Itoa(id%256) {
			t.Fatalf("arguments %q", x.Args)
		}
		if _, twice := execs[identityOf(x)]; twice {
			t.Fatalf("told twice: %+v", x)
		}
		execs[identityOf(x)] = id
	}
	seen := make(map[int]bool)
	ends, forks := make(map[identity]int), make(map[identity]int)
	for i := range r.records {
		x := &r.records[i]
		id, ok := execs[identityOf(x)]
		switch {
		case !ok:
		case x.Kind == KindFork:
			forks[identityOf(x)]++
		case x.Kind == KindExit:
			ends[identityOf(x)]++
			if want := (event.Exit{Code: int32(id % 256), CPU: x.Exit.CPU, MaxRSS: x.Exit.MaxRSS}); *x.Exit != want {
				t.Errorf("process %d ended with %+v, want %+v", id, *x.Exit, want)
			}
		}
		seen[id] = true
	}
	if len(execs) != n || len(seen) != n || len(forks) != n || len(ends) != n {
		t.Errorf("%d execs of %d ids, %d forks, %d exits, want %d of each", len(execs), len(seen), len(forks), len(ends), n)
	}
	for id := range execs {
		if forks[id] != 1 || ends[id] != 1 {
			t.Errorf("%d forks and %d exits of %v", forks[id], ends[id], id)
		}
	}
	t.Logf("%d programs in %v, %.0f a second", n, took, n/took.Seconds())
}

// TestForkStorm: many processes that run nothing; ten times as many with
// PROCMOND_KERNEL_STORM.
func TestForkStorm(t *testing.T) {
	n := 10_000
	if os.Getenv("PROCMOND_KERNEL_STORM") != "" {
		n = 100_000
	}
	s, r := newStorm(t), record(t)
	var took time.Duration
	r.during(20*time.Millisecond, func() { took = s.run(t, "vfork", n) })
	forks, exits := r.pairs(t, "storm")
	if r.lost.Any() || forks < n || exits < n {
		t.Errorf("%d forks, %d exits of %d, lost %+v", forks, exits, n, r.lost)
	}
	t.Logf("%d processes in %v, %.0f a second", n, took, float64(n)/took.Seconds())
}

// TestThreadsEndTogether: a process ends once, whichever of its threads is the last.
func TestThreadsEndTogether(t *testing.T) {
	for name, h := range map[string]host{"told": thisHost(), "found out": oldHost()} {
		t.Run(name, func(t *testing.T) {
			const n = 3_000
			s, r := newStorm(t), &recorder{t: t, source: openOrSkip(t, Config{}, h)}
			r.during(20*time.Millisecond, func() { s.run(t, "threads", n) })
			codes := 0
			for i := range r.records {
				if x := &r.records[i]; x.Kind == KindExit && x.Exit.Code == 7 && x.Exit.Signal == 0 {
					codes++
				}
			}
			forks, exits := r.pairs(t, "storm")
			if r.lost.Any() || forks < n || exits < n || codes < n {
				t.Errorf("%d forks, %d exits, %d with the right code, of %d, lost %+v", forks, exits, codes, n, r.lost)
			}
		})
	}
}

// pairs counts forks by processes of that name, and the exits of their children. It
// fails if anything is told twice.
func (r *recorder) pairs(t *testing.T, name string) (forks, exits int) {
	t.Helper()
	children := make(map[identity]bool)
	for i := range r.records {
		x := &r.records[i]
		if x.Kind != KindFork || x.Comm != name {
			continue
		}
		if children[identityOf(x)] {
			t.Fatalf("told twice: %+v", x)
		}
		children[identityOf(x)] = true
	}
	ended := make(map[identity]bool)
	for i := range r.records {
		x := &r.records[i]
		if x.Kind != KindExit || !children[identityOf(x)] {
			continue
		}
		if ended[identityOf(x)] {
			t.Fatalf("told twice: %+v", x)
		}
		ended[identityOf(x)] = true
	}
	return len(children), len(ended)
}

// TestLossIsCounted: what finds no room in a small ring that nobody reads is counted
// by kind, to the last one.
func TestLossIsCounted(t *testing.T) {
	const n = 3_000
	program, s := compiled(t, "code"), newStorm(t)
	wide := record(t) // hears everything, also of other processes on this host
	wide.drain()
	before := len(wide.records)
	narrow := &recorder{t: t, source: openOrSkip(t, Config{RingBytes: 1}, thisHost())}
	wide.drain()
	from := len(wide.records)
	wide.during(20*time.Millisecond, func() { s.run(t, "exec", n, program, "lost") })
	to := len(wide.records)
	narrow.drain()
	wide.drain()
	if wide.lost.Any() || len(narrow.records) == 0 || narrow.lost.Execs < n/2 {
		t.Fatalf("lost %+v and %+v, got %d", wide.lost, narrow.lost, len(narrow.records))
	}
	got := kindsOf(narrow.records)
	got[KindFork] += int(narrow.lost.Forks)
	got[KindExec] += int(narrow.lost.Execs)
	got[KindExit] += int(narrow.lost.Exits)
	least, most := kindsOf(wide.records[from:to]), kindsOf(wide.records[before:])
	for kind, n := range got {
		if n < least[kind] || n > most[kind] {
			t.Errorf("%v: %d told or counted, want %d to %d", kind, n, least[kind], most[kind])
		}
	}
	told := kindsOf(wide.records)[KindExec]
	narrow.lost = Lost{}
	narrow.drain()
	wide.drain()
	if more := kindsOf(wide.records)[KindExec] - told; int(narrow.lost.Execs) > more {
		t.Errorf("counted again: %+v", narrow.lost)
	}
}

func kindsOf(records []Record) map[Kind]int {
	n := make(map[Kind]int)
	for i := range records {
		n[records[i].Kind]++
	}
	return n
}

// TestFilling: the reader is told that the ring fills, and not before.
func TestFilling(t *testing.T) {
	s := newStorm(t)
	const size = 256 << 10
	source := openOrSkip(t, Config{RingBytes: size}, thisHost())
	r := &recorder{t: t, source: source}
	from, _ := wakeBand(size)
	for range 2 {
		r.drain()
		select {
		case <-r.source.Filling(): // it was still being told of what has just been read
		default:
		}
		s.run(t, "vfork", 50)
		select {
		case <-r.source.Filling():
			if fill := source.ring.fill(); fill < from { // it is others who fill it, too
				t.Errorf("woken at %d bytes", fill)
			}
		case <-time.After(50 * time.Millisecond):
		}
		s.run(t, "vfork", 1000)
		select {
		case <-r.source.Filling():
		case <-time.After(deadline):
			t.Fatalf("not woken at %d bytes", source.ring.fill())
		}
	}
}

// TestBatchIsBounded: a Read takes no more than its bound, and says that there is more.
func TestBatchIsBounded(t *testing.T) {
	s, r := newStorm(t), record(t)
	s.run(t, "vfork", maxBatch)
	var b Batch
	if err := r.source.Read(&b); err != nil {
		t.Fatal(err)
	}
	if len(b.Records) != maxBatch || !b.More {
		t.Errorf("%d records, more %v", len(b.Records), b.More)
	}
	forks := 0
	for !t.Failed() {
		for i := range b.Records {
			if b.Records[i].Kind == KindFork {
				forks++
			}
		}
		if !b.More {
			break
		}
		if err := r.source.Read(&b); err != nil {
			t.Fatal(err)
		}
	}
	if forks < maxBatch {
		t.Errorf("%d forks, want %d or more", forks, maxBatch)
	}
}

// bothSources runs a test with each kind of source.
func bothSources(t *testing.T, test func(t *testing.T, r *recorder)) {
	t.Run("ebpf", func(t *testing.T) { test(t, record(t)) })
	t.Run("connector", func(t *testing.T) { test(t, hear(t)) })
}

// TestRest: the first record wakes who rests.
func TestRest(t *testing.T) {
	bothSources(t, func(t *testing.T, r *recorder) {
		for range 20 {
			for r.drain(); !r.source.Rest(); r.drain() {
				continue // another process was told of
			}
			run(t, "nothing", nil)
			select {
			case <-r.source.Filling():
			case <-time.After(deadline):
				t.Fatal("not woken")
			}
			if b, ok := r.source.(*bpfSource); ok && *b.bell.rests != 0 {
				t.Error("woken, and will be again")
			}
			if r.source.Rest() {
				t.Error("rests though there are records")
			}
		}
	})
}

// TestRestIsNotMissed has records come just when the reader goes to rest. The connector
// may lose some to a busy host, and says so.
func TestRestIsNotMissed(t *testing.T) {
	const n = 20_000
	bothSources(t, func(t *testing.T, r *recorder) {
		s := newStorm(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(t, "vfork", n)
		}()
		rests := 0
		for running := true; running; r.drain() {
			if !r.source.Rest() {
				continue
			}
			rests++
			select {
			case <-r.source.Filling():
			case <-done:
				running = false
			case <-time.After(deadline):
				t.Fatal("asleep though there are records")
			}
		}
		r.settle()
		_, connector := r.source.(*connectorSource)
		forks, exits := r.pairs(t, "storm")
		if lost := r.lost.Any(); lost && !connector || !lost && (forks < n || exits < n) {
			t.Errorf("%d forks, %d exits of %d, lost %+v", forks, exits, n, r.lost)
		}
		t.Logf("%d rests, lost %+v", rests, r.lost)
	})
}

// TestThrough: what happened up to Through does not come later, but for what was on its
// way.
func TestThrough(t *testing.T) {
	const n = 5_000
	bothSources(t, func(t *testing.T, r *recorder) {
		program, s := compiled(t, "code"), newStorm(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(t, "exec", n, program, "through")
		}()
		defer func() { <-done }()
		var b Batch
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			through := b.Through
			if err := r.source.Read(&b); err != nil {
				t.Fatal(err)
			}
			for i := range b.Records {
				if x := &b.Records[i]; x.At <= through-Unsent {
					t.Fatalf("told by %v, and %v later: %+v", through, through-x.At, x)
				}
			}
		}
		if b.Through == 0 || b.Through > b.Now {
			t.Errorf("through %v at %v", b.Through, b.Now)
		}
	})
}
