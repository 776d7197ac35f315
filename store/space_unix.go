//go:build linux || darwin

package store

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// freeFiles returns the free inodes. A file system that makes them as it goes says
// that it has none at all.
func freeFiles(path string) (n uint64, known bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Files == 0 {
		return 0, false
	}
	return st.Ffree, true
}

// allocated returns the bytes that a file takes on disk.
func allocated(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return apparent(info)
	}
	return uint64(max(st.Blocks, 0)) * 512
}
