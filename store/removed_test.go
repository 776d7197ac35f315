package store

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// removing runs a store in virtual time up to the moment at which retention has removed
// something.
func removing(t *testing.T, fs vfs.FS, then func(t *testing.T, s *Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t, fs)
		c.Retention.Age, c.Owed = time.Hour, false
		s := mustOpen(t, c)
		stop := serve(t, s)
		mustAppend(t, s, testBatch(time.Now(), 1, 2, 3))
		for s.Stats().Removed == 0 {
			sleep(time.Second)
		}
		then(t, s)
		stop()
		mustClose(t, s, true)
	})
}

// TestSpaceOfRemovedEventsComesBack though nothing is written after, and then nothing is.
func TestSpaceOfRemovedEventsComesBack(t *testing.T) {
	removing(t, vfs.NewMem(), func(t *testing.T, s *Store) {
		flushes := func() int64 { return s.session.db.Metrics().Flush.Count }
		before := flushes()
		sleep(flushDelay + maintainEvery)
		if n := flushes() - before; n != 1 {
			t.Errorf("%d flushes, want one", n)
		}
		syncs := s.Stats().Syncs
		sleep(30 * time.Minute)
		if n := s.Stats().Syncs - syncs; n != 0 {
			t.Errorf("%d fsyncs in 30 idle minutes", n)
		}
	})
}

// TestFullDiskAfterRemoval: a write fails for want of space when events were removed just
// before, and a reader keeps the database open beyond the time at which their space would
// come back. Pebble does not survive that its log is ended then.
func TestFullDiskAfterRemoval(t *testing.T) {
	fs := newFullFS(vfs.NewMem())
	fs.only = ".log"
	removing(t, fs, func(t *testing.T, s *Store) {
		reader, err := s.view()
		if err != nil {
			t.Fatal(err)
		}
		fs.fail(syscall.ENOSPC, 0)
		if err := s.Append(t.Context(), testBatch(time.Now(), 4)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("append: %v", err)
		}
		sleep(2 * (flushDelay + maintainEvery))
		reader.release()
		fs.fail(0, 0)
		<-s.Available()
		mustAppend(t, s, testBatch(time.Now(), 5))
	})
}
