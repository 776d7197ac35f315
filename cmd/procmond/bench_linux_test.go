package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchWindow is how long the daemon is measured once it has settled.
func benchWindow() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PROCMOND_BENCH_WINDOW")); err == nil {
		return d
	}
	return time.Minute
}

// BenchmarkDaemon measures the whole daemon on hosts with ever more processes:
// memory, CPU and fsyncs while nothing happens, with the kernel's events and without.
// It is run once (-benchtime 1x); its figures are the reported metrics.
func BenchmarkDaemon(b *testing.B) {
	program := buildProgram(b)
	for _, source := range []string{"off", "ebpf", "connector"} {
		for _, n := range []int{100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("events=%s/processes=%d", source, n), func(b *testing.B) { benchmarkDaemon(b, program, source, n) })
		}
	}
}

func benchmarkDaemon(b *testing.B, program, source string, processes int) {
	if b.N > 1 {
		b.Skip("run with -benchtime 1x")
	}
	if why := (&ownWatcher{program, source}).missing(b); why != "" {
		b.Skip(why)
	}
	crowd := startCrowd(b, processes)
	defer crowd.end()
	database := b.TempDir() + "/processes.db"
	cmd := exec.Command(program, "run", "--database", database, "--interval", "30", "--event-driven", source)
	cmd.Env = cleanEnv()
	d := start(b, cmd, database)
	waitFor(b, "the first snapshots", func() bool {
		out, _, _ := run(b, "state", "--json", "--database", database)
		return strings.Contains(out, `"cycle"`) && !strings.Contains(out, `"last_at": null`) && cycleCount(b, database) >= 2
	})
	cpu, syncs, cycles, woken := cpuTime(b, d.cmd.Process.Pid), fsyncs(b, database), cycleCount(b, database), wakeUps(b, d.cmd.Process.Pid)
	rss := sampleRSS(b, d.cmd.Process.Pid, benchWindow())
	minutes := benchWindow().Minutes()
	b.ReportMetric((wakeUps(b, d.cmd.Process.Pid)-woken)/benchWindow().Seconds(), "wake-ups/s")
	cycles = cycleCount(b, database) - cycles
	b.ReportMetric(rss, "median-RSS-MB")
	b.ReportMetric(statusMB(b, d.cmd.Process.Pid, "VmHWM:"), "most-RSS-MB")
	b.ReportMetric(float64(cpuTime(b, d.cmd.Process.Pid)-cpu)/float64(time.Millisecond)/benchWindow().Seconds(), "CPU-ms/s")
	b.ReportMetric((fsyncs(b, database)-syncs)/minutes, "fsyncs/min")
	b.ReportMetric(float64(cycles)/minutes, "cycles/min")
	b.ReportMetric(0, "ns/op")
}

// buildProgram builds procmond as it is shipped: the test binary is larger.
func buildProgram(b *testing.B) string {
	b.Helper()
	path := b.TempDir() + "/procmond"
	build := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build procmond: %v\n%s", err, out)
	}
	return path
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
		samples = append(samples, statusMB(b, pid, "VmRSS:"))
	}
	slices.Sort(samples)
	return samples[len(samples)/2]
}

// statusMB is a size of /proc/PID/status, in MB (10^6 bytes).
func statusMB(b *testing.B, pid int, name string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := bytes.Cut(status, []byte(name))
	kb, err := strconv.ParseFloat(strings.Fields(string(after))[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb * 1024 / 1e6
}

// cpuTime is what all threads have run, living ones only: the daemon's do not end
// (proc_pid_schedstat in Documentation/scheduler/sched-stats.rst).
func cpuTime(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	for _, text := range ofThreads(b, pid, "schedstat") {
		ns, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// wakeUps is how often threads have slept.
func wakeUps(b *testing.B, pid int) (sum float64) {
	b.Helper()
	for _, text := range ofThreads(b, pid, "status") {
		_, after, _ := strings.Cut(text, "\nvoluntary_ctxt_switches:")
		n, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return sum
}

// ofThreads is the text of a file of each thread.
func ofThreads(b *testing.B, pid int, name string) (all []string) {
	b.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/%s", pid, name))
	if err != nil || len(paths) == 0 {
		b.Fatalf("threads of process %d: %v", pid, err)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil { // a thread may end
			all = append(all, string(text))
		}
	}
	return all
}
