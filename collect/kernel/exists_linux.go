package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Exists reports whether anybody has a PID, if only a zombie.
func (l *Listener) Exists(pid int32) bool {
	return !errors.Is(unix.Kill(int(pid), 0), unix.ESRCH)
}
