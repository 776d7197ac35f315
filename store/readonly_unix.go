//go:build unix

package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// sharedLockFS locks stores without leaving a trace: a lock file that is not there is
// not made, and where the file system is read-only the lock is one for reading, since
// one for writing needs a file that is open for writing. Both exclude a daemon, even
// one that can write there by another mount.
type sharedLockFS struct{ vfs.FS }

func (s sharedLockFS) Unwrap() vfs.FS { return s.FS }

// Lock implements [vfs.FS].
func (s sharedLockFS) Lock(name string) (io.Closer, error) {
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil // no daemon was ever here: the store is somebody's backup
	}
	lock, err := s.FS.Lock(name)
	if !errors.Is(err, unix.EROFS) {
		return lock, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s for reading: %w", name, err), f.Close())
	}
	return f, nil
}

// isOwn reports whether a file belongs to this user.
func isOwn(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
