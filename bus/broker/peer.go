package broker

import (
	"fmt"
	"net"
	"os"
	"slices"
)

// peer is who is at the other end of a Unix connection.
type peer struct {
	uid  int
	gids []int // the effective group; supplementary ones are not told everywhere
	pid  int
}

func (p peer) String() string { return fmt.Sprintf("user %d, process %d", p.uid, p.pid) }

// control runs a call on a connection's descriptor.
func control(conn *net.UnixConn, call func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// mayConnect judges a peer.
func (c Config) mayConnect(p peer) bool {
	return p.uid == 0 || p.uid == os.Geteuid() ||
		slices.Contains(c.AllowUIDs, p.uid) ||
		c.Group != NoGroup && slices.Contains(p.gids, c.Group)
}

// socketMode lets in as far as the mode can those who may connect.
func (c Config) socketMode() os.FileMode {
	switch {
	case len(c.AllowUIDs) > 0: // no mode names a user: whom the peer check lets in
		return 0o666
	case c.Group != NoGroup:
		return 0o660
	}
	return 0o600
}
