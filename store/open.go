package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// attach locks the directory, opens the database and enters service. The caller
// holds the slot, or is Open.
func (s *Store) attach(ctx context.Context, wait time.Duration) error {
	// Refusals come first: space would not change them.
	if err := s.look(ctx, wait); err != nil {
		return err
	}
	if err := s.roomToEnter(); err != nil {
		return err
	}
	id, err := s.claim(ctx, wait)
	if err != nil {
		return err
	}
	if err := s.probe(); err != nil {
		return err
	}
	n, err := s.openSession(id)
	if isCorruption(err) {
		n, err = s.startOver(ctx, id, err)
	}
	if err != nil {
		return err
	}
	s.makeBallast()
	s.measure()
	s.enter(n)
	return nil
}

// look makes sure that the directory is a store of ours, or can become one, and
// locks one that is.
func (s *Store) look(ctx context.Context, wait time.Duration) error {
	_, err := readIdentity(s.conf.FS, s.conf.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// Other faults of the database are found by opening it.
	if _, err := pebble.Peek(s.conf.Dir, s.conf.FS); isNewerPebble(err) {
		return fmt.Errorf("%w: %w", ErrNewerFormat, err)
	}
	return s.lockUp(ctx, wait)
}

// lockUp locks the directory, unless it is locked already.
func (s *Store) lockUp(ctx context.Context, wait time.Duration) (err error) {
	if s.lock == nil {
		s.lock, err = lockDir(ctx, s.conf.FS, s.conf.Dir, wait)
	}
	return err
}

// claim makes the directory a store, if it is none yet, and locks it.
func (s *Store) claim(ctx context.Context, wait time.Duration) (identity, error) {
	if err := s.adoptSuccessor(); err != nil {
		return identity{}, err
	}
	if err := s.makeDir(); err != nil {
		return identity{}, err
	}
	if err := s.lockUp(ctx, wait); err != nil {
		return identity{}, err
	}
	// Another process may have been faster before the lock was ours.
	id, err := readIdentity(s.conf.FS, s.conf.Dir)
	if err == nil && id.unfinished() {
		return id, s.clearUnfinished()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	id = newIdentity()
	return id, id.write(s.conf.FS, s.conf.Dir)
}

// clearUnfinished removes what an interrupted making of the database left: files
// that Pebble might take for a damaged database, and that never held anything.
func (s *Store) clearUnfinished() error {
	vs, dir := s.conf.FS, s.conf.Dir
	names, err := vs.List(dir)
	if err != nil {
		return explain("list store", dir, err)
	}
	for _, name := range names {
		switch name {
		case identityFile, identityNewFile, lockFile, ballastFile:
			continue
		}
		if err := vs.Remove(vs.PathJoin(dir, name)); err != nil {
			return explain("clear unfinished store", dir, err)
		}
	}
	return syncDir(vs, dir)
}

// probe writes a file as big as what opening may need at once. A database that
// meets a lack of space while it is being opened waits until there is some: better
// to find out before.
func (s *Store) probe() error {
	vs, path := s.conf.FS, s.conf.FS.PathJoin(s.conf.Dir, identityNewFile)
	f, err := vs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return explain("write store", s.conf.Dir, err)
	}
	_, err = f.Write(make([]byte, memTableSize))
	if err = errors.Join(err, f.Close(), vs.Remove(path)); err != nil {
		return explain("write store", s.conf.Dir, err)
	}
	return nil
}

// makeDir makes the directory, durably.
func (s *Store) makeDir() error {
	vs, dir := s.conf.FS, s.conf.Dir
	if _, err := vs.Stat(dir); err == nil {
		return nil
	}
	if err := vs.MkdirAll(dir, 0o700); err != nil {
		return explain("make store", dir, err)
	}
	return syncDir(vs, vs.PathDir(dir))
}

// openSession opens the database and puts it in the state of a running store.
func (s *Store) openSession(id identity) (*session, error) {
	if err := checkFiles(s.conf.FS, s.conf.Dir, id); err != nil {
		return nil, err
	}
	if id.Rewinding {
		if err := s.copyRewound(id); err != nil {
			return nil, err
		}
	}
	db, err := pebble.Open(s.conf.Dir, readWriteOptions(s.fs, s.lock, s.conf.memTable, s.logger(), s.listener()))
	if err != nil {
		return nil, explain("open store", s.conf.Dir, asDamage(err))
	}
	n, err := s.startSession(db, id)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return n, nil
}

func (s *Store) startSession(db *pebble.DB, id identity) (*session, error) {
	n, err := newSession(db, id)
	if err == nil && n.epoch != id.epoch() {
		if err := s.beginEpoch(n); err != nil {
			return nil, err
		}
		n, err = newSession(db, id)
	}
	if err != nil {
		return nil, err
	}
	if err := n.checkHead(); err != nil {
		return nil, err
	}
	return n, s.begin(n)
}

// begin removes the clean mark before anything else is written, and records the
// epoch of a new database and the head known now.
func (s *Store) begin(n *session) error {
	mark, err := readMeta(n.db, metaClean)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if !s.seen {
		s.clean, s.seen = parseTime(mark), true
	}
	s.mu.Unlock()
	w := n.newWrite()
	defer discard(w.batch)
	if mark != nil {
		must(w.batch.Delete([]byte(metaClean), nil))
	}
	must(w.batch.Set([]byte(metaEpoch), n.epoch[:], nil))
	must(w.batch.Set([]byte(metaOwed), []byte{oneIf(s.conf.Owed)}, nil))
	if s.conf.Owed && !n.owed {
		if err := s.addFirstRun(w); err != nil {
			return err
		}
	}
	if err := n.apply(w.batch); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	n.adopt(w)
	if err := n.rotateFirstLog(); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	if n.ident.Head != n.head || n.ident.Making != "" || n.ident.Rewinding {
		n.ident.Head, n.ident.Making, n.ident.Rewinding = n.head, "", false
		return n.ident.write(s.conf.FS, s.conf.Dir)
	}
	return nil
}

func oneIf(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// rotateFirstLog gives a new database its second log file. Pebble makes the first
// one before it raises the format, so that its records do not say how far they
// were synced, and damage in the middle of it would pass for its end: acknowledged
// events would be missing without a word.
func (n *session) rotateFirstLog() error {
	if !n.isNew {
		return nil
	}
	return n.db.Flush()
}

// unlock gives up the directory's lock, if it is held. The caller holds the slot.
func (s *Store) unlock() {
	if s.lock == nil {
		return
	}
	if err := s.lock.Close(); err != nil {
		s.conf.Log.WithError(err).Error("can't release the lock of the store")
	}
	s.lock = nil
}

// must is for batch operations, which fail only by misuse.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("store: build batch: %v", err))
	}
}
