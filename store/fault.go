package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/sirupsen/logrus"
)

// backgroundLogEvery bounds how often errors of background work are logged:
// without space there are a hundred a second.
const backgroundLogEvery = 30 * time.Second

// die ends the process. It does not return.
func (s *Store) die(reason error) {
	s.dying.Do(func() { s.conf.Fatal(reason) })
	panic(fmt.Sprintf("store: fatal: %v", reason))
}

// overdue runs when a commit has blocked for CommitDeadline. Without space that
// says nothing new: Pebble goes on when there is some. It must not hold s.mu
// while it logs or dies.
func (s *Store) overdue() {
	if s.fs.lacking() {
		s.leave(leaveSpace, fmt.Sprintf("a write waits for space for more than %v", s.conf.CommitDeadline))
		s.watchdog.Reset(s.conf.CommitDeadline)
		return
	}
	s.die(fmt.Errorf("write store %s: blocked for %v", s.conf.Dir, s.conf.CommitDeadline))
}

// pebbleLogger passes on what Pebble says. Its Fatalf ends the process: Pebble
// goes on as if nothing had happened if it returns.
type pebbleLogger struct {
	log   *logrus.Entry
	fatal func(error)
}

func (s *Store) logger() pebble.Logger { return pebbleLogger{s.conf.Log, s.die} }

func (l pebbleLogger) Infof(format string, args ...any)  { l.log.Debugf(format, args...) }
func (l pebbleLogger) Errorf(format string, args ...any) { l.log.Warnf(format, args...) }
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf("database: %w", fmt.Errorf(format, args...)))
}

// listener hears of what Pebble does in the background.
func (s *Store) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: s.backgroundError,
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.leave(leaveCorrupt, fmt.Sprintf("the database is damaged: %v", i.Details))
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			s.conf.Log.WithField("path", i.Path).Warnf("disk is slow: %v for %v", i.Duration, i.OpType)
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			s.conf.Log.Warnf("writes wait for background work: %s", i.Reason)
		},
	}
}

func (s *Store) backgroundError(err error) {
	s.backgroundErrors.Add(1)
	now := time.Now()
	last := s.lastBackground.Load()
	if now.Sub(time.Unix(0, last)) >= backgroundLogEvery && s.lastBackground.CompareAndSwap(last, now.UnixNano()) {
		s.conf.Log.WithError(err).WithField("errors", s.backgroundErrors.Load()).Warn("background work of the database failed")
	}
	switch {
	case isNoSpace(err):
		s.leave(leaveSpace, err.Error())
	case isCorruption(err):
		s.leave(leaveCorrupt, fmt.Sprintf("the database is damaged: %v", err))
	}
}

// makeBallast keeps some space in a file that can be removed when background work
// finds none. Failing to is no fault: then there is less to fall back on. Without
// preallocation (not Linux) the file is empty and the Reserve alone has to do.
func (s *Store) makeBallast() {
	vs, path, size := s.conf.FS, s.ballastPath(), s.conf.Reserve/2
	if info, err := vs.Stat(path); err == nil && info.Mode().IsRegular() {
		return
	}
	if s.room(0, margin{s.conf.Reserve + size, 2 * filesReserve}) != nil {
		return
	}
	f, err := vs.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(f.Preallocate(0, int64(size)), f.Close())
	}
	if err != nil {
		s.dropBallast()
		s.conf.Log.WithError(err).Debug("no ballast file")
	}
}

func (s *Store) dropBallast() {
	vs := s.conf.FS
	if _, err := vs.Stat(s.ballastPath()); err != nil {
		return
	}
	if err := vs.Remove(s.ballastPath()); err != nil {
		s.conf.Log.WithError(err).Warn("can't remove the ballast file")
	}
}

func (s *Store) ballastPath() string { return s.conf.FS.PathJoin(s.conf.Dir, ballastFile) }
