package broker

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks who called connect(2) (unix(4), LOCAL_PEERCRED and LOCAL_PEERPID). The
// first of the groups is the effective one.
func peerOf(conn *net.UnixConn) (peer, error) {
	var cred *unix.Xucred
	var pid int
	err := control(conn, func(fd int) (err error) {
		pid, _ = unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
		cred, err = unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		return err
	})
	if err != nil {
		return peer{}, err
	}
	who := peer{uid: int(cred.Uid), pid: pid}
	if cred.Ngroups > 0 {
		who.gids = []int{int(cred.Groups[0])}
	}
	return who, nil
}
