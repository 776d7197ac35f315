package broker

import (
	"os"
	"slices"

	"daemoneye.dev/procmond/bus/unixsock"
)

// mayConnect judges a peer.
func (c Config) mayConnect(p unixsock.Peer) bool {
	return p.UID == 0 || p.UID == os.Geteuid() ||
		slices.Contains(c.AllowUIDs, p.UID) ||
		c.Group != NoGroup && slices.Contains(p.GIDs, c.Group)
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
