package kernel

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Of linux/connector.h and linux/cn_proc.h, which no version of the kernel changes;
// those of Debian 12 lack nothing that is used here.
const (
	cnIndex    = 1 // CN_IDX_PROC, which is also the multicast group
	cnValue    = 1 // CN_VAL_PROC
	opListen   = 1 // PROC_CN_MCAST_LISTEN
	opIgnore   = 2 // PROC_CN_MCAST_IGNORE
	cnGroupBit = 1 << (cnIndex - 1)
)

// what happened, enum proc_cn_event or, before Linux 6.6, enum what.
type what uint32

const (
	whatAck  what = 0 // PROC_EVENT_NONE: the answer to a request
	whatFork what = 1
	whatExec what = 2
	whatUID  what = 4
	whatGID  what = 0x40
	whatSID  what = 0x80
	whatComm what = 0x200
	whatExit what = 0x80000000
)

// Sizes of struct nlmsghdr, struct cn_msg and what struct proc_event begins with.
const (
	netlinkHeader   = unix.SizeofNlMsghdr
	connectorHeader = 20
	eventHeader     = 16
	messageHeader   = netlinkHeader + connectorHeader
	maxEventData    = 24 // of the event that is of use and has most, exit and comm
	maxMessage      = 512
)

// message is one that the kernel has sent: struct cn_msg with struct proc_event.
type message struct {
	what what
	cpu  uint32
	seq  uint32 // counts what was sent on that CPU
	ack  uint32
	at   uint64 // nanoseconds of CLOCK_MONOTONIC
	data [maxEventData]byte
}

var errMessage = errors.New("not a process event")

// dataSize is what an event of a kind has at least: what later kernels have added is
// zero where it is absent.
func (w what) dataSize() int {
	switch w {
	case whatAck:
		return 4
	case whatFork, whatExit, whatUID, whatGID:
		return 16
	case whatExec, whatSID:
		return 8
	case whatComm:
		return 24
	}
	return 0
}

// decode takes one datagram. There is one message in each.
func (m *message) decode(b []byte) error {
	if len(b) < messageHeader+eventHeader {
		return errMessage
	}
	ne := binary.NativeEndian
	size := uint64(ne.Uint32(b))
	kind := ne.Uint16(b[4:])
	cn := b[netlinkHeader:]
	length := uint64(ne.Uint16(cn[16:]))
	if kind != unix.NLMSG_DONE || ne.Uint32(cn) != cnIndex || ne.Uint32(cn[4:]) != cnValue ||
		size > uint64(len(b)) || length < eventHeader || messageHeader+length > size {
		return errMessage
	}
	event := b[messageHeader : messageHeader+length]
	*m = message{
		what: what(ne.Uint32(event)), cpu: ne.Uint32(event[4:]), at: ne.Uint64(event[8:]),
		seq: ne.Uint32(cn[8:]), ack: ne.Uint32(cn[12:]),
	}
	if len(event)-eventHeader < m.what.dataSize() {
		return errMessage
	}
	copy(m.data[:], event[eventHeader:])
	return nil
}

// field is one of the numbers of the event.
func (m *message) field(i int) uint32 { return binary.NativeEndian.Uint32(m.data[4*i:]) }

// task is a thread and its thread group, which all events begin with.
func (m *message) task() (thread, group int32) { return int32(m.field(0)), int32(m.field(1)) }

// fork is struct fork_proc_event.
func (m *message) fork() (parent, thread, group int32) {
	return int32(m.field(1)), int32(m.field(2)), int32(m.field(3))
}

// exit is struct exit_proc_event. The parent is 0 where the thread was reaped by then,
// and before Linux 4.18.
func (m *message) exit() (status, parent int32) { return int32(m.field(2)), int32(m.field(5)) }

// ids are the real and the effective id in an event about ids.
func (m *message) ids() (actual, effective uint32) { return m.field(2), m.field(3) }

// comm is the name of an event about it.
func (m *message) comm() []byte { return m.data[8:24] }

// appendRequest is a message to the kernel: op to enum proc_cn_mcast_op. Its answer
// has ack+1.
func appendRequest(b []byte, op, ack uint32) []byte {
	const size = messageHeader + 4
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, size)
	b = ne.AppendUint16(b, unix.NLMSG_DONE)
	b = append(b, make([]byte, 10)...) // flags, sequence, sender
	b = ne.AppendUint32(b, cnIndex)
	b = ne.AppendUint32(b, cnValue)
	b = ne.AppendUint32(b, 0)
	b = ne.AppendUint32(b, ack)
	b = ne.AppendUint16(b, 4)
	b = ne.AppendUint16(b, 0)
	return ne.AppendUint32(b, op)
}
