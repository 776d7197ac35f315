package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

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
	lock    *pebble.Lock // of the store if Direct
}

// OpenCopy opens the store in dir for reading, which no daemon may have open. Under
// the store's lock it makes a copy beside it, of links to the files that never
// change and copies of the few that could, and lets go. What copies of dead
// processes left behind is removed. Errors are those of [Inspect]; a damaged store
// is one for which [IsDamaged] is true.
func OpenCopy(ctx context.Context, dir string) (*Copy, error) {
	dir = filepath.Clean(dir)
	removeAbandoned(dir)
	c := &Copy{dir: copyName(dir, os.Getpid())}
	var id identity
	err := locked(ctx, vfs.Default, dir, func(of identity, _ *pebble.Lock) error {
		id = of
		return linkStore(dir, c.dir)
	})
	if err == nil {
		c.reading, err = openReading(vfs.Default, c.dir, dir, id, nil)
	} else if refusesCopies(err) {
		return openDirect(ctx, dir, c.dir)
	}
	if err != nil {
		_ = os.RemoveAll(c.dir)
		return nil, err
	}
	return c, nil
}

// IsDamaged reports whether err says that what is on disk is damaged.
func IsDamaged(err error) bool { return isCorruption(err) }

// openDirect opens the store itself, whose lock is held until Close.
func openDirect(ctx context.Context, dir, leftover string) (*Copy, error) {
	_ = os.RemoveAll(leftover)
	id, err := readIdentity(vfs.Default, dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, vfs.Default, dir, quietLockWait)
	if err != nil {
		return nil, err
	}
	r, err := openReading(vfs.Default, dir, dir, id, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Copy{Direct: true, reading: r, lock: lock}, nil
}

// refusesCopies reports whether a copy can not be made here, but perhaps the store
// itself be read.
func refusesCopies(err error) bool {
	return errors.Is(err, errCopy)
}

// errCopy marks errors of making the copy, as opposed to those of the store.
var errCopy = errors.New("can't copy store")

const copyInfix = ".read-"

// copyName is where the copy of a process lies: beside the store, on the same file
// system.
func copyName(dir string, pid int) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+copyInfix+strconv.Itoa(pid))
}

// removeAbandoned removes the copies of processes that no longer are.
func removeAbandoned(dir string) {
	prefix := copyName(dir, 0)
	prefix = prefix[:len(prefix)-1]
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*"+copyInfix+"*"))
	for _, name := range found {
		pid, err := strconv.Atoi(strings.TrimPrefix(name, prefix))
		if err == nil && strings.HasPrefix(name, prefix) && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(name)
		}
	}
}

// linkStore fills the directory to with what the store in from consists of.
func linkStore(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("%w: %w", errCopy, err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return explain("list store", from, err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || isNotCopied(entry.Name()) {
			continue
		}
		if err := linkOrCopy(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
			return fmt.Errorf("%w: %w", errCopy, err)
		}
	}
	return nil
}

func isNotCopied(name string) bool {
	return name == lockFile || name == ballastFile || name == identityNewFile
}

// linkOrCopy links tables, which Pebble never writes again, and copies everything
// else: logs are overwritten in place when they are used again.
func linkOrCopy(from, to string) error {
	switch filepath.Ext(from) {
	case ".sst", ".blob":
		return os.Link(from, to)
	default:
		return copyFile(from, to)
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

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
func (c *Copy) Close() error {
	err := c.reading.close()
	if c.lock != nil {
		err = errors.Join(err, c.lock.Close())
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}
