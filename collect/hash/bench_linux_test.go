package hash

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"daemoneye.dev/procmond/collect"
)

// BenchmarkRead compares the whole way of a file with a bare loop over the same
// file, in MB/s.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := statPath(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := bare(path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hasher", func(b *testing.B) {
		h, err := New(Config{Log: discard(), Rate: 1 << 50, host: byPath{}})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(size)
		for b.Loop() {
			if res := h.read(b.Context(), reading{key: f.key, doors: []collect.HashTarget{{Exe: path}}}); res.failure != nil {
				b.Fatal(res.failure)
			}
		}
	})
}

// byPath opens files by their paths.
type byPath struct{ host }

func (byPath) open(t *collect.HashTarget, k key) (content, error) { return openPath(t.Exe, k) }

func bare(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	sum, buf := sha256.New(), make([]byte, chunk)
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// BenchmarkLook is the cost of a process whose executable is known: one by one,
// and a thousand at once as in a scan.
func BenchmarkLook(b *testing.B) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	line, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		b.Fatal(err)
	}
	self := collect.HashTarget{PID: int32(os.Getpid()), StartTicks: startTicks(line), Exe: exe}
	h, err := New(Config{Log: discard(), Rate: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Serve(ctx) }()
	defer func() { cancel(); <-done }()
	f, err := h.cfg.host.look(&self)
	if err != nil {
		b.Fatal(err)
	}
	h.cache.add(f.key, digest{})
	for _, n := range []int{1, 1000} {
		b.Run(map[int]string{1: "one", 1000: "thousand"}[n], func(b *testing.B) {
			targets := make([]collect.HashTarget, n)
			for b.Loop() {
				for i := range targets {
					targets[i] = self
				}
				h.Look(ctx, targets)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/process")
		})
	}
	if s := h.Stats(); s.Hits == 0 {
		b.Errorf("stats are %+v, want hits", s)
	}
}
