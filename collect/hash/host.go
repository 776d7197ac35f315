package hash

import (
	"io"

	"daemoneye.dev/procmond/collect"
)

// host is where executables are. Each call may hang, and may be made while
// another one does.
type host interface {
	// look says which file a process runs. The error is a [*skip], or the host's.
	look(t *collect.HashTarget) (file, error)
	// open opens the file k that a process was seen to run; the process may have
	// ended since. The error is as of look.
	open(t *collect.HashTarget, k key) (content, error)
}

// file is what the host says of a file.
type file struct {
	key
	regular   bool
	allocated int64 // bytes on disk
}

// content is an open file.
type content interface {
	io.ReadCloser
	// stat says what the file is now.
	stat() (file, error)
	// steady reports whether every change of the content changes the key.
	steady() bool
}
