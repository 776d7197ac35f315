package event

import (
	"bytes"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed is wrapped by every error of [Decode] and [DecodeProcess].
var ErrMalformed = errors.New("malformed event")

// Decode reads the protobuf form into e, replacing all of it. It keeps no
// reference to b. Unknown fields are skipped, and numbers of enumerations that
// do not fit become the unknown ones. The text of an event is allocated in one
// piece and memory is bounded by len(b), whatever lengths b claims. After an
// error e holds what was read before it.
func Decode(b []byte, e *Event) error {
	*e = Event{}
	d := newDecoder(b)
	if err := d.event(b[:len(b):len(b)], e); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	return nil
}

// DecodeProcess reads the protobuf form into p, like [Decode].
func DecodeProcess(b []byte, p *Process) error {
	*p = Process{}
	d := newDecoder(b)
	if err := d.process(b[:len(b):len(b)], p); err != nil {
		return fmt.Errorf("decode process: %w", err)
	}
	return nil
}

// decoder reads the messages inside one encoded record. Every slice it is given
// is a part of that record and has the record's end as its capacity.
type decoder struct {
	text string // the whole record; all strings are parts of it
}

func newDecoder(b []byte) decoder { return decoder{text: string(b)} }

// str is the string with the bytes of v, a part of the record.
func (d decoder) str(v []byte) string {
	from := len(d.text) - cap(v)
	return d.text[from : from+len(v)]
}

// own is str for text that the schema calls a string.
func (d decoder) own(v []byte) (string, error) {
	if !utf8.Valid(v) {
		return "", fmt.Errorf("%w: a string is not UTF-8", ErrMalformed)
	}
	return d.str(v), nil
}

// field is one field of a message: a number or bytes, as its tag says.
type field struct {
	tag uint64
	n   uint64
	b   []byte
}

// next splits the first field off b. Fields with a wire type that the schema
// does not use are checked and come back with no value.
func next(b []byte) (f field, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
	}
	if num > protowire.MaxValidNumber {
		return f, nil, fmt.Errorf("%w: field number %d", ErrMalformed, num)
	}
	b = b[n:]
	f.tag = protowire.EncodeTag(num, typ)
	switch typ {
	case protowire.VarintType:
		f.n, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		f.n, n = protowire.ConsumeFixed64(b)
	case protowire.BytesType:
		f.b, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(num, typ, b)
	}
	if n < 0 {
		return f, nil, fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
	}
	return f, b[n:], nil
}

// run counts the fields of b that have this tag and follow each other.
func run(b []byte, tag uint64) (n int) {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil || f.tag != tag {
			break
		}
		b = rest
		n++
	}
	return n
}

// grow makes room in a list for the elements of a run that starts at b.
func grow[T any](list []T, b []byte, tag uint64) []T {
	if list == nil {
		list = make([]T, 0, run(b, tag))
	}
	return list
}

