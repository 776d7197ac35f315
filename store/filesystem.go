package store

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// privateFS is the real file system with modes that no umask can widen or break:
// directories 0700, files 0600.
type privateFS struct{ vfs.FS }

func (p privateFS) Unwrap() vfs.FS { return p.FS }

func (p privateFS) MkdirAll(dir string, _ os.FileMode) error {
	_, err := os.Stat(dir)
	if err == nil {
		return nil
	}
	if err := p.FS.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

func (p privateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return private(name)(p.FS.Create(name, c))
}

func (p privateFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return private(name)(p.FS.OpenReadWrite(name, c, opts...))
}

func (p privateFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return private(newname)(p.FS.ReuseForWrite(oldname, newname, c))
}

// Lock changes the mode by path: closing a second descriptor of a lock file would
// give up the lock.
func (p privateFS) Lock(name string) (io.Closer, error) {
	lock, err := p.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, 0o600); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

func private(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(name, 0o600); err != nil {
			_ = f.Close()
			return nil, err
		}
		return f, nil
	}
}

// guardFS stands between Pebble and the file system and deals with a lack of
// space there, because Pebble does not everywhere: a log file that can not be
// rotated, or a manifest that can not be written, ends the process, even with
// "sync: unlock of unlocked mutex" before any handler runs.
//
// A write that finds no space is tried again after the ballast file was removed.
// If that does not help, a record of the log fails (the store leaves service and
// reopens the database), and so does an sstable (Pebble tries again); what Pebble
// can not bear to fail waits for space. Any other error of rotating a log file is
// fatal here, where its reason can still be told. A sync is never tried again: a
// record of the log fails, the others are fatal.
type guardFS struct {
	vfs.FS
	dropBallast func()      // removes the ballast, if there is one
	wait        func(error) // called when something must wait, before each pause
	pace        pace
	fatal       func(error) // ends the process
	// running is set while a database is open: before and after, Pebble returns its
	// errors.
	running atomic.Bool

	syncs   atomic.Uint64
	waiting atomic.Int32 // operations that wait for space
	// rotating is set while Pebble may close a log file with records unwritten: the
	// application of a batch too big for a memtable.
	rotating atomic.Bool
	lastLack atomic.Int64 // when space was last missing, Unix nanoseconds
	cause    atomic.Value // the error then
	// badTable is when a table could not be written last, for another reason.
	badTable atomic.Pointer[time.Time]

	mu sync.Mutex // serialises dropBallast
}

func (g *guardFS) Unwrap() vfs.FS { return g.FS }

// lacking reports whether something waits for space, or missed it just now.
func (g *guardFS) lacking() bool {
	return g.waiting.Load() > 0 || time.Since(time.Unix(0, g.lastLack.Load())) < g.pace.lack
}

// lackError is what guardFS.cause holds: an atomic.Value wants one type.
type lackError struct{ err error }

func (g *guardFS) lacked(err error) {
	g.lastLack.Store(time.Now().UnixNano())
	g.cause.Store(lackError{err})
}

// lack returns what space was last missing for, nil if it never was.
func (g *guardFS) lack() error {
	e, _ := g.cause.Load().(lackError)
	return e.err
}

// try runs op; without space, again without the ballast; still without, as long
// as it takes if vital.
func (g *guardFS) try(vital func() bool, op func() error) error {
	err := op()
	if err == nil || !isNoSpace(err) {
		return err
	}
	g.lacked(err)
	g.mu.Lock()
	g.dropBallast()
	g.mu.Unlock()
	if err = op(); !isNoSpace(err) || !vital() {
		return err
	}
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	for isNoSpace(err) {
		g.lacked(err)
		g.wait(err)
		<-time.After(g.pace.wait)
		err = op()
	}
	return err
}

