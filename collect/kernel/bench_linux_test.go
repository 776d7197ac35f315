//go:build amd64 || arm64

package kernel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// readEvery is how often the reader reads.
const readEvery = 20 * time.Millisecond

// BenchmarkStorm compares storms of short processes that nobody watches with storms
// of which a process of its own reads the source at an interval and keeps nothing. Before
// a storm that nobody watches the same process has opened the source and closed it again:
// what a start leaves to be done, in the kernel too, is some per cent of half a second.
// b.N is the number of rounds, 10 or more tell something; each has both of them twice,
// in an order that is drawn. Metrics are medians, and the mean by which a storm is
// slower, with its interval of 95 %; beside it the same of those that nobody watches
// against each other, which is what the host adds by itself.
func BenchmarkStorm(b *testing.B) {
	for _, kind := range []struct {
		name string
		n    int // processes in one storm, half a second or so
	}{{"exec", 3_000}, {"vfork", 20_000}} {
		b.Run(kind.name, func(b *testing.B) { benchmarkStorm(b, kind.name, kind.n) })
	}
}

func benchmarkStorm(b *testing.B, kind string, n int) {
	skipUnlessOpens(b)
	b.Setenv("STORM_PIN", "1") // or what is compared is where the scheduler puts them
	s, program := newStorm(b), compiled(b, "code")
	run := func() time.Duration { return s.run(b, kind, n, program, "bench") }
	run()
	seed := uint64(time.Now().UnixNano())
	draw := rand.New(rand.NewPCG(seed, 0))
	var c comparison
	for b.Loop() {
		turns := []bool{false, true, true, false}
		if draw.IntN(2) == 0 {
			turns = []bool{true, false, false, true}
		}
		for _, watch := range turns {
			if !watch {
				r := startReader(b, "sham")
				c.bare = append(c.bare, run().Seconds())
				r.end(b)
				continue
			}
			r := startReader(b, "drain")
			c.watched = append(c.watched, run().Seconds())
			got := r.end(b)
			got.check(b, kind, n)
			c.cpu = append(c.cpu, float64(got.CPU.Microseconds())/float64(n))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(n)/median(c.bare), "bare/s")
	b.ReportMetric(float64(n)/median(c.watched), "watched/s")
	b.ReportMetric(median(c.cpu), "reader-us/process")
	c.report(b, draw)
	b.Logf("seed %d", seed)
	reportPrograms(b, n, run)
}

// skipUnlessOpens leaves the kernel as it was.
func skipUnlessOpens(b *testing.B) {
	b.Helper()
	if err := openOrSkip(b, Config{}, thisHost()).Close(); err != nil {
		b.Fatal(err)
	}
}

// comparison has how long the storms took, in s: two of each in a round.
type comparison struct {
	bare, watched []float64
	cpu           []float64 // of the reader, us per process
}

func (c *comparison) report(b *testing.B, draw *rand.Rand) {
	b.Helper()
	var slower, noise []float64
	for i := 0; i+1 < len(c.bare); i += 2 {
		first, second := math.Log(c.bare[i]), math.Log(c.bare[i+1])
		slower = append(slower, (math.Log(c.watched[i])+math.Log(c.watched[i+1])-first-second)/2)
		noise = append(noise, second-first)
	}
	for name, ratios := range map[string][]float64{"slower": slower, "noise": noise} {
		low, mean, high := interval(ratios, draw)
		for which, x := range map[string]float64{"low": low, "mean": mean, "high": high} {
			b.ReportMetric(100*(math.Exp(x)-1), name+"-"+which+"-%")
		}
	}
}

// usage is what a reader in a process of its own has to tell.
type usage struct {
	CPU                 time.Duration // user and system, of all its threads
	Forks, Execs, Exits int
	Lost                Lost
	Reads               int
}

// check fails unless all n processes of a storm have been seen.
func (r *usage) check(b *testing.B, kind string, n int) {
	b.Helper()
	if r.Lost.Any() || r.Forks < n || r.Exits < n || kind == "exec" && r.Execs < n {
		b.Fatalf("read %+v of %d processes", *r, n)
	}
}

// reader is such a process.
type reader struct {
	cmd *exec.Cmd
	in  io.Closer
	out *json.Decoder
}

// startReader returns when the source is open.
func startReader(b *testing.B, role string) *reader {
	b.Helper()
	r := &reader{cmd: actor(b, role, nil)}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.out = json.NewDecoder(out)
	var ready string
	if err := r.out.Decode(&ready); err != nil {
		b.Fatalf("start the reader: %v", err)
	}
	return r
}

// end lets it read what is left.
func (r *reader) end(b *testing.B) *usage {
	b.Helper()
	got := new(usage)
	if err := errors.Join(r.in.Close(), r.out.Decode(got), r.cmd.Wait()); err != nil {
		b.Fatal(err)
	}
	return got
}

// shamReader does what drainAndCount does but for listening.
func shamReader() error {
	s, err := OpenBPF(Config{})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := errors.Join(s.Close(), out.Encode("ready")); err != nil {
		return err
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // waits for the end of the input, which is an error
	return out.Encode(usage{})
}

// drainAndCount reads the source until the input ends, as a daemon does, and prints
// what that took. The start is not counted.
func drainAndCount() error {
	s, err := OpenBPF(Config{})
	if err != nil {
		return err
	}
	ended := make(chan struct{}) // closed when the input is
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	out := json.NewEncoder(os.Stdout)
	before := ownCPU()
	if err := out.Encode("ready"); err != nil {
		return err
	}
	var got usage
	var batch Batch
	timer := time.NewTimer(readEvery)
	defer timer.Stop()
	for running := true; running; {
		next := readEvery
		select {
		case <-timer.C:
			if err := got.drain(s, &batch); err != nil {
				return err
			}
			if len(batch.Records) == 0 && s.Rest() {
				next = time.Hour
			}
		case <-s.Filling():
			if batch.More || len(batch.Records) > 0 {
				next = 0
			}
		case <-ended:
			running = false
		}
		timer.Reset(next)
	}
	if err := got.drain(s, &batch); err != nil {
		return err
	}
	got.CPU = ownCPU() - before
	return errors.Join(out.Encode(got), s.Close())
}

// drain reads what there is.
func (r *usage) drain(s Source, b *Batch) error {
	for more := true; more; more = b.More {
		if err := s.Read(b); err != nil {
			return err
		}
		r.add(b)
	}
	return nil
}

func (r *usage) add(b *Batch) {
	r.Reads++
	r.Lost.Forks += b.Lost.Forks
	r.Lost.Execs += b.Lost.Execs
	r.Lost.Exits += b.Lost.Exits
	for i := range b.Records {
		switch b.Records[i].Kind {
		case KindFork:
			r.Forks++
		case KindExec:
			r.Execs++
		case KindExit:
			r.Exits++
		}
	}
}

func ownCPU() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// reportPrograms measures what the programs take in the kernel, each time that they
// run: in a storm of its own, since the kernel's looking at its clock takes time too.
func reportPrograms(b *testing.B, n int, run func() time.Duration) {
	b.Helper()
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Logf("the kernel does not measure programs: %v", err)
		return
	}
	defer func() { _ = stats.Close() }()
	r := record(b)
	r.during(readEvery, func() { run() })
	all := time.Duration(0)
	for kind, p := range r.source.(*bpfSource).programs.byKind() {
		x, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		all += x.Runtime
		if x.RunCount > 0 {
			b.ReportMetric(float64(x.Runtime.Nanoseconds())/float64(x.RunCount), kind.String()+"-ns/run")
		}
	}
	b.ReportMetric(float64(all.Microseconds())/float64(n), "programs-us/process")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// interval is where the mean of what values are a sample of is with 95 %, by drawing
// as many of them again and again.
func interval(values []float64, draw *rand.Rand) (low, mean, high float64) {
	const times = 10_000
	means := make([]float64, times)
	for i := range means {
		for range values {
			means[i] += values[draw.IntN(len(values))] / float64(len(values))
		}
	}
	slices.Sort(means)
	for _, x := range values {
		mean += x / float64(len(values))
	}
	return means[times*25/1000], mean, means[times*975/1000]
}

// BenchmarkIdle is what reading takes while next to nothing happens, for 5 s.
func BenchmarkIdle(b *testing.B) {
	if b.N > 1 {
		b.Skip("run with -benchtime 1x")
	}
	skipUnlessOpens(b)
	r := startReader(b, "drain")
	const window = 5 * time.Second
	<-time.After(window)
	got := r.end(b)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(got.CPU.Microseconds())/1000/window.Seconds(), "CPU-ms/s")
	b.ReportMetric(float64(got.Reads)/window.Seconds(), "reads/s")
	b.ReportMetric(float64(got.Forks+got.Execs+got.Exits)/window.Seconds(), "records/s")
}

// BenchmarkDecode is what one record takes in the reader.
func BenchmarkDecode(b *testing.B) {
	names := strings.Join([]string{"python3.11", "bin", "usr", ""}, "\x00")
	args := strings.Join([]string{"/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "8080", ""}, "\x00")
	image := processImage{Comm: [16]uint8{'p', 'y', 't', 'h', 'o', 'n', '3'}}
	for kind, record := range map[Kind]any{
		KindFork: processForkRecord{Head: processHead{Kind: uint32(KindFork)}, Image: image},
		KindExec: processExecRecord{
			Head: processHead{Kind: uint32(KindExec)}, Image: image,
			ArgsTotal: uint64(len(args)), ArgsBytes: uint32(len(args)), ExeBytes: uint32(len(names)),
		},
		KindExit: processExitRecord{Head: processHead{Kind: uint32(KindExit)}},
	} {
		raw, err := binary.Append(nil, binary.NativeEndian, record)
		if err != nil {
			b.Fatal(err)
		}
		if kind == KindExec {
			raw = append(raw, names+args...)
		}
		b.Run(kind.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var r Record
				if err := decode(raw, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
