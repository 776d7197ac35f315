package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// BenchmarkSlowdown is by how much a storm of programs, as many as the host can start,
// is slower while a tool watches it than while nobody does: procmond as a whole, with
// its store, and what BenchmarkWatchers compares it with. b.N is the number of rounds,
// in which all take turns after a storm that nobody watches; ten tell something.
func BenchmarkSlowdown(b *testing.B) {
	storm, code := compiledStorm(b)
	program := buildProgram(b)
	tools := available(b, []watcher{
		&ownWatcher{program, "ebpf"}, &ownWatcher{program, "connector"}, &ownWatcher{program, "off"},
		&auditd{}, &forkstat{}, &goAudit{},
	})
	const n = 5000
	run := func(tag string) time.Duration {
		out, err := exec.Command(storm, "exec", strconv.Itoa(n), "2", code, tag).CombinedOutput()
		if err != nil {
			b.Fatalf("storm: %v\n%s", err, out)
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return time.Duration(ns)
	}
	run("first")
	results := make(map[string][]slowdown)
	for b.Loop() {
		awaitQuiet(b)
		bare := run("bare")
		for _, tool := range tools {
			results[tool.name()] = append(results[tool.name()], slowed(b, tool, bare, run))
		}
		results["nobody"] = append(results["nobody"], slowdown{ratio: run("bare").Seconds() / bare.Seconds()})
	}
	b.ReportMetric(0, "ns/op")
	sayTable("tool\tslower by %\tquartiles\tus/program\ttold of %\t", results, n)
}

// slowdown is what came of a storm that a tool has watched.
type slowdown struct{ ratio, cpu, share float64 }

func slowed(b *testing.B, tool watcher, bare time.Duration, storm func(tag string) time.Duration) slowdown {
	b.Helper()
	dir := benchDir(b)
	defer func() { _ = os.RemoveAll(dir) }()
	watching := tool.start(b, dir)
	<-time.After(2 * time.Second) // what a start leaves to be done
	tag := fmt.Sprintf("storm-%d", time.Now().UnixNano())
	before := allCPU(b, watching.pids())
	took := storm(tag)
	<-time.After(time.Second)
	s := slowdown{ratio: took.Seconds() / bare.Seconds(), cpu: (allCPU(b, watching.pids()) - before).Seconds()}
	watching.end()
	s.share = float64(watching.found(tag))
	return s
}

// sayTable prints a line for each tool.
func sayTable(header string, results map[string][]slowdown, n int) {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, header)
	rounds := 0
	for _, name := range slices.Sorted(maps.Keys(results)) {
		all := results[name]
		rounds = len(all)
		ratios := make([]float64, 0, rounds)
		for _, s := range all {
			ratios = append(ratios, 100*(s.ratio-1))
		}
		slices.Sort(ratios)
		_, _ = fmt.Fprintf(t, "%s\t%.1f\t%.1f to %.1f", name, ratios[rounds/2], ratios[rounds/4], ratios[rounds*3/4])
		if all[0].share == 0 && all[0].cpu == 0 {
			_, _ = fmt.Fprint(t, "\t\t\t\n")
			continue
		}
		_, _ = fmt.Fprintf(t, "\t%.0f\t%.2f\t\n", median(all, func(s slowdown) float64 { return s.cpu / float64(n) * 1e6 }),
			median(all, func(s slowdown) float64 { return 100 * s.share / float64(n) }))
	}
	_ = t.Flush()
	say("medians of %d rounds, %d programs each\n%s", rounds, n, text.String())
}
