package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// Copy is a store that no daemon runs, open for reading. Unless Direct it is a copy
// of its own, so that a daemon can start meanwhile.
type Copy struct {
	// Direct says that the store itself is being read, because no copy could be
	// made beside it; no daemon can start until Close.
	Direct bool

	reading *reading
	dir     string       // of the copy, removed by Close; empty if Direct
	lock    *pebble.Lock // of the directory that is read
}

// OpenCopy opens the store in dir for reading, which no daemon may have open. Under
// the store's lock it makes a copy beside it, of hard links, and lets go. What copies
// of dead processes left behind is removed. Of a store with a damaged log it reads
// what comes before the damage, see Damage. Errors are those of [Inspect], and
// damage, for which [IsDamaged] is true: it can not be read at all. The caller must
// call Close.
func OpenCopy(ctx context.Context, dir string) (*Copy, error) {
	dir = filepath.Clean(dir)
	id, lock, err := lockForReading(ctx, readFS(), dir)
	if err != nil {
		return nil, err
	}
	c := new(Copy)
	if err := c.link(dir); err != nil {
		// Whatever the reason was, it holds for the copy only.
		_ = c.discard()
		c.Direct, c.lock = true, lock
		return c.open(ctx, dir, dir, id)
	}
	if err := lock.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("unlock store %s: %w", dir, err), c.discard())
	}
	return c.open(ctx, c.dir, dir, id)
}

// IsDamaged reports whether err says that what is on disk is damaged.
func IsDamaged(err error) bool { return isCorruption(err) }

// open opens what the copy reads. It owns the copy's lock and files.
func (c *Copy) open(ctx context.Context, from, dir string, id identity) (*Copy, error) {
	err := ctx.Err()
	if err == nil {
		c.reading, err = openReading(readFS(), from, dir, id, c.lock)
	}
	if isCorruption(err) && c.dir != "" {
		c.reading, err = openCut(c.dir, dir, id, c.lock, err)
	}
	if err != nil {
		return nil, errors.Join(err, c.discard())
	}
	return c, nil
}

// copyPrefix is how the names of copies of a store begin; digits follow.
func copyPrefix(dir string) string { return ".procmond-read-" + filepath.Base(dir) + "-" }

// link makes the copy, beside the store because links need the same file system. It
// runs under the store's lock, as everything does that makes or removes copies: so
// a copy without a lock is one that nobody reads.
//
// Links are enough although the next daemon writes: Pebble removes or replaces files
// that it finds when it is opened, and writes none of them again. It makes a new
// MANIFEST, and uses only those logs again that it made since (record.LogRecycler);
// TestCopyOutlivesTheStore holds it to that.
func (c *Copy) link(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	removeAbandoned(dir)
	if c.dir, err = os.MkdirTemp(filepath.Dir(dir), copyPrefix(dir)); err != nil {
		return err
	}
	if c.lock, err = pebble.LockDirectory(c.dir, vfs.Default); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || isNotCopied(entry.Name()) {
			continue
		}
		if err := os.Link(filepath.Join(dir, entry.Name()), filepath.Join(c.dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeAbandoned removes the copies that nobody reads any more. It takes no notice
// of errors: what is left takes space and does no harm.
func removeAbandoned(dir string) {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return
	}
	for _, entry := range entries {
		number, isCopy := strings.CutPrefix(entry.Name(), copyPrefix(dir))
		info, err := entry.Info()
		if !isCopy || strings.Trim(number, "0123456789") != "" || err != nil || !info.IsDir() || !isOwn(info) {
			continue
		}
		path := filepath.Join(filepath.Dir(dir), entry.Name())
		lock, err := pebble.LockDirectory(path, vfs.Default)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(path)
		_ = lock.Close()
	}
}

func isNotCopied(name string) bool {
	return name == lockFile || name == ballastFile || name == identityNewFile
}

// Damage says what keeps some of the store from being read, nil if nothing is known
// to.
func (c *Copy) Damage() error { return c.reading.damage }

// Query is [Store.Query] on the copy.
func (c *Copy) Query(ctx context.Context, q Query, fn func(*event.Event) error) error {
	return c.reading.view().query(ctx, q, fn)
}

// Transitions is [Store.Transitions] on the copy.
func (c *Copy) Transitions(ctx context.Context, limit int) ([]Transition, error) {
	return readTransitions(ctx, c.reading.db, limit)
}

// Stats is what the store knows of itself; there is no daemon that counts.
func (c *Copy) Stats() Stats { return c.reading.stats() }

// Close ends reading and removes the copy.
func (c *Copy) Close() error { return errors.Join(c.reading.close(), c.discard()) }

// discard unlocks what is read, and removes it if it is a copy.
func (c *Copy) discard() error {
	var errs []error
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	c.dir, c.lock = "", nil
	return errors.Join(errs...)
}
