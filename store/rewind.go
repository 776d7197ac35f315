package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// A store that turns out to be an older copy of itself begins a new epoch in place:
//
//  1. Its identity is replaced by one with the new epoch, durably. From here on it
//     happens, whatever comes between; the store leaves service.
//  2. When it is opened again, and before its database is, a copy of that is made
//     beside it, of hard links, with an identity of its own as the last thing.
//  3. One batch removes the events, and what is known of them, and sets the new epoch.
//     The process table and the journal stay.
//  4. The identity is written once more: it is done.

// rewind is the first step. The caller holds the slot.
func (s *Store) rewind(n *session, r event.Receipt) error {
	if s.rewound {
		return fmt.Errorf("resume delivery: receiver has event %d of epoch %s, where the last one is %d, and says that a second time", r.Seq, n.epoch, n.head)
	}
	to, err := s.asidePath("rewound")
	if err != nil {
		return err
	}
	id := newIdentity()
	id.Making = ""
	id.PreviousEpoch, id.PreviousSeq = n.epoch.String(), r.Seq
	id.RewoundAt, id.RewoundTo, id.Rewinding = s.wall().UTC(), s.conf.FS.PathBase(to), true
	reason := fmt.Sprintf("the store is an older copy of itself: the receiver has event %d of it, the last one here is %d", r.Seq, n.head)
	s.conf.Log.WithField("epoch", id.Epoch).Error(reason + "; it begins a new epoch")
	err = id.write(s.fs, s.conf.Dir)
	s.rewound = err == nil
	// After an error too: only opening it again tells which identity is there, and
	// under the new one every event that is appended from here on would be removed.
	s.leave(leaveBroken, reason)
	return errors.Join(unavailable(reason), err)
}

// isRewound reports whether the database has the epoch before its identity's.
func (i identity) isRewound(stored event.Epoch) bool { return i.Rewinding && stored == i.previous() }

// rewoundTo is where the copy is; empty if there is none.
func (i identity) rewoundTo(vs vfs.FS, dir string) string {
	if i.RewoundTo == "" {
		return ""
	}
	return vs.PathJoin(vs.PathDir(dir), vs.PathBase(i.RewoundTo))
}

// copyRewound is the second step, unless it was taken. A copy without an identity is
// not finished.
func (s *Store) copyRewound(id identity) error {
	vs, to := s.conf.FS, id.rewoundTo(s.conf.FS, s.conf.Dir)
	switch copied, err := readIdentity(vs, to); {
	case err == nil && copied.Epoch == id.PreviousEpoch:
		return nil
	case errors.Is(err, ErrNotStore):
		if err := vs.RemoveAll(to); err != nil {
			return explain("remove unfinished copy", to, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("copy store %s: %w", s.conf.Dir, errors.Join(err, fs.ErrExist))
	}
	if err := vs.MkdirAll(to, 0o700); err != nil {
		return explain("copy store to", to, err)
	}
	if err := s.linkAll(to); err != nil {
		return explain("copy store to", to, err)
	}
	copied := identity{Store: identityMagic, Format: formatVersion, Epoch: id.PreviousEpoch}
	if err := copied.write(vs, to); err != nil {
		return err
	}
	return syncDir(vs, vs.PathDir(to))
}

// linkAll links the files of the database, which must be closed: see [Copy] for why
// links are enough.
func (s *Store) linkAll(to string) error {
	vs, dir := s.conf.FS, s.conf.Dir
	names, err := vs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if isNotCopied(name) || name == identityFile {
			continue
		}
		if err := vfs.LinkOrCopy(vs, vs.PathJoin(dir, name), vs.PathJoin(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// beginEpoch is the third step.
func (s *Store) beginEpoch(n *session) error {
	b := n.db.NewBatch()
	defer discard(b)
	for _, prefix := range []string{prefixEvent, prefixMinute, metaLoss, metaRange} {
		lower, upper := keySpan(prefix)
		must(b.DeleteRange(lower, upper, nil))
	}
	for _, key := range []string{metaBytes, metaCursor, metaFloor} {
		must(b.Delete([]byte(key), nil))
	}
	must(b.Set([]byte(metaStream), stream{name: n.stream.name}.record(), nil))
	epoch := n.ident.epoch()
	must(b.Set([]byte(metaEpoch), epoch[:], nil))
	n.noteRemoved()
	if err := n.apply(b); err != nil {
		return fmt.Errorf("begin new epoch of store %s: %w", s.conf.Dir, err)
	}
	s.conf.Log.WithField("copy", n.ident.rewoundTo(s.conf.FS, s.conf.Dir)).
		Error("The store was an older copy of itself; it has a new epoch, and what it held is in the copy")
	return nil
}
