package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/supervisor/control"
)

// BenchmarkRPC measures requests to a running collector through its agent's broker: three
// processes, the requester among them.
func BenchmarkRPC(b *testing.B) {
	r := benchRig(b)
	r.collector("--log-level", "error")
	r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 && s.Registration.State == "registered" })
	nc := r.operator()
	update := rpc.UpdateConfig{ValidateOnly: true, Values: map[string]json.RawMessage{"max_events_in_flight": json.RawMessage("500")}}
	for name, c := range map[string]struct {
		op      rpc.Operation
		payload any
	}{"HealthCheck": {rpc.OpHealthCheck, nil}, "UpdateConfig": {rpc.OpUpdateConfig, update}} {
		b.Run(name, func(b *testing.B) { benchRequests(b, nc, c.op, c.payload) })
	}
}

func benchRequests(b *testing.B, nc *nats.Conn, op rpc.Operation, payload any) {
	var took []float64
	for b.Loop() {
		began := time.Now()
		if answer := ask(b, nc, rpc.CollectorSubject(rpc.DefaultID), op, payload); answer.Status != rpc.StatusOK {
			b.Fatalf("%+v", answer)
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.99), "p99-ms")
}

// idleWindow is how long the idle agent is watched: PROCMOND_BENCH_WINDOW, 30m for the
// record.
func idleWindow() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PROCMOND_BENCH_WINDOW")); err == nil {
		return d
	}
	return time.Minute
}

// BenchmarkAgentIdle watches the memory of an agent with one collector on a host where
// little happens. The first tenth of the time is not counted.
func BenchmarkAgentIdle(b *testing.B) {
	if b.N > 1 {
		b.Skip("run with -benchtime 1x")
	}
	r := newRig(b)
	agent := r.start("daemoneye-agent", nil, "run", "--socket", r.socket, "--store", r.dir+"/broker", "--log-level", "error")
	r.collector("--interval", "30", "--log-level", "error")
	r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 && s.Registration.State == "registered" })
	samples := sampleResident(b, agent.cmd.Process.Pid, idleWindow())
	samples = samples[len(samples)/10:]
	slope, interval := trend(samples)
	b.ReportMetric(quantile(samples, 0.5)/1000, "median-RSS-MB")
	b.ReportMetric(quantile(samples, 1)/1000, "most-RSS-MB")
	b.ReportMetric(slope*60, "slope-kB/min")
	b.ReportMetric(interval*60, "slope-95%-kB/min")
	b.ReportMetric(0, "ns/op")
}

// sampleResident reads the resident size once a second, in kB (1000 bytes).
func sampleResident(b *testing.B, pid int, window time.Duration) []float64 {
	b.Helper()
	var samples []float64
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(window); time.Now().Before(end); <-tick.C {
		samples = append(samples, resident(b, pid))
	}
	return samples
}

func resident(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib * 1024 / 1000
}

// trendBatches is in how many parts samples are cut: memory is much the same from one
// second to the next, so that samples are not independent, and means of long parts
// nearly are. trendT is Student's t for them, 0.975 at 18 degrees of freedom.
const (
	trendBatches = 20
	trendT       = 2.101
)

// trend is the slope of a line through the means of batches, per sample, and half of
// its 95 % interval.
func trend(samples []float64) (slope, interval float64) {
	size := len(samples) / trendBatches
	if size == 0 {
		return math.NaN(), math.NaN()
	}
	means := make([]float64, trendBatches)
	var all float64
	for i := range means {
		for _, v := range samples[i*size : (i+1)*size] {
			means[i] += v / float64(size)
		}
		all += means[i] / trendBatches
	}
	var xx, xy float64
	at := func(i int) float64 { return (float64(i) - (trendBatches-1)/2.0) * float64(size) }
	for i, v := range means {
		xx += at(i) * at(i)
		xy += at(i) * (v - all)
	}
	slope = xy / xx
	var rest float64
	for i, v := range means {
		d := v - all - slope*at(i)
		rest += d * d
	}
	return slope, trendT * math.Sqrt(rest/(trendBatches-2)/xx)
}

func TestTrend(t *testing.T) {
	var rising, flat []float64
	for i := range 1000 {
		rising = append(rising, 100+0.5*float64(i))
		flat = append(flat, 100+float64(i%7))
	}
	if slope, interval := trend(rising); math.Abs(slope-0.5) > 1e-9 || interval > 1e-9 {
		t.Errorf("rising by %v ± %v", slope, interval)
	}
	if slope, interval := trend(flat); math.Abs(slope) > interval || interval > 0.01 {
		t.Errorf("flat: %v ± %v", slope, interval)
	}
}
