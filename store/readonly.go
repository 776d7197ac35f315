package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// quietLockWait is how long reading a dead store waits for its lock: a daemon that
// starts or stops holds it, and so does another reader, for a moment.
const quietLockWait = 200 * time.Millisecond

// readFS is the file system as readers of dead stores use it.
func readFS() vfs.FS { return sharedLockFS{vfs.Default} }

// lockForReading locks a store that nobody runs, and tells whose it is. The caller
// closes the lock.
func lockForReading(ctx context.Context, vs vfs.FS, dir string) (identity, *pebble.Lock, error) {
	if _, err := readIdentity(vs, dir); err != nil { // before a lock file is made in a foreign directory
		return identity{}, nil, err
	}
	lock, err := lockDir(ctx, vs, dir, quietLockWait)
	if err != nil {
		return identity{}, nil, err
	}
	id, err := readIdentity(vs, dir)
	if err != nil {
		return identity{}, nil, errors.Join(err, lock.Close())
	}
	return id, lock, nil
}

// reading is a store that is open for reading only.
type reading struct {
	db  *pebble.DB
	n   *session
	dir string // where its files are
	// path is the store's own, which for a copy is not dir.
	path string
	// damage is what is wrong although it can be read: the next daemon would set it
	// aside. nil if nothing is known to be.
	damage error
}

// openReading opens the database in dir: the store of id at path, or a copy of it.
// lock is dir's.
func openReading(vs vfs.FS, dir, path string, id identity, lock *pebble.Lock) (*reading, error) {
	if id.unfinished() {
		// Whatever is there, the next daemon makes it anew.
		vs, dir, lock = vfs.NewMem(), "", nil
	}
	damage := checkFiles(vs, dir, id)
	if damage != nil && !isCorruption(damage) {
		return nil, damage
	}
	options := readOnlyOptions(vs, lock)
	options.ReadOnly = !id.unfinished()
	db, err := pebble.Open(dir, options)
	if isNewerPebble(err) {
		return nil, fmt.Errorf("%w: %w", ErrNewerFormat, err)
	}
	if err != nil {
		return nil, errors.Join(damage, explain("open store", path, asDamage(err)))
	}
	n, err := newSession(db, id)
	if err != nil {
		return nil, errors.Join(damage, err, db.Close())
	}
	return &reading{db: db, n: n, dir: dir, path: path, damage: errors.Join(damage, n.checkHead())}, nil
}

func (r *reading) view() *view {
	return &view{db: r.db, epoch: r.n.epoch, floor: r.n.floor, head: r.n.head, release: func() {}}
}

// stats is what a store that nobody runs knows of itself.
func (r *reading) stats() Stats {
	var owed tally
	if r.n.owed {
		owed = r.n.backlog()
	}
	size, err := sizeOnDisk(readFS(), r.path)
	if err != nil {
		size = r.db.Metrics().DiskSpaceUsage()
	}
	return Stats{
		Owed: r.n.owed,
		Path: r.path, Epoch: r.n.epoch,
		Head: r.n.head, Floor: r.n.floor, Cursor: r.n.cursor,
		BacklogEvents: owed.events, BacklogBytes: owed.bytes, Kept: r.n.kept(),
		Bytes:         size,
		Losses:        r.n.losses,
		QuarantinedTo: r.n.ident.QuarantinedTo, QuarantinedAt: r.n.ident.QuarantinedAt,
		RewoundTo: r.n.ident.rewoundTo(readFS(), r.path), RewoundAt: r.n.ident.RewoundAt,
	}
}

func (r *reading) close() error { return r.db.Close() }
