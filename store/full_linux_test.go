package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullTmpfs fills a real file system, which only root can mount. Everybody
// else has TestFullDiskAnywhere.
func TestFullTmpfs(t *testing.T) {
	dir := mountTmpfs(t, "size=48m")
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

// mountTmpfs mounts one on a directory of its own, or skips the test.
func mountTmpfs(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestSmallTmpfs: space that was enough to run is enough to return, although the
// store itself takes much of it.
func TestSmallTmpfs(t *testing.T) {
	dir := mountTmpfs(t, "size=24m")
	c := testConfig(t, nil)
	c.Dir = dir + "/db"
	s := mustOpen(t, c)
	mustAppend(t, s, testBatch(testTime, 1))
	if size := s.Stats().Bytes; size < memTableSize {
		t.Errorf("the store says that it takes %d bytes, and its log alone is more", size)
	}
	glutton := filepath.Join(dir, "glutton")
	if err := os.WriteFile(glutton, make([]byte, 17<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s.ample = time.Time{}
	if err := s.Append(t.Context(), testBatch(testTime, 2)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	if err := os.Remove(glutton); err != nil {
		t.Fatal(err)
	}
	if err := s.resume(); err != nil {
		t.Errorf("return to service: %v", err)
	}
	mustAppend(t, s, testBatch(testTime, 2))
	mustClose(t, s, true)
}

// TestFewInodes: a lack of inodes is foreseen, before Pebble can not rotate its log.
func TestFewInodes(t *testing.T) {
	dir := mountTmpfs(t, "size=300m,nr_inodes=40")
	c := testConfig(t, nil)
	c.Dir = dir + "/db"
	s := mustOpen(t, c)
	if st := s.Stats(); !st.InService {
		t.Fatalf("stats: %+v", st)
	}
	var files []string
	for {
		name := filepath.Join(dir, "file"+strconv.Itoa(len(files)))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			break
		}
		files = append(files, name)
	}
	if err := s.Append(t.Context(), testBatch(testTime, 1)); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "inodes") {
		t.Errorf("append: %v", err)
	}
	if err := s.resume(); err == nil {
		t.Error("back in service without inodes")
	}
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.resume(); err != nil {
		t.Errorf("return to service: %v", err)
	}
	mustAppend(t, s, testBatch(testTime, 1))
	mustClose(t, s, true)
}
