package unixsock

import (
	"fmt"
	"net"
)

// Peer is who is at the other end of a connection: who called connect(2), or
// listen(2).
type Peer struct {
	UID  int
	GIDs []int // the effective group; supplementary ones are not told everywhere
	PID  int   // 0 if unknown
}

func (p Peer) String() string { return fmt.Sprintf("user %d, process %d", p.UID, p.PID) }

// PeerOf asks the system. With an error the peer is a user that nobody is.
func PeerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{UID: -1}, err
	}
	var p Peer
	var failed error
	if err := raw.Control(func(fd uintptr) { p, failed = peer(int(fd)) }); err != nil {
		failed = err
	}
	if failed != nil {
		return Peer{UID: -1}, failed
	}
	return p, nil
}
