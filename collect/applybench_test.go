package collect

import (
	"context"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/kernel"
)

// discard is a store that forgets what it is given.
type discard struct{ seq uint64 }

func (d *discard) Append(_ context.Context, b *event.Batch) error {
	for _, e := range b.Events {
		d.seq++
		e.Seq = d.seq
	}
	return nil
}

func (d *discard) Load(context.Context) (*event.Table, error) { return &event.Table{}, nil }

// shortLives are the records of a shell that runs programs, each of which ends at once.
func shortLives(n int, from time.Duration) []kernel.Record {
	records := make([]kernel.Record, 0, 3*n)
	args := []string{"/usr/bin/worker", "--id", "4711", "--config=/etc/worker/worker.conf"}
	for i := range n {
		pid, start := int32(1000+i%30_000), from+time.Duration(i)*100*time.Microsecond
		r := kernel.Record{
			PID: pid, PPID: 1, Creator: 1, Start: start, UID: 1000, GID: 1000, EUID: 1000, EGID: 1000, Comm: "sh", Session: 1,
		}
		for kind := kernel.KindFork; kind <= kernel.KindExit; kind++ {
			r.Kind, r.At = kind, start+time.Duration(kind)*10*time.Microsecond
			switch kind {
			case kernel.KindExec:
				r.Comm, r.Exe, r.Args = "worker", "/usr/bin/worker", args
			case kernel.KindExit:
				r = kernel.Record{Kind: kind, PID: pid, PPID: 1, Start: start, At: r.At, Exit: &event.Exit{}}
			}
			records = append(records, r)
		}
	}
	return records
}

// BenchmarkShortLife is what a program costs that starts, executes and ends, from its
// records up to the batch of its events, with 10,000 other processes.
func BenchmarkShortLife(b *testing.B) {
	w := newWorld(b)
	sink := &discard{}
	w.cfg.Events, w.cfg.Sink, w.cfg.Loader = silence{}, sink, sink
	c := w.collector()
	c.reset()
	if err := c.load(b.Context()); err != nil {
		b.Fatal(err)
	}
	for i := range int32(10_000) {
		p := benchProcess(i + 40_000)
		if i == 0 {
			p.PID = 1
			p.Env, p.Cgroup = []string{"LANG=C"}, "/user.slice/user-1000.slice/session-1.scope"
		}
		c.table.entries = append(c.table.entries, entry{pid: p.PID, ticks: p.StartTicks, process: p, flags: flagReported})
	}
	const lives = 1000
	h, from := &c.run.heard, time.Hour
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%lives != 0 {
			continue
		}
		b.StopTimer()
		h.due = shortLives(lives, from)
		from += time.Second
		b.StartTimer()
		if _, err := c.applyAll(b.Context(), time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
	if got := c.table.size(); got != 10_000 {
		b.Fatalf("%d processes", got)
	}
}