// vitalName reports whether Pebble can not live with a failure to make the file:
// it ends the process, or leaves goroutines of a half-opened database behind,
// which end the process later.
func vitalName(name string) bool {
	return isLog(name) || strings.HasSuffix(name, ".dbtmp") ||
		strings.Contains(name, "MANIFEST-") || strings.Contains(name, "marker.") || strings.Contains(name, "OPTIONS-")
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// tablePause is how long after one that could not be written the next table is begun:
// Pebble flushes again at once, without end.
const tablePause = time.Second

// rest waits before another table is begun, if the last one could not be written.
func (g *guardFS) rest() {
	if bad := g.badTable.Load(); bad != nil {
		<-time.After(tablePause - time.Since(*bad))
	}
}

// noteTable notes whether a table could be written. A lack of space is dealt with.
func (g *guardFS) noteTable(name string, err error) {
	if err != nil && isTable(name) && !isNoSpace(err) {
		now := time.Now()
		g.badTable.Store(&now)
	}
}

func (g *guardFS) create(name string, open func() (vfs.File, error)) (f vfs.File, err error) {
	if isTable(name) {
		g.rest()
	}
	defer func() { g.noteTable(name, err) }()
	vital := vitalName(name)
	err = g.try(func() bool { return vital }, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		err = fmt.Errorf("create %s: %w", name, err)
		if isLog(name) && g.running.Load() {
			g.fatal(err)
		}
		return nil, err
	}
	return &guardFile{File: f, name: name, fs: g, log: isLog(name), vital: vital && !isLog(name)}, nil
}

func (g *guardFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.create(name, func() (vfs.File, error) { return g.FS.Create(name, c) })
}

func (g *guardFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.create(name, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite is not tried again as it stands: its first half may have been done.
func (g *guardFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	renamed := false
	return g.create(newname, func() (vfs.File, error) {
		if renamed {
			return g.FS.OpenReadWrite(newname, c)
		}
		f, err := g.FS.ReuseForWrite(oldname, newname, c)
		if err != nil {
			_, gone := g.Stat(oldname)
			renamed = gone != nil
		}
		return f, err
	})
}

func (g *guardFS) Rename(oldname, newname string) error {
	return g.try(func() bool { return vitalName(newname) }, func() error { return g.FS.Rename(oldname, newname) })
}

func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, name: name, fs: g, vital: true}, nil
}

// guardFile is a file that is written through a guardFS. Like every vfs.File it is
// written by one goroutine at a time.
type guardFile struct {
	vfs.File
	fs    *guardFS
	name  string
	vital bool // always wait for space
	log   bool // wait once it is being closed
	eof   bool // the end of the log was written
}

// trailerSize is the size of the chunk that ends a log file: a checksum and a
// length, all zero, a type and a log number. No record is that short.
const trailerSize = 11

func isTrailer(p []byte) bool {
	return len(p) == trailerSize && string(p[:6]) == "\x00\x00\x00\x00\x00\x00"
}

func (f *guardFile) mustWait() bool {
	return f.vital || f.log && f.fs.running.Load() && (f.eof || f.fs.rotating.Load())
}

// do runs op, which Pebble survives the failure of only as mustWait says.
func (f *guardFile) do(op func() error) error {
	err := f.fs.try(f.mustWait, op)
	f.fs.noteTable(f.name, err)
	if err != nil && f.log && f.mustWait() {
		f.fs.fatal(fmt.Errorf("close %s: %w", f.name, err))
	}
	return err
}

func (f *guardFile) Write(p []byte) (n int, err error) {
	f.eof = f.eof || f.log && isTrailer(p)
	err = f.do(func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

func (f *guardFile) Sync() error { return f.sync(f.File.Sync) }

func (f *guardFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	err = f.once(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *guardFile) sync(op func() error) error {
	f.fs.syncs.Add(1)
	return f.once(op)
}

// once runs op, which is never tried again: Linux tells of a page that could not
// be written once and takes it for written afterwards, so that the next fsync(2)
// says nothing but yes (Rebello et al., Can Applications Recover from fsync
// Failures?, USENIX ATC 2020). What Pebble does not survive is fatal: it would end
// the process too, with less to say.
func (f *guardFile) once(op func() error) error {
	err := op()
	if err == nil {
		return nil
	}
	if isNoSpace(err) {
		f.fs.lacked(err)
	}
	f.fs.noteTable(f.name, err)
	if f.mustWait() && f.fs.running.Load() {
		f.fs.fatal(fmt.Errorf("sync %s: %w", f.name, err))
	}
	return err
}

func (f *guardFile) Preallocate(offset, length int64) error {
	return f.do(func() error { return f.File.Preallocate(offset, length) })
}
