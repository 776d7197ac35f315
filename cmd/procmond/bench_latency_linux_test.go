package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkEventToDurable is how long after a process started, ran a program or ended,
// by the kernel's clock, a follower has the event: it gets what is durable, and a
// little later than that. 200 programs are started a second.
func BenchmarkEventToDurable(b *testing.B) {
	if b.N > 1 {
		b.Skip("run with -benchtime 1x")
	}
	program := buildProgram(b)
	for _, source := range []string{"ebpf", "connector"} {
		b.Run(source, func(b *testing.B) { benchmarkLatency(b, &ownWatcher{program, source}) })
	}
}

func benchmarkLatency(b *testing.B, w *ownWatcher) {
	if why := w.missing(b); why != "" {
		b.Skip(why)
	}
	load, dir := newPacedLoad(b), benchDir(b)
	defer func() { _ = os.RemoveAll(dir) }()
	d := w.daemon(b, dir)
	defer d.kill()
	d.awaitCycle(1)
	f := follow(b, w.program, d.database)
	n, achieved := load.run(b, 200, "latency")
	<-time.After(time.Second)
	took := f.end(b)
	if len(took) < 2*n {
		b.Fatalf("%d events of %d programs", len(took), n)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(achieved, "programs/s")
	b.ReportMetric(float64(len(took)), "events")
	for name, share := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99, "most-ms": 1} {
		b.ReportMetric(float64(took[int(share*float64(len(took)-1))].Microseconds())/1000, name)
	}
}

// follower is a `procmond events --follow`.
type follower struct {
	cmd    *exec.Cmd
	result chan ages // the reader sends once, when there is nothing more, without waiting
}

// ages are how old events of the kernel were when they came.
type ages struct {
	all []time.Duration
	err error
}

func follow(b *testing.B, program, database string) *follower {
	b.Helper()
	f := &follower{result: make(chan ages, 1)}
	f.cmd = exec.Command(program, "events", "--follow", "-o", "json", "--limit", "0", "--kind", "start,exec,stop", "--database", database)
	f.cmd.Env = cleanEnv()
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.cmd.Process.Kill() })
	go func() { f.result <- readAges(out) }()
	return f
}

// end returns them, sorted.
func (f *follower) end(b *testing.B) []time.Duration {
	b.Helper()
	if err := f.cmd.Process.Kill(); err != nil {
		b.Fatal(err)
	}
	got := <-f.result
	_ = f.cmd.Wait() // it was killed
	if got.err != nil {
		b.Fatal(got.err)
	}
	slices.Sort(got.all)
	return got.all
}

func readAges(out io.Reader) (got ages) {
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var now unix.Timespec
		var event struct {
			Source string
			At     int64 `json:"boot_time_ns"`
		}
		if got.err = errors.Join(unix.ClockGettime(unix.CLOCK_BOOTTIME, &now), json.Unmarshal(in.Bytes(), &event)); got.err != nil {
			return got
		}
		if event.Source == "kernel" && event.At > 0 {
			got.all = append(got.all, time.Duration(now.Nano()-event.At))
		}
	}
	return got // a line that was cut in the middle is none
}