func (d decoder) event(b []byte, e *Event) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		switch f.tag {
		case tagEventSeq:
			e.Seq = f.n
		case tagEventKind:
			e.Kind = Kind(small(f.n))
		case tagEventSource:
			e.Source = Source(small(f.n))
		case tagEventTime:
			e.Time = fromNanos(int64(f.n))
		case tagEventObserved:
			e.Observed = fromNanos(int64(f.n))
		case tagEventNotBefore:
			e.NotBefore = fromNanos(int64(f.n))
		case tagEventBootTime:
			e.BootTime = duration(f.n)
		case tagEventChanges:
			e.Changes = grow(e.Changes, b, f.tag)
			fallthrough
		default:
			err = d.eventPart(f, e)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// eventPart reads the fields of an event that are bytes.
func (d decoder) eventPart(f field, e *Event) (err error) {
	switch f.tag {
	case tagEventEpoch:
		err = set128(&e.Epoch, f.b)
	case tagEventHostID:
		e.HostID, err = d.own(f.b)
	case tagEventBootID:
		e.BootID, err = d.own(f.b)
	case tagEventCause:
		e.Cause, err = d.own(f.b)
	case tagEventProcess:
		err = d.process(f.b, &e.Process)
	case tagEventExit:
		err = d.exit(f.b, allocated(&e.Exit))
	case tagEventChanges:
		e.Changes = append(e.Changes, Change{})
		err = d.change(f.b, &e.Changes[len(e.Changes)-1])
	case tagEventLoss:
		err = d.loss(f.b, allocated(&e.Loss))
	case tagEventSensor:
		err = d.sensor(f.b, allocated(&e.Sensor))
	}
	return err
}

func (d decoder) process(b []byte, p *Process) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		switch f.tag {
		case tagProcessArgs:
			p.Args = append(grow(p.Args, b, f.tag), d.str(f.b))
		case tagProcessEnv:
			p.Env = append(grow(p.Env, b, f.tag), d.str(f.b))
		case tagProcessNamespaces:
			p.Namespaces = append(grow(p.Namespaces, b, f.tag), Namespace{})
			err = d.namespace(f.b, &p.Namespaces[len(p.Namespaces)-1])
		default:
			if f.tag&7 == wireBytes {
				err = d.processPart(f, p)
			} else {
				processNumber(f, p)
			}
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// processPart reads the fields of a process that are bytes.
func (d decoder) processPart(f field, p *Process) (err error) {
	switch f.tag {
	case tagProcessID:
		err = set128(&p.ID, f.b)
	case tagProcessParentID:
		err = set128(&p.ParentID, f.b)
	case tagProcessName:
		p.Name = d.str(f.b)
	case tagProcessExe:
		p.Exe = d.str(f.b)
	case tagProcessCWD:
		p.CWD = d.str(f.b)
	case tagProcessCgroup:
		p.Cgroup = d.str(f.b)
	case tagProcessContainerID:
		p.ContainerID = d.str(f.b)
	case tagProcessHash:
		err = d.hash(f.b, &p.Hash)
	case tagProcessMissing:
		err = d.mask(f.b, &p.Missing)
	}
	return err
}

// processNumber reads the fields of a process that are numbers.
func processNumber(f field, p *Process) {
	switch f.tag {
	case tagProcessPID:
		p.PID = int32(f.n)
	case tagProcessPPID:
		p.PPID = int32(f.n)
	case tagProcessExeDeleted:
		p.ExeDeleted = f.n != 0
	case tagProcessUID:
		p.UID = uint32(f.n)
	case tagProcessGID:
		p.GID = uint32(f.n)
	case tagProcessEUID:
		p.EUID = uint32(f.n)
	case tagProcessEGID:
		p.EGID = uint32(f.n)
	case tagProcessStartTicks:
		p.StartTicks = f.n
	case tagProcessStartTime:
		p.StartTime = fromNanos(int64(f.n))
	case tagProcessLoginUID:
		p.LoginUID = uint32(f.n)
	case tagProcessSession:
		p.Session = int32(f.n)
	case tagProcessTTY:
		p.TTY = int32(f.n)
	case tagProcessCapEffective:
		p.CapEffective = f.n
	case tagProcessGeneration:
		p.Generation = uint32(f.n)
	case tagProcessState:
		p.State = State(small(f.n))
	case tagProcessThreads:
		p.Threads = int32(f.n)
	case tagProcessRSS:
		p.RSS = f.n
	case tagProcessRSSKind:
		p.RSSKind = RSSKind(small(f.n))
	case tagProcessLoginSession:
		p.LoginSession = uint32(f.n)
	case tagProcessCPU:
		p.CPU = duration(f.n)
	}
}

func (d decoder) namespace(b []byte, n *Namespace) error {
	return each(b, func(f field) error {
		switch f.tag {
		case tagNamespaceType:
			n.Type = d.str(f.b)
		case tagNamespaceInode:
			n.Inode = f.n
		}
		return nil
	})
}

func (d decoder) hash(b []byte, h *Hash) error {
	return each(b, func(f field) (err error) {
		switch f.tag {
		case tagHashAlgorithm:
			h.Algorithm, err = d.own(f.b)
		case tagHashValue:
			h.Value = bytes.Clone(f.b)
		case tagHashStatus:
			h.Status = HashStatus(small(f.n))
		case tagHashReason:
			h.Reason, err = d.own(f.b)
		}
		return err
	})
}

func (d decoder) mask(b []byte, m *Mask) error {
	return each(b, func(f field) error {
		switch f.tag {
		case tagMaskGone:
			m.Gone = FieldSet(f.n)
		case tagMaskDenied:
			m.Denied = FieldSet(f.n)
		case tagMaskUnsupported:
			m.Unsupported = FieldSet(f.n)
		case tagMaskFailed:
			m.Failed = FieldSet(f.n)
		case tagMaskTruncated:
			m.Truncated = FieldSet(f.n)
		case tagMaskInherited:
			m.Inherited = FieldSet(f.n)
		}
		return nil
	})
}

func (d decoder) exit(b []byte, x *Exit) error {
	return each(b, func(f field) error {
		switch f.tag {
		case tagExitCode:
			x.Code = int32(f.n)
		case tagExitSignal:
			x.Signal = int32(f.n)
		case tagExitCore:
			x.Core = f.n != 0
		case tagExitCPU:
			x.CPU = duration(f.n)
		case tagExitMaxRSS:
			x.MaxRSS = f.n
		}
		return nil
	})
}

func (d decoder) change(b []byte, c *Change) error {
	return each(b, func(f field) error {
		switch f.tag {
		case tagChangeField:
			c.Field = Field(small(f.n))
		case tagChangeOld:
			c.Old = d.str(f.b)
		case tagChangeNew:
			c.New = d.str(f.b)
		}
		return nil
	})
}

func (d decoder) loss(b []byte, l *Loss) error {
	return each(b, func(f field) (err error) {
		switch f.tag {
		case tagLossCause:
			l.Cause = LossCause(small(f.n))
		case tagLossFrom:
			l.From = fromNanos(int64(f.n))
		case tagLossTo:
			l.To = fromNanos(int64(f.n))
		case tagLossFromSeq:
			l.FromSeq = f.n
		case tagLossToSeq:
			l.ToSeq = f.n
		case tagLossCount:
			l.Count = f.n
		case tagLossKnown:
			l.Known = f.n != 0
		case tagLossHint:
			l.Hint, err = d.own(f.b)
		}
		return err
	})
}

func (d decoder) sensor(b []byte, s *Sensor) error {
	return each(b, func(f field) (err error) {
		switch f.tag {
		case tagSensorWhat:
			s.What = SensorWhat(small(f.n))
		case tagSensorDetail:
			s.Detail, err = d.own(f.b)
		case tagSensorVersion:
			s.Version, err = d.own(f.b)
		case tagSensorPreviousEpoch:
			err = set128(&s.PreviousEpoch, f.b)
		case tagSensorPreviousSeq:
			s.PreviousSeq = f.n
		}
		return err
	})
}

// each calls fn with every field of a message.
func each(b []byte, fn func(field) error) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		if err := fn(f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// allocated returns *p, made if it was nil: protobuf merges a message that
// comes twice.
func allocated[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

// set128 reads an id, which has 16 bytes or none.
func set128[T ID | Epoch](dst *T, b []byte) error {
	var v T
	if n := copy(v[:], b); len(b) != 0 && len(b) != n || n != 0 && n != len(v) {
		return fmt.Errorf("%w: an id of %d bytes, want %d", ErrMalformed, len(b), len(v))
	}
	*dst = v
	return nil
}

// small is a number of an enumeration, 0 if it does not fit.
func small(n uint64) uint8 {
	if n > 255 {
		return 0
	}
	return uint8(n)
}

func duration(n uint64) time.Duration { return time.Duration(int64(n)) }
