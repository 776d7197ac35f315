//go:build !linux && !darwin

package broker

import (
	"errors"
	"net"
)

// peerOf is not known here, so nobody is let in.
func peerOf(*net.UnixConn) (peer, error) {
	return peer{}, errors.New("this platform does not tell who connects")
}
