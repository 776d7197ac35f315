package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullTmpfs fills a real file system, which only root can mount. Everybody
// else has TestFullDiskAnywhere.
func TestFullTmpfs(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size=48m"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	c := testConfig(t, nil)
	c.Dir = dir + "/db"
	s := mustOpen(t, c)
	stop := serve(t, s)
	accepted := fill(t, s)
	t.Logf("%d events accepted, then: %s", accepted, s.Stats().Reason)

	// Somebody else takes the rest, and gives it back.
	glutton := filepath.Join(dir, "glutton")
	f, err := os.Create(glutton)
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), testBatch(testTime, 1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append on a full disk: %v", err)
	}
	if n := len(readAll(t, s)); n != accepted {
		t.Errorf("%d events, %d were accepted", n, accepted)
	}
	if err := errors.Join(f.Close(), os.Remove(glutton)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_NODEV|unix.MS_NOSUID, "size=128m"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !s.Stats().InService {
		select {
		case <-s.Available():
		case <-ctx.Done():
			t.Fatalf("still out of service: %+v", s.Stats())
		}
	}
	mustAppend(t, s, testBatch(testTime, 1))
	if n := len(readAll(t, s)); n != accepted+1 {
		t.Errorf("%d events, %d were accepted", n, accepted+1)
	}
	stop()
	mustClose(t, s, true)
}

// fill appends until the store refuses.
func fill(t *testing.T, s *Store) (accepted int) {
	t.Helper()
	r := newPlayer(1).r
	for {
		b := testBatch(testTime, 1, 2, 3, 4)
		for _, e := range b.Events {
			e.Process.CWD = randomText(r, 30<<10)
		}
		err := s.Append(t.Context(), b)
		if errors.Is(err, ErrUnavailable) {
			return accepted
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted += len(b.Events)
	}
}
