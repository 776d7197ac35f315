package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// BenchmarkWatchers compares procmond, with its store on, with what else tells of
// each program that runs: CPU of the whole tool, and how many programs it has got
// hold of, while so many are started a second. b.N is the number of rounds, in each
// of which all tools take turns at each rate; three tell something. What it has to
// say is a table of medians.
//
// Tools that this host does not have are left out, with a line that says so: auditd
// (Debian's package of that name), forkstat (the same), and go-audit, whose program
// GO_AUDIT names. The load lasts a sixth of PROCMOND_BENCH_WINDOW.
func BenchmarkWatchers(b *testing.B) {
	load := newPacedLoad(b)
	program := buildProgram(b)
	tools := available(b, []watcher{
		&ownWatcher{program, "ebpf"}, &ownWatcher{program, "connector"}, &ownWatcher{program, "off"},
		&auditd{}, &forkstat{}, &goAudit{},
	})
	results := make(map[watching][]watched)
	for b.Loop() {
		for _, rate := range []int{0, 100, 200, 400, 800, 1600} {
			for _, tool := range tools {
				w := watching{rate, tool.name()}
				results[w] = append(results[w], undisturbed(b, tool, load, rate))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	say("medians of %d rounds of %v; rate 0 is idle\n%s", b.N, load.window, tableOf(results))
}

// say prints what is too long for the log of a benchmark, which is cut.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, "\n"+format+"\n", args...) }

// watcher is a tool that can watch.
type watcher interface {
	name() string
	missing(b *testing.B) string               // why it can not be had here, or nothing
	start(b *testing.B, dir string) watcherRun // returns once it hears of everything
}

// watcherRun is a tool that watches.
type watcherRun interface {
	pids() []int
	end()                 // in order: everything is written
	found(tag string) int // how many of the programs it tells of
}

func available(b *testing.B, all []watcher) (tools []watcher) {
	b.Helper()
	for _, w := range all {
		if why := w.missing(b); why != "" {
			say("without %s: %s", w.name(), why)
			continue
		}
		tools = append(tools, w)
	}
	return tools
}

// pacedLoad starts programs.
type pacedLoad struct {
	path, program string
	window        time.Duration
}

func newPacedLoad(b *testing.B) *pacedLoad {
	b.Helper()
	l := &pacedLoad{path: filepath.Join(b.TempDir(), "paced"), window: benchWindow() / 6}
	if out, err := exec.Command("cc", "-O2", "-static", "-o", l.path, filepath.Join("testdata", "paced.c")).CombinedOutput(); err != nil {
		b.Skipf("compile the load: %v\n%s", err, out)
	}
	var err error
	if l.program, err = exec.LookPath("true"); err != nil {
		b.Skip(err)
	}
	return l
}

// run starts rate programs a second and returns how many those were and what the rate
// has really been.
func (l *pacedLoad) run(b *testing.B, rate int, tag string) (n int, achieved float64) {
	b.Helper()
	if rate == 0 {
		<-time.After(l.window)
		return 0, 0
	}
	n = int(float64(rate) * l.window.Seconds())
	out, err := exec.Command(l.path, strconv.Itoa(rate), strconv.Itoa(n), "2", tag, l.program).CombinedOutput()
	if err != nil {
		b.Fatalf("load: %v\n%s", err, out)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n, float64(n) / ns * 1e9
}

// watching is what is compared.
type watching struct {
	rate int
	tool string
}

// watched is what came of it.
type watched struct {
	achieved float64 // programs a second
	cpu      float64 // of the tool, s
	window   float64 // that the load lasted, s
	share    float64 // of the programs that the tool tells of
	n        int
	others   int // processes and threads that were not of the load
}

// undisturbed repeats what others have disturbed, whose programs the tools see too,
// and returns the one that was disturbed least.
func undisturbed(b *testing.B, tool watcher, load *pacedLoad, rate int) watched {
	b.Helper()
	var best watched
	for try := range 5 {
		awaitQuiet(b)
		w := watchLoad(b, tool, load, rate)
		if try == 0 || w.others < best.others {
			best = w
		}
		if w.others <= 50+w.n/20 {
			return w
		}
	}
	say("%s at %d: disturbed by %d other processes", tool.name(), rate, best.others)
	return best
}

// awaitQuiet waits for a second in which next to nothing is started, for some minutes
// at most.
func awaitQuiet(b *testing.B) {
	b.Helper()
	const most = 5 * time.Minute
	for began := time.Now(); time.Since(began) < most; {
		before := forks(b)
		<-time.After(time.Second)
		if forks(b)-before < 20 {
			return
		}
	}
}

// forks is how many processes and threads were started since boot.
func forks(b *testing.B) int {
	b.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), "\nprocesses ")
	first, _, _ := strings.Cut(after, "\n")
	n, err := strconv.Atoi(first)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// watchLoad has a fresh tool watch one load. What is still to be done when the load
// ends is counted for a second more.
func watchLoad(b *testing.B, tool watcher, load *pacedLoad, rate int) watched {
	b.Helper()
	dir := benchDir(b)
	defer func() { _ = os.RemoveAll(dir) }()
	run := tool.start(b, dir)
	<-time.After(2 * time.Second) // what a start leaves to be done
	tag := fmt.Sprintf("watch-%d", time.Now().UnixNano())
	before, others := allCPU(b, run.pids()), forks(b)
	n, achieved := load.run(b, rate, tag)
	<-time.After(time.Second)
	w := watched{
		achieved: achieved, n: n, others: forks(b) - others - n,
		cpu: (allCPU(b, run.pids()) - before).Seconds(), window: load.window.Seconds(),
	}
	run.end()
	if n > 0 {
		w.share = float64(run.found(tag)) / float64(n)
	}
	return w
}

// benchDir is a directory on a disk: temporary ones are often in memory.
func benchDir(b *testing.B) string {
	b.Helper()
	parent := os.Getenv("PROCMOND_BENCH_DIR")
	if parent == "" {
		parent = "."
	}
	dir, err := os.MkdirTemp(parent, ".bench-")
	if err != nil {
		b.Fatal(err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		b.Fatal(err)
	}
	return dir
}

func allCPU(b *testing.B, pids []int) (sum time.Duration) {
	b.Helper()
	for _, pid := range pids {
		sum += cpuTime(b, pid)
	}
	return sum
}

// tableOf has a line for each rate and tool. From us per program what the same tool
// takes when idle is not subtracted.
func tableOf(results map[watching][]watched) string {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "rate\tachieved\ttool\tCPU %\tus/program\ttold of %\t")
	keys := make([]watching, 0, len(results))
	for w := range results {
		keys = append(keys, w)
	}
	slices.SortFunc(keys, func(x, y watching) int {
		if x.rate != y.rate {
			return x.rate - y.rate
		}
		return strings.Compare(x.tool, y.tool)
	})
	for _, w := range keys {
		all := results[w]
		cpu := median(all, func(x watched) float64 { return 100 * x.cpu / x.window })
		if w.rate == 0 {
			_, _ = fmt.Fprintf(t, "0\t\t%s\t%.2f\t\t\t\n", w.tool, cpu)
			continue
		}
		_, _ = fmt.Fprintf(t, "%d\t%.0f\t%s\t%.2f\t%.0f\t%.2f\t\n", w.rate,
			median(all, func(x watched) float64 { return x.achieved }), w.tool, cpu,
			median(all, func(x watched) float64 { return x.cpu / float64(x.n) * 1e6 }),
			median(all, func(x watched) float64 { return 100 * x.share }))
	}
	_ = t.Flush()
	return text.String()
}

func median[T any](all []T, of func(T) float64) float64 {
	values := make([]float64, 0, len(all))
	for _, x := range all {
		values = append(values, of(x))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// distinct counts the programs of a load in the text of a file.
func distinct(b *testing.B, path, tag string) int {
	b.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		b.Fatal(err)
	}
	return distinctIn(text, tag)
}

func distinctIn(text []byte, tag string) int {
	ids := make(map[string]struct{})
	for _, id := range regexp.MustCompile(regexp.QuoteMeta(tag)+`-\d+`).FindAll(text, -1) {
		ids[string(id)] = struct{}{}
	}
	return len(ids)
}
