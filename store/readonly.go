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

// reading is a store that is open for reading only.
type reading struct {
	db   *pebble.DB
	n    *session
	id   identity
	path string
}

// openReading opens the database in dir, which holds the store of id. lock is
// held, or nil where nobody else knows the directory.
func openReading(vs vfs.FS, dir, path string, id identity, lock *pebble.Lock) (*reading, error) {
	db, err := pebble.Open(dir, readOnlyOptions(vs, lock))
	if isNewerPebble(err) {
		return nil, fmt.Errorf("%w: %w", ErrNewerFormat, err)
	}
	if err != nil {
		return nil, explain("open store", path, err)
	}
	n, err := newSession(db, id)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &reading{db: db, n: n, id: id, path: path}, nil
}

func (r *reading) view() *view {
	return &view{db: r.db, epoch: r.n.epoch, floor: r.n.floor.Load(), head: r.n.head, release: func() {}}
}

// stats is what a store that nobody runs knows of itself.
func (r *reading) stats() Stats {
	events, bytes := r.n.backlog()
	return Stats{
		Path: r.path, Epoch: r.n.epoch,
		Head: r.n.head, Floor: r.n.floor.Load(), Cursor: r.n.cursor,
		BacklogEvents: events, BacklogBytes: bytes,
		Bytes:         r.db.Metrics().DiskSpaceUsage(),
		Losses:        r.n.losses,
		QuarantinedTo: r.id.QuarantinedTo, QuarantinedAt: r.id.QuarantinedAt,
	}
}

func (r *reading) close() error { return r.db.Close() }

// locked runs fn while the lock of a store that nobody runs is held.
func locked(ctx context.Context, vs vfs.FS, dir string, fn func(identity, *pebble.Lock) error) error {
	if _, err := readIdentity(vs, dir); err != nil {
		return err
	}
	lock, err := lockDir(ctx, vs, dir, quietLockWait)
	if err != nil {
		return err
	}
	id, err := readIdentity(vs, dir)
	if err == nil {
		err = fn(id, lock)
	}
	return errors.Join(err, lock.Close())
}
