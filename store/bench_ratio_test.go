package store

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	ratioRounds  = 12
	ratioBatches = 600 // in a round, for each of the two
)

// BenchmarkAppendAgainstRaw appends batches of 100 events with their changes of the
// table, and commits the same keys and values to a plain Pebble: rounds in turn, each
// with fresh databases, because where their files happen to lie on the disk alone
// makes a third of a difference. "x-raw" is the median of the rounds' ratios: 1 is
// as fast as plain Pebble, 0.8 the least wanted. Run it with -benchtime 1x.
func BenchmarkAppendAgainstRaw(b *testing.B) {
	for b.Loop() {
		var ratios []float64
		for round := range ratioRounds {
			var ours, raw time.Duration
			if round%2 == 0 {
				ours, raw = appendRound(b), rawRound(b)
			} else {
				raw, ours = rawRound(b), appendRound(b)
			}
			ratios = append(ratios, float64(raw)/float64(ours))
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/4], "x-raw-quartile1")
		b.ReportMetric(ratios[len(ratios)/2], "x-raw")
		b.ReportMetric(ratios[len(ratios)*3/4], "x-raw-quartile3")
	}
}

func appendRound(b *testing.B) time.Duration {
	b.Helper()
	s := openBench(b, benchDir(b))
	batch := benchEvents(benchBatch)
	began := time.Now()
	for range ratioBatches {
		if err := s.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(began)
	if err := s.Close(true); err != nil {
		b.Fatal(err)
	}
	return took
}

func rawRound(b *testing.B) time.Duration {
	b.Helper()
	opts := readWriteOptions(privateFS{vfs.Default}, nil, memTableSize, panicLogger{}, quietListener())
	db, err := pebble.Open(benchDir(b), opts)
	if err != nil {
		b.Fatal(err)
	}
	values, processes := encodeBench(benchEvents(benchBatch))
	seq := uint64(0)
	began := time.Now()
	for range ratioBatches {
		if err := writeRaw(db, &seq, values, processes); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(began)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}
