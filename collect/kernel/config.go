package kernel

import (
	"fmt"
	"math/bits"
	"os"
)

// DefaultRingBytes is room for some 40,000 forks and exits, or 20,000 execs.
const DefaultRingBytes = 8 << 20

// DefaultReceiveBytes is room for some 20,000 events, of which a fork, an exec and an
// exit are one each.
const DefaultReceiveBytes = 8 << 20

const maxRingBytes = 1 << 30

// Config is how a source is opened.
type Config struct {
	// RingBytes is how much the kernel keeps for the reader, in memory that the host can
	// not take back. It is rounded up to a power of two of at least a page; 0 is
	// [DefaultRingBytes].
	RingBytes int
	// ReceiveBytes is how much the kernel queues for the thread that reads the process
	// connector, which is some two events a KiB. Without CAP_NET_ADMIN it is what
	// net.core.rmem_max allows. 0 is [DefaultReceiveBytes].
	ReceiveBytes int
}

func (c Config) receiveBytes() (int, error) {
	if c.ReceiveBytes < 0 || c.ReceiveBytes > maxRingBytes {
		return 0, fmt.Errorf("a receive buffer of %d bytes: want at most %d, or 0 for the default", c.ReceiveBytes, maxRingBytes)
	}
	if c.ReceiveBytes == 0 {
		return DefaultReceiveBytes, nil
	}
	return c.ReceiveBytes, nil
}

func (c Config) ringBytes() (int, error) {
	if c.RingBytes < 0 || c.RingBytes > maxRingBytes {
		return 0, fmt.Errorf("a ring of %d bytes: want at most %d, or 0 for the default", c.RingBytes, maxRingBytes)
	}
	size := c.RingBytes
	if size == 0 {
		size = DefaultRingBytes
	}
	size = max(size, os.Getpagesize())
	return 1 << bits.Len(uint(size-1)), nil
}
