//go:build !linux && !darwin

package control

import (
	"errors"
	"net"
)

// peer is not known here, so nobody is let in.
func peer(*net.UnixConn) (uid, pid int, err error) {
	return -1, 0, errors.New("this platform does not tell who connects")
}
