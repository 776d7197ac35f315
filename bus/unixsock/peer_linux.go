package unixsock

import "golang.org/x/sys/unix"

// peer: unix(7), SO_PEERCRED.
func peer(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{UID: int(cred.Uid), GIDs: []int{int(cred.Gid)}, PID: int(cred.Pid)}, nil
}
