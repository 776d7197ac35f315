//go:build !linux && !darwin

package store

import "io/fs"

// freeFiles is not known here.
func freeFiles(string) (n uint64, known bool) { return 0, false }

// allocated returns a file's size: what it takes on disk is not known here.
func allocated(info fs.FileInfo) uint64 { return apparent(info) }
