package event

import "errors"

// MaxEncoded is the size that no encoded event exceeds, in bytes.
const MaxEncoded = 64 << 10

// ErrMalformed is wrapped by every error of [Decode] and [DecodeProcess].
var ErrMalformed = errors.New("malformed event")

// Append appends the protobuf form of e (message Event of event.proto).
func Append(dst []byte, e *Event) []byte { panic("being written") }

// Decode reads the protobuf form into e, replacing all of it. It keeps no
// reference to b. Unknown fields are skipped.
func Decode(b []byte, e *Event) error { panic("being written") }

// AppendProcess appends the protobuf form of p (message Process).
func AppendProcess(dst []byte, p *Process) []byte { panic("being written") }

// DecodeProcess reads the protobuf form into p, replacing all of it.
func DecodeProcess(b []byte, p *Process) error { panic("being written") }

// AppendJSON appends the JSON form of e: one object, no newline.
func AppendJSON(dst []byte, e *Event) []byte { panic("being written") }

// Text makes host text printable; see the package comment.
func Text(s string) string { panic("being written") }

// Clip cuts what is over the limits (arguments 32 KiB in all, paths 4 KiB each,
// the encoded event [MaxEncoded]) and says so in p.Missing.Truncated.
func Clip(e *Event) { panic("being written") }
