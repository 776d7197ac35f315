package procfs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	prometheus "github.com/prometheus/procfs"
	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
)

// BenchmarkScan scans this host as it is.
func BenchmarkScan(b *testing.B) {
	enhanced := Config{Enhanced: true, Env: []string{"LANG", "PATH"}}
	for _, tt := range []struct {
		name   string
		full   bool
		config Config
	}{{"steady", false, Config{}}, {"steady-enhanced", false, enhanced}, {"full", true, Config{}}, {"full-enhanced", true, enhanced}} {
		b.Run(tt.name, func(b *testing.B) {
			s, snap := newScanner(b, tt.config), new(collect.Snapshot)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if err := s.Scan(b.Context(), tt.full, snap); err != nil {
					b.Fatal(err)
				}
				n += len(snap.Observations)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/process")
		})
	}
}

// BenchmarkAgainst compares scans of 100, 1,000 and 10,000 sleeping processes
// (and the host's own) with a C program of the same system calls and with what
// else there is. All take turns; b.N is the number of rounds, 15 or so tell
// something. Metrics are medians of CPU time per process and, against C, of the
// ratios of the rounds, with their quartiles.
func BenchmarkAgainst(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { benchmarkAgainst(b, n) })
	}
}

// contestant is one way to look at all processes; it returns its CPU time.
type contestant struct {
	name string
	scan func() (time.Duration, int)
}

func benchmarkAgainst(b *testing.B, n int) {
	startProgram(b, "crowd", strconv.Itoa(n)).answer("")
	c := startProgram(b, "floor")
	warm, snap := newScanner(b, Config{}), new(collect.Snapshot)
	wellUsed := newWellUsed()
	contestants := []contestant{
		{"c-cold", func() (time.Duration, int) { return c.scan(b, "cold") }},
		{"cold", func() (time.Duration, int) { return measured(b, coldScan) }},
		{"c-warm", func() (time.Duration, int) { return c.scan(b, "warm") }},
		{"warm", func() (time.Duration, int) {
			return measured(b, func(ctx context.Context) (int, error) {
				err := warm.Scan(ctx, false, snap)
				return len(snap.Observations), err
			})
		}},
		{"gopsutil-naive", func() (time.Duration, int) { return measured(b, naive) }},
		{"gopsutil-well-used", func() (time.Duration, int) { return measured(b, wellUsed.scan) }},
		{"prometheus", func() (time.Duration, int) { return measured(b, prometheusScan) }},
	}
	for _, contestant := range contestants { // what is kept from scan to scan
		contestant.scan()
	}
	took := make(map[string][]float64)
	for b.Loop() {
		for _, contestant := range contestants {
			d, seen := contestant.scan()
			if seen < n {
				b.Fatalf("%s saw %d processes of %d", contestant.name, seen, n)
			}
			took[contestant.name] = append(took[contestant.name], float64(d)/float64(seen))
		}
	}
	b.ReportMetric(0, "ns/op")
	for name, values := range took {
		_, median, _ := quartiles(values)
		b.ReportMetric(median/1000, name+"-us/process")
	}
	for _, kind := range []string{"cold", "warm"} {
		low, median, high := quartiles(ratios(took[kind], took["c-"+kind]))
		b.ReportMetric(low, kind+"/C-q1")
		b.ReportMetric(median, kind+"/C")
		b.ReportMetric(high, kind+"/C-q3")
	}
	b.ReportMetric(steadyAllocs(b, warm, snap), "warm-allocs/scan")
}

// coldScan is the first scan of a daemon.
func coldScan(ctx context.Context) (int, error) {
	s, err := New(Config{})
	if err != nil {
		return 0, err
	}
	var snap collect.Snapshot
	err = s.Scan(ctx, false, &snap)
	return len(snap.Observations), err
}

