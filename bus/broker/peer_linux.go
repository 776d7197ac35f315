package broker

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks who called connect(2) (unix(7), SO_PEERCRED).
func peerOf(conn *net.UnixConn) (peer, error) {
	var cred *unix.Ucred
	err := control(conn, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return peer{}, err
	}
	return peer{uid: int(cred.Uid), gids: []int{int(cred.Gid)}, pid: int(cred.Pid)}, nil
}
