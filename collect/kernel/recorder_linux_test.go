//go:build amd64 || arm64

package kernel

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
)

// deadline is how long anything may take.
const deadline = time.Minute

// recorder reads a source as a daemon does and keeps what it reads.
type recorder struct {
	t       testing.TB
	source  Source
	records []Record
	lost    Lost
}

// openOrSkip opens the source, or skips the test where it is known not to be there.
func openOrSkip(t testing.TB, c Config, h host) *bpfSource {
	t.Helper()
	s, err := openBPF(c, h)
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

func record(t testing.TB) *recorder {
	t.Helper()
	return &recorder{t: t, source: openOrSkip(t, Config{}, thisHost())}
}

// oldHost is a host whose exit tracepoint does not say which thread is the last.
func oldHost() host {
	h := thisHost()
	h.load = func(size int) (*programs, error) { return loadFor(size, false, btf.NewCache()) }
	return h
}

// drain reads what there is.
func (r *recorder) drain() {
	r.t.Helper()
	var b Batch
	for more := true; more; more = b.More {
		if err := r.source.Read(&b); err != nil {
			r.t.Fatal(err)
		}
		r.records = append(r.records, b.Records...)
		r.lost.Forks += b.Lost.Forks
		r.lost.Execs += b.Lost.Execs
		r.lost.Exits += b.Lost.Exits
		r.lost.Other += b.Lost.Other
		r.lost.Unknown = r.lost.Unknown || b.Lost.Unknown
	}
}

// during reads at an interval while f runs, and what is left afterwards.
func (r *recorder) during(interval time.Duration, f func()) {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTicker(interval)
	defer timer.Stop()
	for running := true; running; {
		select {
		case <-timer.C:
		case <-r.source.Filling():
		case <-done:
			running = false
		}
		r.drain()
	}
}

// until reads until there is a record that is wanted, and returns the first.
func (r *recorder) until(what string, wanted func(*Record) bool) *Record {
	r.t.Helper()
	if x := r.within(deadline, wanted); x != nil {
		return x
	}
	r.t.Fatalf("no %s in %d records", what, len(r.records))
	return nil
}

// within is nil if that takes longer than patience.
func (r *recorder) within(patience time.Duration, wanted func(*Record) bool) *Record {
	r.t.Helper()
	timer := time.NewTicker(time.Millisecond)
	defer timer.Stop()
	seen := 0
	for began := time.Now(); time.Since(began) < patience; <-timer.C {
		r.drain()
		if i := slices.IndexFunc(r.records[seen:], func(x Record) bool { return wanted(&x) }); i >= 0 {
			return &r.records[seen+i]
		}
		seen = len(r.records)
	}
	return nil
}

// of returns the records of a process, of which the PID is not used again, and fails
// unless their kinds are these.
func (r *recorder) of(pid int, kinds ...Kind) []Record {
	r.t.Helper()
	last := kinds[len(kinds)-1]
	if last == KindExit {
		r.until("exit", func(x *Record) bool { return int(x.PID) == pid && x.Kind == last })
	}
	var mine []Record
	var got []Kind
	for _, x := range r.records {
		if int(x.PID) == pid {
			mine, got = append(mine, x), append(got, x.Kind)
		}
	}
	slices.SortStableFunc(mine, func(a, b Record) int { return int(a.At - b.At) })
	if !slices.Equal(got, kinds) {
		r.t.Fatalf("process %d: %v, want %v: %+v", pid, got, kinds, mine)
	}
	for _, x := range mine {
		if x.Start != mine[0].Start || x.Start == 0 || x.At < x.Start {
			r.t.Errorf("process %d: started %v in the first record, %v in a %v at %v", pid, mine[0].Start, x.Start, x.Kind, x.At)
		}
	}
	return mine
}

// actor is the test binary in a role.
func actor(t testing.TB, role string, change func(*exec.Cmd)) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{roleVariable + "=" + role}
	cmd.Stderr = os.Stderr
	if change != nil {
		change(cmd)
	}
	return cmd
}

// run runs an actor to its end.
func run(t testing.TB, role string, change func(*exec.Cmd)) *exec.Cmd {
	t.Helper()
	cmd := actor(t, role, change)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// compiled returns the path of a program of testdata.
func compiled(t testing.TB, name string) string {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	path := filepath.Join(t.TempDir(), name)
	out, err := exec.CommandContext(t.Context(), compiler, "-O2", "-static", "-pthread", "-o", path, filepath.Join("testdata", name+".c")).CombinedOutput()
	if err != nil {
		t.Skipf("compile %s: %v\n%s", name, err, out)
	}
	return path
}
