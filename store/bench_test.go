package store

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// benchDirEnv names a directory on the disk to measure. Temporary directories are
// often memory, where fsync costs nothing, so the default is this one.
const benchDirEnv = "PROCMOND_BENCH_DIR"

func benchDir(b *testing.B) string {
	b.Helper()
	parent := os.Getenv(benchDirEnv)
	if parent == "" {
		parent = "."
	}
	dir, err := os.MkdirTemp(parent, ".bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

const benchBatch = 100

// benchEvents returns a batch such as a busy host makes: starts, and as many
// changes of the table.
func benchEvents(n int) *event.Batch {
	batch := &event.Batch{}
	now := time.Now()
	for i := range n {
		p := &event.Process{
			ID: testID(uint64(i + 1)), ParentID: testID(1), PID: int32(i), PPID: 1, Name: "sh", Exe: "/usr/bin/dash",
			Args: []string{"/bin/sh", "-c", fmt.Sprintf("exec /usr/lib/job-%d --verbose", i)}, UID: 1000, GID: 1000,
			StartTicks: uint64(i), StartTime: now, State: 'S', Threads: 1, RSS: 1 << 20,
		}
		batch.Put = append(batch.Put, p)
		batch.Events = append(batch.Events, &event.Event{
			HostID: "0123456789abcdef0123456789abcdef", BootID: "01234567-89ab-cdef-0123-456789abcdef",
			Kind: event.KindStart, Source: event.SourceScan, Time: now, Observed: now, Process: *p,
		})
	}
	return batch
}

func benchConfig(b *testing.B, dir string) Config {
	return Config{Dir: dir, Owed: true, Fatal: func(err error) { b.Error(err); panic(err) }}
}

func openBench(b *testing.B, dir string) *Store {
	b.Helper()
	s, err := Open(context.Background(), benchConfig(b, dir))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkAppend appends events with their changes of the table. Compare events/s
// with BenchmarkRawPebble.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 10, benchBatch, 1000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := openBench(b, benchDir(b))
			batch := benchEvents(size)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Append(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
			reportEvents(b, size)
			if err := s.Close(true); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRawPebble writes the same keys and values, made beforehand, with a
// plain synced commit.
func BenchmarkRawPebble(b *testing.B) {
	for _, size := range []int{1, 10, benchBatch, 1000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			opts := readWriteOptions(privateFS{vfs.Default}, nil, memTableSize, panicLogger{}, quietListener())
			db, err := pebble.Open(benchDir(b), opts)
			if err != nil {
				b.Fatal(err)
			}
			values, processes := encodeBench(benchEvents(size))
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				if err := writeRaw(db, &seq, values, processes); err != nil {
					b.Fatal(err)
				}
			}
			reportEvents(b, size)
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func encodeBench(batch *event.Batch) (values, processes [][]byte) {
	for i, e := range batch.Events {
		e.Seq, e.Epoch = 1_000_000+uint64(i), event.NewEpoch()
		values = append(values, event.Append(nil, e))
	}
	for _, p := range batch.Put {
		processes = append(processes, event.AppendProcess(nil, p))
	}
	return values, processes
}

func writeRaw(db *pebble.DB, seq *uint64, values, processes [][]byte) error {
	batch := db.NewBatch()
	defer discard(batch)
	var key []byte
	for _, v := range values {
		*seq++
		key = appendEventKey(key[:0], *seq)
		must(batch.Set(key, v, nil))
	}
	for i, p := range processes {
		key = appendProcessKey(key[:0], testID(uint64(i+1)))
		must(batch.Set(key, p, nil))
	}
	must(batch.Set([]byte(metaBytes), number(*seq), nil))
	return batch.Commit(pebble.Sync)
}

func reportEvents(b *testing.B, size int) {
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkOpen opens a store with a million events that nobody acknowledged.
func BenchmarkOpen(b *testing.B) {
	dir := benchDir(b)
	s := openBench(b, dir)
	batch := benchEvents(1000)
	for range 1000 {
		if err := s.Append(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(false); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := openBench(b, dir)
		b.StopTimer()
		if st := s.Stats(); st.BacklogEvents != 1_000_000 {
			b.Fatalf("stats: %+v", st)
		}
		if err := s.Close(false); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
