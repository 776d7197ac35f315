package store

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkAppendAgainstRaw appends a batch of 100 events with their changes of the
// table, then commits the same keys and values to a plain Pebble, in turn, so that a
// machine whose speed drifts does so for both. "x-raw" is the median of the ratios
// of 20 slices of the run: 1 is as fast as plain Pebble, 0.8 the least wanted.
func BenchmarkAppendAgainstRaw(b *testing.B) {
	s := openBench(b, benchDir(b))
	opts := readWriteOptions(privateFS{vfs.Default}, nil, memTableSize, panicLogger{}, quietListener())
	db, err := pebble.Open(benchDir(b), opts)
	if err != nil {
		b.Fatal(err)
	}
	batch := benchEvents(benchBatch)
	values, processes := encodeBench(benchEvents(benchBatch))
	seq := uint64(0)
	var ours, raw []time.Duration
	for b.Loop() {
		began := time.Now()
		if err := s.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if err := writeRaw(db, &seq, values, processes); err != nil {
			b.Fatal(err)
		}
		ours, raw = append(ours, middle.Sub(began)), append(raw, time.Since(middle))
	}
	b.ReportMetric(sliceRatio(raw, ours), "x-raw")
	if err := s.Close(true); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// sliceRatio is the median, over 20 slices, of the time of a by that of b.
func sliceRatio(a, b []time.Duration) float64 {
	const slicesOf = 20
	var ratios []float64
	for i := range slicesOf {
		from, to := len(a)*i/slicesOf, len(a)*(i+1)/slicesOf
		if to > from {
			ratios = append(ratios, float64(sum(a[from:to]))/float64(sum(b[from:to])))
		}
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

func sum(ds []time.Duration) (total time.Duration) {
	for _, d := range ds {
		total += d
	}
	return total
}
