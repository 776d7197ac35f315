//go:build !linux

package warden

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// cloexecPair makes two sockets that no program inherits by itself. The lock keeps
// one from being started in between.
func cloexecPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}
