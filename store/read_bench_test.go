package store

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// benchStored is how many events the store has that readers are measured on, of
// 10,000 processes.
const benchStored = 1_000_000

// BenchmarkDeadStore reads a store that was killed, as the commands do. What holds up
// a daemon that starts is all of Inspect, and of OpenCopy "lock-ms".
func BenchmarkDeadStore(b *testing.B) {
	dir := filepath.Join(benchDir(b), "db")
	s := openBench(b, dir)
	const batch = 10_000
	for range benchStored / batch {
		if err := s.Append(context.Background(), benchEvents(batch)); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(false); err != nil {
		b.Fatal(err)
	}
	b.Run("Inspect", func(b *testing.B) {
		for b.Loop() {
			if in, err := Inspect(context.Background(), dir); err != nil || in.Stats.Head != benchStored {
				b.Fatal(in, err)
			}
		}
	})
	b.Run("OpenCopy", func(b *testing.B) { benchOpenCopy(b, dir) })
	b.Run("Verify", func(b *testing.B) {
		for b.Loop() {
			if v, err := Verify(context.Background(), dir, nil); err != nil || !v.OK() {
				b.Fatal(v, err)
			}
		}
		reportEvents(b, benchStored)
	})
	b.Run("Past", func(b *testing.B) { benchPast(b, dir) })
	b.Run("Query", func(b *testing.B) { benchQueries(b, dir) })
}

func benchOpenCopy(b *testing.B, dir string) {
	var held time.Duration
	for b.Loop() {
		_, lock, err := lockForReading(context.Background(), readFS(), dir)
		if err != nil {
			b.Fatal(err)
		}
		began, c := time.Now(), new(Copy)
		err = c.link(dir)
		held += time.Since(began)
		if err != nil || c.discard() != nil || lock.Close() != nil {
			b.Fatal(err)
		}
		c, err = OpenCopy(context.Background(), dir)
		if err != nil || c.Direct || c.Close() != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(held.Microseconds())/1000/float64(b.N), "lock-ms")
}

// benchPast rebuilds the table of the moment of the last event.
func benchPast(b *testing.B, dir string) {
	c, err := OpenCopy(context.Background(), dir)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := c.Past(context.Background(), time.Now(), nil)
		if err != nil || len(p.Lives) != 10_000 {
			b.Fatal(p, err)
		}
	}
	reportEvents(b, benchStored)
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchQueries(b *testing.B, dir string) {
	c, err := OpenCopy(context.Background(), dir)
	if err != nil {
		b.Fatal(err)
	}
	for name, q := range map[string]Query{
		"all":            {},
		"none by pid":    {PIDs: []int32{-1}},
		"none by kind":   {Kinds: []event.Kind{event.KindStop}},
		"none by time":   {Until: time.Unix(1, 0)},
		"newest hundred": {Limit: 100, Newest: true},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := c.Query(context.Background(), q, func(*event.Event) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}
