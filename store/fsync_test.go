package store

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// forgetfulFS is a file system that tells of a failed write-back once, as Linux
// does: the log whose sync failed says afterwards that it is synced, and is not.
type forgetfulFS struct {
	vfs.FS
	failing atomic.Bool // the next sync of a log fails
}

func (f *forgetfulFS) Unwrap() vfs.FS { return f.FS }

func (f *forgetfulFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.wrap(name)(f.FS.Create(name, c))
}

func (f *forgetfulFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.wrap(newname)(f.FS.ReuseForWrite(oldname, newname, c))
}

func (f *forgetfulFS) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(file vfs.File, err error) (vfs.File, error) {
		if err != nil || !isLog(name) {
			return file, err
		}
		return &forgetfulFile{File: file, fs: f}, nil
	}
}

type forgetfulFile struct {
	vfs.File
	fs     *forgetfulFS
	failed bool
}

func (f *forgetfulFile) sync(op func() error) error {
	switch {
	case f.fs.failing.CompareAndSwap(true, false):
		f.failed = true
		return syscall.ENOSPC
	case f.failed:
		return nil
	}
	return op()
}

func (f *forgetfulFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *forgetfulFile) SyncData() error { return f.sync(f.File.SyncData) }

// TestFailedSyncIsBelieved: what an fsync could not write is not acknowledged
// because a second one says nothing, and what is acknowledged later outlives a
// power cut.
func TestFailedSyncIsBelieved(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := &forgetfulFS{FS: mem}
	c := testConfig(t, fs)
	c.Fatal = func(err error) {
		if !strings.Contains(err.Error(), "no space left") {
			t.Errorf("fatal: %v", err)
		}
	}
	s := mustOpen(t, c)
	stop := serve(t, s)
	mustAppend(t, s, testBatch(testTime, 1))
	fs.failing.Store(true)
	if err := s.Append(t.Context(), testBatch(testTime, 2)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	for !s.Stats().InService {
		<-s.Available()
	}
	mustAppend(t, s, testBatch(testTime, 3))
	shown := readAll(t, s)
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	stop()
	mustClose(t, s, true)

	after := mustOpen(t, testConfig(t, crashed))
	defer mustClose(t, after, true)
	if kept := readAll(t, after); len(kept) != len(shown) || after.Head() != s.Head() {
		t.Errorf("%d events were shown, %d are left", len(shown), len(kept))
	}
}
