package warden

import "golang.org/x/sys/unix"

// cloexecPair makes two sockets that no program inherits by itself.
func cloexecPair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}
