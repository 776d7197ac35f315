//go:build !unix

package store

import (
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sharedLockFS locks as the file system does.
type sharedLockFS struct{ vfs.FS }

func (s sharedLockFS) Unwrap() vfs.FS { return s.FS }

// isOwn reports whether a file belongs to this user, which can not be told here.
func isOwn(os.FileInfo) bool { return false }
