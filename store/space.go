package store

import (
	"fmt"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// margin is what must be left on the file system.
type margin struct{ bytes, files uint64 }

// filesReserve is how many files the file system must have room for, for the store
// to stay in service; twice as many for it to enter. Pebble makes a few at a time: a
// log, a table or two, a manifest and its marker.
const filesReserve = 8

// Space is ample, for a while, when there is so much of it.
const (
	ampleSpace = 1 << 30
	ampleFiles = 1 << 12
	ampleFor   = 100 * time.Millisecond
)

// fileCounter is what a [vfs.FS] may be as well: it tells how many more files the
// file system of path can hold; known is false where there is no limit to be told.
type fileCounter interface {
	freeFiles(path string) (n uint64, known bool)
}

func (p privateFS) freeFiles(path string) (n uint64, known bool) { return freeFiles(path) }

// foresee is roomToStay for a commit. Where there is plenty it asks the file system
// from time to time only: nobody fills that much meanwhile, and if so, the write
// itself tells.
func (s *Store) foresee(need uint64) error {
	now := time.Now()
	if now.Sub(s.ample) < ampleFor && need < ampleSpace/8 {
		return nil
	}
	if err := s.roomToStay(need); err != nil {
		s.refused.Store(need)
		return err
	}
	s.refused.Store(0)
	if s.room(need, margin{s.conf.Reserve/2 + ampleSpace, ampleFiles}) == nil {
		s.ample = now
	}
	return nil
}

// roomToStay reports whether there is room to write need bytes.
func (s *Store) roomToStay(need uint64) error {
	return s.room(need, margin{s.conf.Reserve / 2, filesReserve})
}

// roomToEnter reports whether there is room to go into service. It asks for little
// more than roomToStay, so that what was enough to run is enough to return: the
// store's own files, which fill a small file system, do not go away. What was
// refused for its size will come again, and must fit: or the store would go in and
// out of service without end, with an event about each time.
func (s *Store) roomToEnter() error {
	if err := s.room(0, margin{s.conf.Reserve/2 + s.conf.Reserve/16, 2 * filesReserve}); err != nil {
		return err
	}
	return s.roomToStay(s.refused.Load())
}

// room reports whether need bytes, as they will be in the log, in a table and in
// a compaction of it, fit above spare, and files. What can't be known is not missing.
func (s *Store) room(need uint64, spare margin) error {
	dir := s.conf.Dir
	if _, err := s.conf.FS.Stat(dir); err != nil {
		dir = s.conf.FS.PathDir(dir)
	}
	usage, err := s.conf.FS.GetDiskUsage(dir)
	if err != nil {
		return nil //nolint:nilerr // then the write itself will tell
	}
	if want := spare.bytes + 3*need; usage.AvailBytes < want {
		return fmt.Errorf("%w of %s: %d MiB free, want %d MiB", errNoSpace, dir, usage.AvailBytes>>20, (want+1<<20-1)>>20)
	}
	counter, ok := s.conf.FS.(fileCounter)
	if !ok {
		return nil
	}
	if free, known := counter.freeFiles(dir); known && free < spare.files {
		return fmt.Errorf("%w of %s for more files: %d free inodes, want %d", errNoSpace, dir, free, spare.files)
	}
	return nil
}

// measure notes how much space the store takes.
func (s *Store) measure() {
	if n, err := sizeOnDisk(s.conf.FS, s.conf.Dir); err == nil {
		s.bytes.Store(n)
	}
}

// sizeOnDisk sums what the files of a store take, allocated in advance or not. A
// file that goes away meanwhile takes nothing.
func sizeOnDisk(vs vfs.FS, dir string) (sum uint64, err error) {
	names, err := vs.List(dir)
	if err != nil {
		return 0, explain("list store", dir, err)
	}
	for _, name := range names {
		if info, err := vs.Stat(vs.PathJoin(dir, name)); err == nil {
			sum += allocated(info)
		}
	}
	return sum, nil
}

// apparent is a file's size in bytes, whatever it takes on disk.
func apparent(info fs.FileInfo) uint64 { return uint64(max(info.Size(), 0)) }
