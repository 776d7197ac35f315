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
	// wait returns when kick was called, after that long unless it is forever, and, if it
	// listens, when there is something.
	wait(listen bool, most time.Duration) error
	// sign lets the calling thread do something that the kernel tells of.
	sign() error
	// dismissed says that the kernel does not count this listener any more.
	dismissed()
	// empty reports whether receive would find nothing. Any goroutine may ask.
	empty() (bool, error)
	// kick ends a wait, now or the next one.
	kick() error
	io.Closer
}

const (
	batchSize  = 32
	ackTimeout = time.Second
	forever    = time.Duration(-1)
)

// connection is a subscribed socket.
type connection struct {
	socket, wakeup int     // the second is an eventfd
	received       int     // the size of the buffer that was got
	first          message // the acknowledgement
	send           func(socket int, request []byte) error
	// counted says that the kernel counts this listener, or that it may: it must be told
	// once when that is over. Before Linux 6.6 it believes everyone who says so, and tells
	// nobody once it counts none.
	counted bool

	headers   [batchSize]unix.Mmsghdr
	vectors   [batchSize]unix.Iovec
	addresses [batchSize]unix.RawSockaddrNetlink
	buffers   [batchSize][maxMessage]byte
}

// connect subscribes. open makes the socket.
func connect(open func() (int, error), bytes int) (*connection, error) {
	return connectVia(open, sendToKernel, bytes)
}

// connectVia is connect with another way to ask the kernel, of a test.
func connectVia(open func() (int, error), send func(int, []byte) error, bytes int) (*connection, error) {
	socket, err := open()
	if err != nil {
		return nil, explainSocket(err)
	}
	c := &connection{socket: socket, wakeup: -1, send: send}
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
	if err := c.send(c.socket, appendRequest(nil, opListen, ack)); err != nil {
		return explainSubscription(err)
	}
	c.counted = true
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

func sendToKernel(socket int, request []byte) error {
	for {
		err := unix.Sendto(socket, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
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
			return c.answered(m[0])
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

// answered takes the answer. Whom the kernel refuses it does not count.
func (c *connection) answered(m message) error {
	c.first = m
	if errno := unix.Errno(m.field(0)); errno != 0 {
		c.counted = false
		return explainSubscription(errno)
	}
	return nil
}

func (c *connection) poll(fd int, timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, pollTimeout(timeout))
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// pollTimeout is in milliseconds, and never shorter.
func pollTimeout(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Millisecond - 1) / time.Millisecond)
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

func (c *connection) wait(listen bool, most time.Duration) error {
	fds := [2]unix.PollFd{{Fd: int32(c.wakeup), Events: unix.POLLIN}, {Fd: int32(c.socket), Events: unix.POLLIN}}
	waitFor := fds[:1]
	if listen {
		waitFor = fds[:]
	}
	if _, err := unix.Poll(waitFor, pollTimeout(most)); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the socket: %w", err)
	}
	if fds[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(c.wakeup, count[:]) // it is at 0 afterwards, or was
	}
	return nil
}

// sign gives the thread the name that it has, of which the kernel tells (PR_SET_NAME in
// kernel/sys.c).
func (c *connection) sign() error {
	var name [16]byte // TASK_COMM_LEN
	for _, op := range []uintptr{unix.PR_GET_NAME, unix.PR_SET_NAME} {
		if _, _, errno := unix.RawSyscall(unix.SYS_PRCTL, op, uintptr(unsafe.Pointer(&name[0])), 0); errno != 0 {
			return fmt.Errorf("name the thread: %w", errno)
		}
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

func (c *connection) dismissed() { c.counted = false }

// Close unsubscribes, if that is due: the kernel would go on to tell nobody.
func (c *connection) Close() error {
	var errs []error
	if c.counted {
		c.counted = false
		if err := c.send(c.socket, appendRequest(nil, opIgnore, 0)); err != nil {
			errs = append(errs, fmt.Errorf("unsubscribe from process events: %w", err))
		}
	}
	errs = append(errs, unix.Close(c.socket))
	if c.wakeup >= 0 {
		errs = append(errs, unix.Close(c.wakeup))
	}
	return errors.Join(errs...)
}
