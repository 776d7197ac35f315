package unixsock

import "golang.org/x/sys/unix"

// peer: unix(4), LOCAL_PEERCRED and LOCAL_PEERPID. The first of the groups is the
// effective one.
func peer(fd int) (Peer, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{UID: int(cred.Uid)}
	if cred.Ngroups > 0 {
		p.GIDs = []int{int(cred.Groups[0])}
	}
	p.PID, _ = unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	return p, nil
}
