package store

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/sirupsen/logrus"
)

// pebbleFormat is the format that stores are written in. It is named, not
// "newest": a library update must not make stores unreadable for the release
// before it.
const pebbleFormat = pebble.FormatValueSeparation

// memTableSize in bytes: small, because up to two of them are memory of the daemon
// and three of them are its recycled log files. Twice as much is no faster
// (docs/performance.md).
const memTableSize = 2 << 20

// readWriteOptions are the options of the daemon's database.
func readWriteOptions(fs vfs.FS, lock *pebble.Lock, memTable uint64, logger pebble.Logger, listener *pebble.EventListener) *pebble.Options {
	o := baseOptions(fs, logger, listener)
	o.Lock = lock
	o.MemTableSize = memTable
	scheduler := new(compactions)
	o.Experimental.CompactionScheduler = scheduler
	o.EventListener = scheduler.listen(listener)
	return o
}

// readOnlyOptions are the options for reading a store that no daemon holds. lock
// may be nil. Opening writes nothing.
func readOnlyOptions(fs vfs.FS, lock *pebble.Lock) *pebble.Options {
	logger := panicLogger{}
	o := baseOptions(fs, logger, quietListener())
	o.Lock = lock
	o.ReadOnly = true
	return o
}

func baseOptions(fs vfs.FS, logger pebble.Logger, listener *pebble.EventListener) *pebble.Options {
	return &pebble.Options{
		FS:                    fs,
		Logger:                logger,
		EventListener:         listener,
		FormatMajorVersion:    pebbleFormat,
		CacheSize:             2 << 20,
		MemTableSize:          memTableSize,
		MaxOpenFiles:          128,
		MaxManifestFileSize:   4 << 20,
		L0CompactionThreshold: 2,
		LBaseMaxBytes:         32 << 20,
	}
}

// quietListener ignores every event. DataCorruption must be set: Pebble's default
// ends the process; readers get the error as well.
func quietListener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(error) {},
		DataCorruption:  func(pebble.DataCorruptionInfo) {},
	}
}

// panicLogger is for read-only databases, where Fatalf is a broken invariant.
type panicLogger struct{}

func (panicLogger) Infof(string, ...any)  {}
func (panicLogger) Errorf(string, ...any) {}
func (panicLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// silentLog is used where the caller gave no log.
func silentLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	return logrus.NewEntry(l)
}