// naive is gopsutil as it is mostly used: ten attributes of each process.
func naive(ctx context.Context) (int, error) {
	all, err := process.ProcessesWithContext(ctx)
	for _, p := range all {
		_, _ = p.PpidWithContext(ctx)
		_, _ = p.NameWithContext(ctx)
		_, _ = p.ExeWithContext(ctx)
		_, _ = p.CmdlineSliceWithContext(ctx)
		_, _ = p.UidsWithContext(ctx)
		_, _ = p.GidsWithContext(ctx)
		_, _ = p.StatusWithContext(ctx)
		_, _ = p.NumThreadsWithContext(ctx)
		_, _ = p.MemoryInfoWithContext(ctx)
		_, _ = p.TimesWithContext(ctx)
	}
	return len(all), err
}

// wellUsed is gopsutil with what never changes kept, as its best users do: a known
// process is asked for its memory, times and threads.
type wellUsed struct {
	known map[int32]*process.Process
}

func newWellUsed() *wellUsed { return &wellUsed{known: make(map[int32]*process.Process)} }

func (u *wellUsed) scan(ctx context.Context) (int, error) {
	pids, err := process.PidsWithContext(ctx)
	if err != nil {
		return 0, err
	}
	next := make(map[int32]*process.Process, len(pids))
	for _, pid := range pids {
		p := u.known[pid]
		if p == nil {
			if p, err = process.NewProcessWithContext(ctx, pid); err != nil {
				continue
			}
			_, _ = p.ExeWithContext(ctx)
			_, _ = p.CmdlineSliceWithContext(ctx)
			_, _ = p.UidsWithContext(ctx)
		}
		_, _ = p.MemoryInfoWithContext(ctx)
		_, _ = p.TimesWithContext(ctx)
		_, _ = p.NumThreadsWithContext(ctx)
		next[pid] = p
	}
	u.known = next
	return len(next), nil
}

func prometheusScan(context.Context) (int, error) {
	fs, err := prometheus.NewFS("/proc")
	if err != nil {
		return 0, err
	}
	all, err := fs.AllProcs()
	for _, p := range all {
		_, _ = p.Stat()
		_, _ = p.NewStatus()
		_, _ = p.CmdLine()
		_, _ = p.Executable()
	}
	return len(all), err
}

// measured is the CPU time, of all threads, and what f returns. Its garbage is
// collected afterwards, at nobody's cost.
func measured(b *testing.B, f func(context.Context) (int, error)) (time.Duration, int) {
	b.Helper()
	before := cpuClock(b)
	n, err := f(b.Context())
	took := cpuClock(b) - before
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	return took, n
}

func cpuClock(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func steadyAllocs(b *testing.B, s *Scanner, snap *collect.Snapshot) float64 {
	return testing.AllocsPerRun(30, func() {
		if err := s.Scan(b.Context(), false, snap); err != nil {
			b.Fatal(err)
		}
	})
}

func ratios(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

func quartiles(values []float64) (low, median, high float64) {
	v := slices.Sorted(slices.Values(values))
	at := func(q int) float64 { return v[(len(v)-1)*q/4] }
	return at(1), at(2), at(3)
}

// program is a C program of testdata that answers lines with lines.
type program struct {
	in  io.Writer
	out *bufio.Reader
}

// startProgram compiles and runs a program of testdata. It ends with the benchmark.
func startProgram(b testing.TB, name string, args ...string) *program {
	b.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		b.Skipf("no C compiler: %v", err)
	}
	path := filepath.Join(b.TempDir(), name)
	if out, err := exec.Command(compiler, "-O2", "-static", "-o", path, filepath.Join("testdata", name+".c")).CombinedOutput(); err != nil {
		b.Skipf("compile %s: %v\n%s", name, err, out)
	}
	cmd := exec.Command(path, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &program{in: in, out: bufio.NewReader(out)}
}

// answer sends a line and returns the next one; with nothing to send, the first.
func (p *program) answer(line string) string {
	if line != "" {
		_, _ = io.WriteString(p.in, line+"\n") // seen as an empty answer
	}
	answer, _ := p.out.ReadString('\n')
	return answer
}

func (p *program) scan(b *testing.B, kind string) (time.Duration, int) {
	b.Helper()
	var ns int64
	var n int
	if _, err := fmt.Sscan(p.answer(kind), &ns, &n); err != nil {
		b.Fatalf("%s scan in C: %v", kind, err)
	}
	return time.Duration(ns), n
}
