package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// What callers tell apart. Everything else is an I/O error.
var (
	// ErrUnavailable says that the store is out of service for now; the wrapping
	// error says why.
	ErrUnavailable = errors.New("store is out of service")
	// ErrLocked says that another process has the store open; see [LockedError].
	ErrLocked = errors.New("store is in use")
	// ErrNotStore says that the path holds something that this package never made.
	ErrNotStore = errors.New("not a procmond store")
	// ErrNewerFormat says that a later version of procmond wrote the store.
	ErrNewerFormat = errors.New("store has a newer format")
	// ErrPermission says that this user may not open the store.
	ErrPermission = errors.New("no permission for the store")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("store is closed")
	// ErrReplaced says that the store was quarantined and another one, with a new
	// epoch, has taken its place: what the caller knows about sequences is void.
	ErrReplaced = errors.New("store was replaced")
)

// errNoSpace marks what the store foresees; the kernel's own errors are found by
// isNoSpace.
var errNoSpace = errors.New("no space left on the file system")

// LockedError is ErrLocked with the holder.
type LockedError struct {
	Dir string
	PID int // of the holder, 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("store %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("store %s is in use by process %d", e.Dir, e.PID)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// unavailable returns ErrUnavailable with its reason.
func unavailable(reason string) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, reason)
}

// isNoSpace reports whether the file system refuses to take more: full, over
// quota, or read-only.
func isNoSpace(err error) bool {
	return errors.Is(err, errNoSpace) || errors.Is(err, syscall.ENOSPC) ||
		errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// errDamaged marks damage that Pebble can not see.
var errDamaged = errors.New("store is damaged")

// isCorruption reports whether what is on disk is damaged. Nothing else ever
// leads to a quarantine.
func isCorruption(err error) bool {
	return err != nil && (pebble.IsCorruptionError(err) || errors.Is(err, errDamaged))
}

// explain wraps err with what was tried, and as ErrPermission where it is one.
func explain(what, dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s %s: %w: %w", what, dir, ErrPermission, err)
	}
	return fmt.Errorf("%s %s: %w", what, dir, err)
}
