//go:build unix

package store

import (
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// lockHolder asks the kernel who holds a lock file, 0 if it does not say. err is
// why it could not be locked. A lock of this process is never opened: closing any
// descriptor of the file would release it.
func lockHolder(vs vfs.FS, path string, err error) int {
	if vfs.Root(vs) != vfs.Default {
		return 0
	}
	if strings.Contains(err.Error(), heldHere) {
		return os.Getpid()
	}
	f, openErr := os.OpenFile(path, os.O_RDWR, 0)
	if openErr != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // only asked, nothing written
	query := unix.Flock_t{Type: unix.F_WRLCK}
	if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &query) != nil || query.Type == unix.F_UNLCK {
		return 0
	}
	return int(query.Pid)
}
