package store

import (
	"context"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// BenchmarkDelivery reads and acknowledges batches of 1000 of events that are in
// tables, as the bus does.
func BenchmarkDelivery(b *testing.B) {
	const batch, stored = 1000, 500_000
	s := openBench(b, benchDir(b))
	for range stored / batch {
		if err := s.Append(context.Background(), benchEvents(batch)); err != nil {
			b.Fatal(err)
		}
	}
	epoch := s.Stats().Epoch
	b.Run("Read", func(b *testing.B) {
		b.ReportAllocs()
		for n := uint64(0); b.Loop(); n++ {
			from := 1 + n*batch%stored
			err := s.Read(context.Background(), epoch, from, batch, func(uint64, []byte) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
		reportEach(b, batch)
	})
	// The fsync is most of an acknowledgement; ns/event leaves it out.
	b.Run("Ack", func(b *testing.B) {
		cursor, counting := uint64(0), time.Duration(0)
		for b.Loop() {
			cursor += batch
			if cursor > stored {
				b.StopTimer()
				if _, _, err := s.Resume(context.Background(), event.Receipt{Stream: "s", Epoch: epoch, Seq: 1}); err != nil {
					b.Fatal(err)
				}
				cursor = batch
				b.StartTimer()
			}
			began := time.Now()
			if _, err := s.session.tally(cursor-batch+1, cursor); err != nil {
				b.Fatal(err)
			}
			counting += time.Since(began)
			if err := s.Ack(context.Background(), epoch, cursor); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(counting.Nanoseconds())/float64(b.N*batch), "ns/event")
	})
	if err := s.Close(true); err != nil {
		b.Fatal(err)
	}
}

func reportEach(b *testing.B, batch int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/event")
}

// BenchmarkShedding appends with a backlog of 64 MiB that is full, half of it stops:
// "longest-ms" is the append that waited longest, "x-full" how much slower all are
// than before it was full.
func BenchmarkShedding(b *testing.B) {
	const batch = 100
	events := benchEvents(batch)
	for i, e := range events.Events {
		if i%2 == 0 {
			e.Kind = event.KindStop
		}
	}
	for b.Loop() {
		c := benchConfig(b, benchDir(b))
		c.MaxBacklog = 64 << 20
		s, err := Open(context.Background(), c)
		if err != nil {
			b.Fatal(err)
		}
		var filling, shedding, longest time.Duration
		fills, sheds := 0, 0
		for s.Stats().Sheds < 20 {
			full, began := s.Stats().Sheds > 0, time.Now()
			if err := s.Append(context.Background(), events); err != nil {
				b.Fatal(err)
			}
			took := time.Since(began)
			if longest = max(longest, took); full {
				shedding, sheds = shedding+took, sheds+1
			} else {
				filling, fills = filling+took, fills+1
			}
		}
		b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
		b.ReportMetric(float64(shedding)/float64(sheds)/(float64(filling)/float64(fills)), "x-full")
		b.ReportMetric(float64(s.Stats().Shed)/float64(s.Stats().Sheds), "events/shedding")
		if err := s.Close(true); err != nil {
			b.Fatal(err)
		}
	}
}
