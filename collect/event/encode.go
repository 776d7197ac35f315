package event

import (
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Append appends the protobuf form of e (message Event of event.proto) and
// allocates nothing if dst has room. The same event always gives the same
// bytes: fields in order of their numbers, zero values left out. It does not
// enforce limits; see [Clip].
func Append(dst []byte, e *Event) []byte {
	dst = appendUint(dst, tagEventSeq, e.Seq)
	dst = append128(dst, tagEventEpoch, e.Epoch)
	dst = appendUint(dst, tagEventKind, uint64(e.Kind))
	dst = appendUint(dst, tagEventSource, uint64(e.Source))
	dst = appendTime(dst, tagEventTime, e.Time)
	dst = appendTime(dst, tagEventObserved, e.Observed)
	dst = appendTime(dst, tagEventNotBefore, e.NotBefore)
	dst = appendUint(dst, tagEventBootTime, uint64(e.BootTime))
	dst = appendOwn(dst, tagEventHostID, e.HostID)
	dst = appendOwn(dst, tagEventBootID, e.BootID)
	dst = appendOwn(dst, tagEventCause, e.Cause)

	start := len(dst)
	dst = AppendProcess(openMessage(dst, tagEventProcess), &e.Process)
	dst = closeNonEmpty(dst, start, tagEventProcess)
	if e.Exit != nil {
		start = len(dst)
		dst = closeMessage(appendExit(openMessage(dst, tagEventExit), e.Exit), start, tagEventExit)
	}
	for i := range e.Changes {
		start = len(dst)
		dst = closeMessage(appendChange(openMessage(dst, tagEventChanges), &e.Changes[i]), start, tagEventChanges)
	}
	if e.Loss != nil {
		start = len(dst)
		dst = closeMessage(appendLoss(openMessage(dst, tagEventLoss), e.Loss), start, tagEventLoss)
	}
	if e.Sensor != nil {
		start = len(dst)
		dst = closeMessage(appendSensor(openMessage(dst, tagEventSensor), e.Sensor), start, tagEventSensor)
	}
	return dst
}

// AppendProcess appends the protobuf form of p (message Process), like [Append].
func AppendProcess(dst []byte, p *Process) []byte {
	dst = append128(dst, tagProcessID, p.ID)
	dst = append128(dst, tagProcessParentID, p.ParentID)
	dst = appendUint(dst, tagProcessPID, uint64(p.PID))
	dst = appendUint(dst, tagProcessPPID, uint64(p.PPID))
	dst = appendHost(dst, tagProcessName, p.Name)
	dst = appendHost(dst, tagProcessExe, p.Exe)
	dst = appendBool(dst, tagProcessExeDeleted, p.ExeDeleted)
	for _, arg := range p.Args {
		dst = appendElement(dst, tagProcessArgs, arg)
	}
	dst = appendHost(dst, tagProcessCWD, p.CWD)
	dst = appendUint(dst, tagProcessUID, uint64(p.UID))
	dst = appendUint(dst, tagProcessGID, uint64(p.GID))
	dst = appendUint(dst, tagProcessEUID, uint64(p.EUID))
	dst = appendUint(dst, tagProcessEGID, uint64(p.EGID))
	dst = appendUint(dst, tagProcessStartTicks, p.StartTicks)
	dst = appendTime(dst, tagProcessStartTime, p.StartTime)
	dst = appendUint(dst, tagProcessLoginUID, uint64(p.LoginUID))
	dst = appendUint(dst, tagProcessSession, uint64(p.Session))
	dst = appendUint(dst, tagProcessTTY, uint64(p.TTY))
	dst = appendUint(dst, tagProcessCapEffective, p.CapEffective)
	dst = appendUint(dst, tagProcessGeneration, uint64(p.Generation))
	dst = appendHost(dst, tagProcessCgroup, p.Cgroup)
	dst = appendHost(dst, tagProcessContainerID, p.ContainerID)
	for i := range p.Namespaces {
		start := len(dst)
		dst = appendNamespace(openMessage(dst, tagProcessNamespaces), &p.Namespaces[i])
		dst = closeMessage(dst, start, tagProcessNamespaces)
	}
	for _, pair := range p.Env {
		dst = appendElement(dst, tagProcessEnv, pair)
	}
	dst = appendUint(dst, tagProcessState, uint64(p.State))
	dst = appendUint(dst, tagProcessThreads, uint64(p.Threads))
	dst = appendUint(dst, tagProcessRSS, p.RSS)
	dst = appendUint(dst, tagProcessCPU, uint64(p.CPU))

	start := len(dst)
	dst = closeNonEmpty(appendHash(openMessage(dst, tagProcessHash), &p.Hash), start, tagProcessHash)
	start = len(dst)
	dst = closeNonEmpty(appendMask(openMessage(dst, tagProcessMissing), &p.Missing), start, tagProcessMissing)
	dst = appendUint(dst, tagProcessRSSKind, uint64(p.RSSKind))
	return appendUint(dst, tagProcessLoginSession, uint64(p.LoginSession))
}

func appendNamespace(dst []byte, n *Namespace) []byte {
	dst = appendHost(dst, tagNamespaceType, n.Type)
	return appendUint(dst, tagNamespaceInode, n.Inode)
}

func appendHash(dst []byte, h *Hash) []byte {
	dst = appendOwn(dst, tagHashAlgorithm, h.Algorithm)
	if len(h.Value) > 0 {
		dst = appendTag(dst, tagHashValue)
		dst = protowire.AppendBytes(dst, h.Value)
	}
	dst = appendUint(dst, tagHashStatus, uint64(h.Status))
	return appendOwn(dst, tagHashReason, h.Reason)
}

func appendMask(dst []byte, m *Mask) []byte {
	dst = appendUint(dst, tagMaskGone, uint64(m.Gone))
	dst = appendUint(dst, tagMaskDenied, uint64(m.Denied))
	dst = appendUint(dst, tagMaskUnsupported, uint64(m.Unsupported))
	dst = appendUint(dst, tagMaskFailed, uint64(m.Failed))
	dst = appendUint(dst, tagMaskTruncated, uint64(m.Truncated))
	return appendUint(dst, tagMaskInherited, uint64(m.Inherited))
}

func appendExit(dst []byte, x *Exit) []byte {
	dst = appendUint(dst, tagExitCode, uint64(x.Code))
	dst = appendUint(dst, tagExitSignal, uint64(x.Signal))
	dst = appendBool(dst, tagExitCore, x.Core)
	dst = appendUint(dst, tagExitCPU, uint64(x.CPU))
	return appendUint(dst, tagExitMaxRSS, x.MaxRSS)
}

func appendChange(dst []byte, c *Change) []byte {
	dst = appendUint(dst, tagChangeField, uint64(c.Field))
	dst = appendHost(dst, tagChangeOld, c.Old)
	return appendHost(dst, tagChangeNew, c.New)
}

func appendLoss(dst []byte, l *Loss) []byte {
	dst = appendUint(dst, tagLossCause, uint64(l.Cause))
	dst = appendTime(dst, tagLossFrom, l.From)
	dst = appendTime(dst, tagLossTo, l.To)
	dst = appendUint(dst, tagLossFromSeq, l.FromSeq)
	dst = appendUint(dst, tagLossToSeq, l.ToSeq)
	dst = appendUint(dst, tagLossCount, l.Count)
	dst = appendBool(dst, tagLossKnown, l.Known)
	return appendOwn(dst, tagLossHint, l.Hint)
}

func appendSensor(dst []byte, s *Sensor) []byte {
	dst = appendUint(dst, tagSensorWhat, uint64(s.What))
	dst = appendOwn(dst, tagSensorDetail, s.Detail)
	dst = appendOwn(dst, tagSensorVersion, s.Version)
	dst = append128(dst, tagSensorPreviousEpoch, s.PreviousEpoch)
	return appendUint(dst, tagSensorPreviousSeq, s.PreviousSeq)
}

// appendTag is protowire.AppendVarint for the tags of wire.go, which take one
// byte or two: it is inlined, and most of encoding is tags.
func appendTag(dst []byte, tag uint64) []byte {
	if tag < 1<<7 {
		return append(dst, byte(tag))
	}
	return append(dst, byte(tag)|1<<7, byte(tag>>7))
}

// appendUint appends an integer. Negative ones come sign-extended, as protobuf
// wants int32 and int64.
func appendUint(dst []byte, tag, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(appendTag(dst, tag), v)
}

func appendBool(dst []byte, tag uint64, v bool) []byte {
	if !v {
		return dst
	}
	return append(appendTag(dst, tag), 1)
}

func appendTime(dst []byte, tag uint64, t time.Time) []byte {
	n := nanos(t)
	if n == 0 {
		return dst
	}
	return protowire.AppendFixed64(appendTag(dst, tag), uint64(n))
}

func append128[T ID | Epoch](dst []byte, tag uint64, v T) []byte {
	if v == (T{}) {
		return dst
	}
	dst = append(appendTag(dst, tag), byte(len(v)))
	return append(dst, v[:]...)
}

// appendHost appends text of the host, which may be any bytes.
func appendHost(dst []byte, tag uint64, s string) []byte {
	if s == "" {
		return dst
	}
	return appendElement(dst, tag, s)
}

// appendElement appends one of a list, which stays there when it is empty.
func appendElement(dst []byte, tag uint64, s string) []byte {
	return protowire.AppendString(appendTag(dst, tag), s)
}

// appendOwn appends procmond's own text. It is a string in the schema, where
// other readers refuse what is not UTF-8, so that is mended.
func appendOwn(dst []byte, tag uint64, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return appendHost(dst, tag, s)
}

// lengthRoom is kept free for the length of a message: enough for 16 KiB.
const lengthRoom = 2

// openMessage appends the tag of an embedded message and room for its length,
// which is not known yet. closeMessage wants len(dst) from before.
func openMessage(dst []byte, tag uint64) []byte {
	dst = appendTag(dst, tag)
	return append(dst, make([]byte, lengthRoom)...)
}

// closeMessage puts the length of the message that began at start in its
// place, and moves the message if its length has another size than the room.
func closeMessage(dst []byte, start int, tag uint64) []byte {
	lengthAt := start + protowire.SizeVarint(tag)
	body := lengthAt + lengthRoom
	size := len(dst) - body
	need := protowire.SizeVarint(uint64(size))
	if need > lengthRoom {
		dst = append(dst, make([]byte, need-lengthRoom)...)
	}
	if need != lengthRoom {
		copy(dst[lengthAt+need:], dst[body:body+size])
		dst = dst[:lengthAt+need+size]
	}
	protowire.AppendVarint(dst[:lengthAt], uint64(size))
	return dst
}

// closeNonEmpty is closeMessage for a message that is left out when it is empty.
func closeNonEmpty(dst []byte, start int, tag uint64) []byte {
	if len(dst) == start+protowire.SizeVarint(tag)+lengthRoom {
		return dst[:start]
	}
	return closeMessage(dst, start, tag)
}
