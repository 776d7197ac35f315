// Package event names a process and what happened to it, in memory and on the
// wire.
//
// It holds the vocabulary that every other package shares: identities ([ID],
// [Epoch]), records ([Process], [Event], [Batch], [Table]), what could not be
// read ([Mask]), limits, redaction, the protobuf form that the store keeps and
// the bus sends ([Append], [Decode]), and the JSON form that people and scripts
// read ([AppendJSON]). It contains no operating system code, starts no
// goroutine and does no I/O.
//
// # Text
//
// Names, paths and arguments come from the watched host and may hold any byte.
// They are kept in Go strings as raw bytes and are valid UTF-8 only by luck;
// [Text] makes them printable: a byte that is not UTF-8 becomes \xNN, a
// backslash becomes \\, and the bytes of a control character, a line separator
// or a mark that changes the direction of text become \xNN each. [Untext] is
// the inverse.
//
// # Order
//
// Arguments and environment go through a [Redactor] first, then the event
// through [Clip], then everything else sees them.
//
// # Ownership
//
// A record handed to another package belongs to the receiver; slices inside it
// are never modified afterwards by anybody, so that they can be shared.
package event
