package portable

import (
	"context"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
)

// naive is gopsutil as it is mostly used: ten attributes of each process. It
// returns how many processes it saw.
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

// BenchmarkScan scans this host.
func BenchmarkScan(b *testing.B) {
	for _, name := range []string{"steady", "full"} {
		b.Run(name, func(b *testing.B) {
			s, snap := newScanner(b, Config{}), new(collect.Snapshot)
			run(b, func() (int, error) {
				err := s.Scan(b.Context(), name == "full", snap)
				return len(snap.Observations), err
			})
		})
	}
	b.Run("naive", func(b *testing.B) {
		run(b, func() (int, error) { return naive(b.Context()) })
	})
}

// run measures scans and reports the time of one process.
func run(b *testing.B, scan func() (int, error)) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		m, err := scan()
		if err != nil {
			b.Fatal(err)
		}
		n += m
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/process")
}

// BenchmarkScanAgainstNaive runs both by turns on the same host and reports how
// many times as much CPU gopsutil used naively takes.
func BenchmarkScanAgainstNaive(b *testing.B) {
	s, snap := newScanner(b, Config{}), new(collect.Snapshot)
	if err := s.Scan(b.Context(), false, snap); err != nil {
		b.Fatal(err)
	}
	var steady, full, theirs time.Duration
	for b.Loop() {
		steady += cpu(b, func() error { return s.Scan(b.Context(), false, snap) })
		full += cpu(b, func() error { return s.Scan(b.Context(), true, snap) })
		theirs += cpu(b, func() error { _, err := naive(b.Context()); return err })
	}
	b.ReportMetric(float64(theirs)/float64(steady), "naive/steady")
	b.ReportMetric(float64(theirs)/float64(full), "naive/full")
	b.ReportMetric(float64(len(snap.Observations)), "processes")
}

// cpu is the CPU time that f takes, of all threads.
func cpu(b *testing.B, f func() error) time.Duration {
	b.Helper()
	before := cpuClock(b)
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return cpuClock(b) - before
}

func cpuClock(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
