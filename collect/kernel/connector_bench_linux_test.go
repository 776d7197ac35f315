//go:build amd64 || arm64

package kernel

import (
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// BenchmarkConnector is what it costs to hear of a program, from its fork to its exit:
// the CPU of this process, which does nothing else, and how many programs were gone
// before their arguments were read. An iteration is 1000 programs; after some seconds
// the thread is at normal priority.
func BenchmarkConnector(b *testing.B) {
	const programs = 1000
	program, s, r := compiled(b, "code"), newStorm(b), hear(b)
	execs, gone := 0, 0
	var storms time.Duration
	began := ownCPU()
	for b.Loop() {
		r.records = r.records[:0]
		r.during(20*time.Millisecond, func() { storms += s.run(b, "exec", programs, program, "bench") })
		r.settle()
		for i := range r.records {
			if x := &r.records[i]; x.Kind == KindExec {
				execs++
				if x.Missing.Failed.Has(event.FieldArgs) {
					gone++
				}
			}
		}
	}
	used := ownCPU() - began
	if r.lost.Any() {
		b.Errorf("lost %+v", r.lost)
	}
	b.ReportMetric(float64(used.Microseconds())/float64(execs), "us-CPU/exec")
	b.ReportMetric(float64(gone)/float64(execs)*100, "%-gone")
	b.ReportMetric(float64(execs)/storms.Seconds(), "execs/s")
	b.ReportMetric(0, "ns/op")
}
