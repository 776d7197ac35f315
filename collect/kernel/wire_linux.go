package kernel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wire is where the kernel's messages come from; tests have others. All but kick are
// called by one at a time.
type wire interface {
	// receive fills messages with what is there. It never waits: where there is nothing
	// its error is EAGAIN, where something was lost ENOBUFS.
	receive(messages []message) (int, error)
	// wait returns when kick was called and, if it listens, when there is something.
	wait(listen bool) error
	// empty reports whether receive would find nothing. Any goroutine may ask.
	empty() (bool, error)
	// kick ends a wait, now or the next one.
	kick() error
	io.Closer
}

const (
	batchSize  = 32
	ackTimeout = time.Second
)

// connection is a subscribed socket.
type connection struct {
	socket, wakeup int     // the second is an eventfd
	received       int     // the size of the buffer that was got
	first          message // the acknowledgement

	headers   [batchSize]unix.Mmsghdr
	vectors   [batchSize]unix.Iovec
	addresses [batchSize]unix.RawSockaddrNetlink
	buffers   [batchSize][maxMessage]byte
}

// connect subscribes. open makes the socket.
func connect(open func() (int, error), bytes int) (*connection, error) {
	socket, err := open()
	if err != nil {
		return nil, explainSocket(err)
	}
	c := &connection{socket: socket, wakeup: -1}
	for i := range c.headers {
		c.vectors[i].Base = &c.buffers[i][0]
		c.vectors[i].SetLen(maxMessage)
		h := &c.headers[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&c.addresses[i]))
		h.Iov = &c.vectors[i]
		h.SetIovlen(1)
	}
	if err := c.begin(bytes); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func openConnector() (int, error) {
	return unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
}

func (c *connection) begin(bytes int) (err error) {
	if c.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return deaf(ReasonFailed, "no eventfd could be made", "", err)
	}
	if err := c.setBuffer(bytes); err != nil {
		return deaf(ReasonFailed, "the receive buffer could not be set", "", err)
	}
	if err := unix.Bind(c.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnGroupBit}); err != nil {
		return explainSubscription(err)
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	ack := binary.NativeEndian.Uint32(random[:])
	if err := c.request(opListen, ack); err != nil {
		return explainSubscription(err)
	}
	return c.awaitAck(ack + 1)
}

// setBuffer asks for a receive buffer. The kernel doubles the number, since it counts
// what it needs itself too.
func (c *connection) setBuffer(bytes int) error {
	err := unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	if err != nil { // the daemon may not have more than net.core.rmem_max
		err = unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
	if err != nil {
		return err
	}
	got, err := unix.GetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUF)
	c.received = got / 2
	return err
}

func (c *connection) request(op, ack uint32) error {
	return unix.Sendto(c.socket, appendRequest(nil, op, ack), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// awaitAck waits for the kernel to say that it has understood: in some namespaces it
// says nothing. What it tells before that is not promised to anyone yet.
func (c *connection) awaitAck(ack uint32) error {
	var m [1]message
	until := time.Now().Add(ackTimeout)
	for {
		n, err := c.receive(m[:])
		switch {
		case err == nil && n == 1 && m[0].what == whatAck && m[0].ack == ack:
			c.first = m[0]
			if errno := unix.Errno(m[0].field(0)); errno != 0 {
				return explainSubscription(errno)
			}
			return nil
		case err == nil, errors.Is(err, unix.ENOBUFS):
		case errors.Is(err, unix.EAGAIN):
			left := time.Until(until)
			if left <= 0 {
				return deaf(ReasonKernel, "the kernel does not answer: it was built without process events, or does not take the daemon for one of the host's own processes",
					"a kernel with CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y, and the daemon in the host's PID, user and network namespaces", nil)
			}
			if err := c.poll(c.socket, left); err != nil {
				return deaf(ReasonFailed, "the socket could not be waited for", "", err)
			}
		default:
			return deaf(ReasonFailed, "the socket could not be read", "", err)
		}
		if time.Now().After(until.Add(ackTimeout)) { // others' events never end
			return deaf(ReasonKernel, "the kernel does not answer among all that it tells", "", nil)
		}
	}
}

func (c *connection) poll(fd int, timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, int((timeout+time.Millisecond-1)/time.Millisecond))
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// receive does not tell the Go scheduler of its system call, which copies a few
// messages and waits for nothing.
func (c *connection) receive(messages []message) (int, error) {
	want := min(len(messages), batchSize)
	for i := range want {
		c.headers[i].Hdr.Namelen = unix.SizeofSockaddrNetlink
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(c.socket), uintptr(unsafe.Pointer(&c.headers[0])),
		uintptr(want), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	believed := 0
	for i := range int(n) {
		if c.believe(i) && messages[believed].decode(c.buffers[i][:c.headers[i].Len]) == nil {
			believed++
		}
	}
	return believed, nil
}

// believe reports whether a message is the kernel's: others, with a privilege, can
// send to the same address.
func (c *connection) believe(i int) bool {
	from, h := &c.addresses[i], &c.headers[i].Hdr
	return h.Namelen >= unix.SizeofSockaddrNetlink && from.Family == unix.AF_NETLINK && from.Pid == 0 &&
		h.Flags&unix.MSG_TRUNC == 0 && c.headers[i].Len <= maxMessage
}

func (c *connection) wait(listen bool) error {
	fds := [2]unix.PollFd{{Fd: int32(c.wakeup), Events: unix.POLLIN}, {Fd: int32(c.socket), Events: unix.POLLIN}}
	waitFor := fds[:1]
	if listen {
		waitFor = fds[:]
	}
	if _, err := unix.Poll(waitFor, -1); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the socket: %w", err)
	}
	if fds[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(c.wakeup, count[:]) // it is at 0 afterwards, or was
	}
	return nil
}

func (c *connection) empty() (bool, error) {
	fds := [1]unix.PollFd{{Fd: int32(c.socket), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("look at the socket: %w", err)
	}
	return n == 0 && err == nil, nil
}

func (c *connection) kick() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(c.wakeup, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("wake the thread: %w", err)
	}
	return nil
}

// Close unsubscribes: before Linux 6.6 the kernel would go on telling nobody.
func (c *connection) Close() error {
	_ = c.request(opIgnore, 0) // who was refused is refused this too
	err := unix.Close(c.socket)
	if c.wakeup >= 0 {
		err = errors.Join(err, unix.Close(c.wakeup))
	}
	return err
}
