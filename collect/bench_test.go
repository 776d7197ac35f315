package collect

import (
	"fmt"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// benchHost is a table of 10,000 processes and the snapshot that shows them
// unchanged; whole says that each comes with its record.
func benchHost(b testing.TB, whole bool) (*report, *Snapshot, *differences) {
	b.Helper()
	const count = 10_000
	settings := DefaultSettings()
	host := Host{HostID: "host", BootID: "boot"}
	s := &Snapshot{Began: time.Now(), Ended: time.Now()}
	for i := range int32(count) {
		s.Observations = append(s.Observations, Observation{
			PID: i + 1, StartTicks: uint64(i), State: 'S', Threads: 1, RSS: 10 << 20, Process: benchProcess(i + 1),
		})
	}
	r := &report{host: &host, settings: &settings, table: &table{}, snapshot: s, observed: time.Now()}
	d := &differences{}
	r.table.compareWith(s, thresholds{memory: 50, cpu: 50}, nil, d)
	r.cycle(d)
	if len(r.units) != count {
		b.Fatalf("%d starts", len(r.units))
	}
	for i := range s.Observations {
		s.Observations[i].Process = nil
		if whole {
			s.Observations[i].Process = benchProcess(int32(i + 1))
		}
	}
	r.units = nil
	return r, s, d
}

func benchProcess(pid int32) *event.Process {
	return &event.Process{
		PID: pid, PPID: 1, Name: fmt.Sprintf("worker-%d", pid), Exe: fmt.Sprintf("/usr/lib/some/place/worker-%d", pid%100),
		Args: []string{"worker", "--id", fmt.Sprint(pid), "--config=/etc/worker/worker.conf"}, UID: 1000, GID: 1000, StartTicks: uint64(pid - 1),
	}
}

func benchmarkCompare(b *testing.B, whole bool) {
	r, s, d := benchHost(b, whole)
	b.ReportAllocs()
	for b.Loop() {
		s.Began = s.Began.Add(30 * time.Second)
		r.table.compareWith(s, thresholds{memory: 50, cpu: 50}, nil, d)
		r.cycle(d)
	}
	if len(r.units)+len(r.changes) > 0 {
		b.Fatalf("%d differences where there are none", len(r.units)+len(r.changes))
	}
}

// BenchmarkCompare10k is the comparison of 10,000 processes of which none has
// changed: what every cycle does.
func BenchmarkCompare10k(b *testing.B) { benchmarkCompare(b, false) }

// BenchmarkCompare10kWhole is the same with a scanner that brings every record
// each time.
func BenchmarkCompare10kWhole(b *testing.B) { benchmarkCompare(b, true) }

// A cycle in which nothing has changed makes no garbage.
func TestCompareAllocatesNothing(t *testing.T) {
	r, s, d := benchHost(t, false)
	got := testing.AllocsPerRun(10, func() {
		s.Began = s.Began.Add(30 * time.Second)
		r.table.compareWith(s, thresholds{memory: 50, cpu: 50}, nil, d)
		r.cycle(d)
	})
	if got != 0 {
		t.Errorf("%v allocations in a steady comparison", got)
	}
}
