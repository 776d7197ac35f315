package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// lockPoll is how often a held lock is tried again.
const lockPoll = 50 * time.Millisecond

// lockDir locks a store's directory, trying for wait. A *LockedError says who
// holds it.
func lockDir(ctx context.Context, vs vfs.FS, dir string, wait time.Duration) (*pebble.Lock, error) {
	deadline := time.Now().Add(wait)
	for {
		lock, err := pebble.LockDirectory(dir, vs)
		if err == nil {
			return lock, nil
		}
		if !isHeld(err) {
			return nil, explain("lock store", dir, err)
		}
		if time.Until(deadline) <= 0 {
			return nil, &LockedError{Dir: dir, PID: lockHolder(vs, vs.PathJoin(dir, lockFile), err)}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock store %s: %w", dir, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// heldHere is Pebble's text for a lock of this very process.
const heldHere = "lock held by current process"

func isHeld(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK) ||
		// fcntl(2) may answer EACCES for a held lock, but then not with a path.
		errors.Is(err, syscall.EACCES) && !errors.As(err, new(*fs.PathError)) ||
		strings.Contains(err.Error(), heldHere)
}
