package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchProcesses is how many processes BenchmarkDaemon watches.
const benchProcesses = 10_000

// benchWindow is how long the daemon is measured once it has settled.
func benchWindow() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PROCMOND_BENCH_WINDOW")); err == nil {
		return d
	}
	return time.Minute
}

// BenchmarkDaemon measures the whole daemon on a host with 10,000 processes
// more: memory, CPU and fsyncs while nothing happens. It is run once
// (-benchtime 1x); its figures are the reported metrics.
func BenchmarkDaemon(b *testing.B) {
	if b.N > 1 {
		b.Skip("run with -benchtime 1x")
	}
	crowd := startCrowd(b, benchProcesses)
	defer crowd.end()
	database := b.TempDir() + "/processes.db"
	d := startDaemon(b, database, "--interval", "30")
	waitFor(b, "the first snapshot", func() bool {
		out, _, _ := run(b, "state", "--json", "--database", database)
		return strings.Contains(out, `"cycle"`) && !strings.Contains(out, `"last_at": null`) && cycleCount(b, database) >= 2
	})
	cpu, syncs, cycles := cpuTime(b, d.cmd.Process.Pid), fsyncs(b, database), cycleCount(b, database)
	rss := sampleRSS(b, d.cmd.Process.Pid, benchWindow())
	minutes := benchWindow().Minutes()
	cycles = cycleCount(b, database) - cycles
	b.ReportMetric(rss, "median-RSS-MB")
	b.ReportMetric(float64(cpuTime(b, d.cmd.Process.Pid)-cpu)/float64(time.Millisecond)/float64(max(1, cycles)), "CPU-ms/cycle")
	b.ReportMetric((fsyncs(b, database)-syncs)/minutes, "fsyncs/min")
	b.ReportMetric(float64(cycles)/minutes, "cycles/min")
	b.ReportMetric(0, "ns/op")
}

// crowd is many sleeping processes.
type crowd []*exec.Cmd

func startCrowd(b *testing.B, n int) crowd {
	b.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		b.Skipf("no sleep(1): %v", err)
	}
	c := make(crowd, 0, n)
	for i := range n {
		cmd := exec.Command(sleep, fmt.Sprintf("86400.%05d", i))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			c.end()
			b.Skipf("start process %d: %v", i, err)
		}
		c = append(c, cmd)
	}
	return c
}

func (c crowd) end() {
	for _, cmd := range c {
		_ = cmd.Process.Kill()
	}
	for _, cmd := range c {
		_ = cmd.Wait()
	}
}

func cycleCount(b *testing.B, database string) uint64 {
	doc, _ := readState(b, database)
	return doc.Cycle.Count
}

// fsyncs is what the daemon says that it has done.
func fsyncs(b *testing.B, database string) float64 {
	doc, _ := readState(b, database)
	return float64(doc.Store.Syncs)
}

// sampleRSS returns the median of the resident size, in MB (10^6 bytes).
func sampleRSS(b *testing.B, pid int, window time.Duration) float64 {
	b.Helper()
	var samples []float64
	tick := time.NewTicker(window / 60)
	defer tick.Stop()
	for range 60 {
		<-tick.C
		samples = append(samples, residentMB(b, pid))
	}
	slices.Sort(samples)
	return samples[len(samples)/2]
}

func residentMB(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := bytes.Cut(status, []byte("VmRSS:"))
	kb, err := strconv.ParseFloat(strings.Fields(string(after))[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb * 1024 / 1e6
}

// cpuTime is user and system time, in clock ticks of 10 ms.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}
