package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/sirupsen/logrus"
)

// The defaults of Config.
const (
	DefaultReserve        = 16 << 20
	DefaultCommitDeadline = 30 * time.Second
	DefaultLockWait       = 5 * time.Second
	DefaultRetentionAge   = 72 * time.Hour
	DefaultRetentionBytes = 1 << 30
	DefaultMaxBacklog     = 512 << 20
)

// Config says where the store is and how it behaves.
type Config struct {
	// Dir is the store's directory. Open makes it, and its parents, if needed.
	Dir string
	// FS is the file system; nil is the real one.
	FS vfs.FS
	// Retention bounds what is kept for queries.
	Retention Retention
	// Reserve is what is kept free on the file system, in bytes. The store leaves
	// service when less than half of it is left, and enters with a sixteenth of it
	// more; likewise with 8 and 16 inodes, where their number is limited. 0 is
	// DefaultReserve. Half as much again is kept in a ballast file, where the file
	// system can preallocate, for Pebble to finish what it began.
	Reserve uint64
	// CommitDeadline is how long a write may block before it is fatal. 0 is
	// DefaultCommitDeadline.
	CommitDeadline time.Duration
	// LockWait is how long Open retries while another process holds the store.
	// 0 does not wait.
	LockWait time.Duration
	// Owed says that somebody takes delivery: what is above the cursor is never
	// removed. If false, nothing is owed: backlog 0, retention alone decides.
	Owed bool
	// MaxBacklog is the budget, in encoded bytes, of events that are not acknowledged.
	// An append that would pass it makes the store shed the oldest of them: see the
	// package. It is in force only if Owed. 0 is DefaultMaxBacklog.
	MaxBacklog uint64
	// DeliverFromNow says that delivery begins with what is appended from the first
	// run on that owes it. If false, it begins as far back as half of MaxBacklog goes.
	DeliverFromNow bool
	// Fatal is called, once, when the process can not go on: the reason is an
	// error of the file system that is not "no space", or a write that blocks for
	// ever. It must not return; if it does, the store panics. It may be called from
	// any goroutine and with the store's locks held: it must not call the store.
	Fatal func(error)
	// Log may be nil.
	Log *logrus.Entry

	memTable uint64 // bytes, 0 is memTableSize; tests want log files to rotate often
	pace     pace   // tests are in a hurry
}

// pace says how fast the store tries again where the file system has no space.
type pace struct {
	wait                time.Duration // between two tries of what must not fail
	backoff, backoffMax time.Duration // of reopening: first, and at most
	lack                time.Duration // how long a lack of space is not forgotten
	closing             time.Duration // how long Close waits
}

var defaultPace = pace{wait: 250 * time.Millisecond, backoff: 250 * time.Millisecond, backoffMax: 5 * time.Second, lack: 5 * time.Second, closing: 10 * time.Second}

// Retention bounds what is kept. What is removed first is what is oldest.
type Retention struct {
	Age   time.Duration // since it was observed; 0 is no bound
	Bytes uint64        // on disk, to within a few MiB; 0 is no bound
}

// Validate returns every fault of c, joined, or nil.
func (c Config) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Dir == "", "store directory: want a path")
	fault(c.Retention.Age < 0, "retention age %v: want 0 or more", c.Retention.Age)
	fault(c.Retention.Age > 0 && c.Retention.Age < time.Minute, "retention age %v: want at least 1m", c.Retention.Age)
	fault(c.Retention.Bytes > 0 && c.Retention.Bytes < minRetentionBytes,
		"retention bytes %d: want at least %d", c.Retention.Bytes, uint64(minRetentionBytes))
	fault(c.MaxBacklog > 0 && c.MaxBacklog < minMaxBacklog,
		"maximal backlog %d: want at least %d bytes", c.MaxBacklog, uint64(minMaxBacklog))
	fault(c.CommitDeadline < 0, "commit deadline %v: want 0 or more", c.CommitDeadline)
	fault(c.LockWait < 0, "lock wait %v: want 0 or more", c.LockWait)
	fault(c.Fatal == nil, "fatal: want a function")
	return errors.Join(faults...)
}

// minRetentionBytes is what Pebble needs to work at all with 4 MiB memtables.
const minRetentionBytes = 16 << 20

// minMaxBacklog is a batch of the collector.
const minMaxBacklog = 1 << 20

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = privateFS{vfs.Default}
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	if c.CommitDeadline == 0 {
		c.CommitDeadline = DefaultCommitDeadline
	}
	if c.MaxBacklog == 0 {
		c.MaxBacklog = DefaultMaxBacklog
	}
	if c.memTable == 0 {
		c.memTable = memTableSize
	}
	if c.pace == (pace{}) {
		c.pace = defaultPace
	}
	if c.Log == nil {
		c.Log = silentLog()
	}
	c.Log = c.Log.WithField("store", c.Dir)
	return c
}
