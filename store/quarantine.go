package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// startOver sets a damaged directory aside and opens an empty one.
func (s *Store) startOver(ctx context.Context, old identity, cause error) (*session, error) {
	if err := s.quarantine(old, cause); err != nil {
		return nil, errors.Join(cause, err)
	}
	id, err := s.claim(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.openSession(id)
}

// quarantine renames the directory, under its lock, and gives up the lock, which
// went with it. The successor, which knows of it, is made before and takes its place
// after, so that a crash at any time either changes nothing, or leaves a successor
// that the next opening finds.
func (s *Store) quarantine(old identity, cause error) error {
	vs, dir := s.conf.FS, s.conf.Dir
	to, err := s.asidePath("corrupt")
	if err != nil {
		return err
	}
	if err := s.makeSuccessor(old, to); err != nil {
		return err
	}
	if err := vs.Rename(dir, to); err != nil {
		return explain("set aside store", dir, err)
	}
	s.unlock()
	s.mu.Lock()
	s.clean, s.seen = time.Time{}, true
	s.mu.Unlock()
	s.conf.Log.WithError(cause).WithField("quarantine", to).Error("store is damaged; it was set aside and an empty one takes its place")
	if err := syncDir(vs, vs.PathDir(dir)); err != nil {
		return err
	}
	return s.adoptSuccessor()
}

// asidePath returns a name beside the store that is free: with why and now in it.
func (s *Store) asidePath(why string) (string, error) {
	stem := s.conf.Dir + "." + why + "-" + s.wall().UTC().Format("20060102T150405Z")
	to := stem
	for i := 2; ; i++ {
		_, err := s.conf.FS.Stat(to)
		if errors.Is(err, fs.ErrNotExist) {
			return to, nil
		}
		if err != nil {
			return "", explain("set aside store", s.conf.Dir, err)
		}
		to = fmt.Sprintf("%s-%d", stem, i)
	}
}

func (s *Store) successorPath() string { return s.conf.Dir + ".successor" }

// makeSuccessor makes the directory of the store that follows a quarantined one,
// durably, with its identity and nothing else. An older one, of a quarantine that
// was not carried out, it replaces.
func (s *Store) makeSuccessor(old identity, to string) error {
	id := newIdentity()
	id.PreviousEpoch, id.PreviousSeq = old.Epoch, old.Head
	id.QuarantinedTo, id.QuarantinedAt = to, s.wall().UTC()
	s.mu.Lock()
	if s.stats.Epoch == old.epoch() {
		id.PreviousSeq = max(old.Head, s.head.Load())
	}
	s.mu.Unlock()
	vs, path := s.conf.FS, s.successorPath()
	if err := vs.MkdirAll(path, 0o700); err != nil {
		return explain("make store", path, err)
	}
	if err := id.write(vs, path); err != nil {
		return err
	}
	return syncDir(vs, vs.PathDir(path))
}

// adoptSuccessor puts the successor of a quarantined store in its place, unless
// something is there, or it was made for a quarantine that was not carried out.
func (s *Store) adoptSuccessor() error {
	vs, dir, path := s.conf.FS, s.conf.Dir, s.successorPath()
	if _, err := vs.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	id, err := readIdentity(vs, path)
	if err != nil {
		return nil //nolint:nilerr // there is none, or nothing that could be used
	}
	if old, err := readIdentity(vs, id.QuarantinedTo); err != nil || old.Epoch != id.PreviousEpoch {
		return nil //nolint:nilerr // nothing was quarantined
	}
	if err := vs.Rename(path, dir); err != nil {
		return explain("make store", dir, err)
	}
	return syncDir(vs, vs.PathDir(dir))
}
