package store

import (
	"encoding/binary"
	"math"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// The key space. Numbers are big endian, so that keys sort as they count.
//
//	e/<seq, 8 bytes>      encoded event
//	j/<n, 8 bytes>        transition, JSON
//	m/<name>              what is known of the store, see below
//	p/<process id, 16>    encoded process: the live table
//	t/<minute, 8 bytes>   lowest sequence observed in that minute since 1970
const (
	prefixEvent   = "e/"
	prefixJournal = "j/"
	prefixMeta    = "m/"
	prefixProcess = "p/"
	prefixMinute  = "t/"
)

// The meta records. All numbers are 8 bytes, big endian; times are nanoseconds
// since 1970 as such a number.
const (
	metaAsOf  = prefixMeta + "asof"  // time: the table was complete
	metaMark  = prefixMeta + "mark"  // number: mark of the last batch that had one
	metaBoot  = prefixMeta + "boot"  // boot id of the table, text
	metaBytes = prefixMeta + "bytes" // encoded bytes of all events ever appended
	metaClean = prefixMeta + "clean" // time of an orderly close; absent while open
	// metaCursor is the last acknowledged sequence, and how many bytes, and events, are
	// owed no more: acknowledged, removed or shed. Releases without shedding wrote no
	// third number; there it is the first.
	metaCursor = prefixMeta + "cursor"
	metaEpoch  = prefixMeta + "epoch"  // 16 bytes
	metaFloor  = prefixMeta + "floor"  // lowest sequence kept; 1 if absent
	metaOwed   = prefixMeta + "owed"   // one byte: 1 if the last run owed delivery
	metaStream = prefixMeta + "stream" // see stream
	metaLoss   = prefixMeta + "loss/"  // followed by one byte, the cause: events, count
	// metaRange is followed by a sequence, the first of a range that a loss event
	// accounts for: its last, and how many of it are absent.
	metaRange = prefixMeta + "range/"
)

func seqKey(dst []byte, prefix string, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefix...), n)
}

// appendEventKey appends the key of the event with this sequence.
func appendEventKey(dst []byte, seq uint64) []byte { return seqKey(dst, prefixEvent, seq) }

// appendJournalKey appends the key of the n-th transition.
func appendJournalKey(dst []byte, n uint64) []byte { return seqKey(dst, prefixJournal, n) }

// appendProcessKey appends the key of a process in the live table.
func appendProcessKey(dst []byte, id event.ID) []byte {
	return append(append(dst, prefixProcess...), id[:]...)
}

// appendMinuteKey appends the key of a minute in the time index.
func appendMinuteKey(dst []byte, minute uint64) []byte {
	return seqKey(dst, prefixMinute, minute)
}

func eventKey(seq uint64) []byte { return appendEventKey(nil, seq) }
func journalKey(n uint64) []byte { return appendJournalKey(nil, n) }
func minuteKey(m uint64) []byte  { return appendMinuteKey(nil, m) }

func rangeKey(from uint64) []byte { return seqKey(nil, metaRange, from) }

func lossKey(c event.LossCause) []byte { return append([]byte(metaLoss), byte(c)) }

// parseNumber returns the number of an e/, j/ or t/ key.
func parseNumber(key []byte) (n uint64, ok bool) {
	if len(key) != 2+8 || key[1] != '/' {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[2:]), true
}

// parseProcessKey returns the process of a p/ key.
func parseProcessKey(key []byte) (id event.ID, ok bool) {
	if len(key) != len(prefixProcess)+len(id) || string(key[:2]) != prefixProcess {
		return id, false
	}
	return event.ID(key[2:]), true
}

// keySpan returns the bounds [lower, upper) of all keys with a prefix that ends
// in a slash.
func keySpan(prefix string) (lower, upper []byte) {
	lower = []byte(prefix)
	upper = []byte(prefix)
	upper[len(upper)-1]++
	return lower, upper
}

// minuteOf returns the minute of the time index that t falls in. A clock before
// 1970 counts as 1970.
func minuteOf(t time.Time) uint64 {
	return uint64(max(t.Unix(), 0)) / 60
}

// number encodes a meta number.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// parseMetaNumber decodes one. Missing bytes read as zero.
func parseMetaNumber(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// twoNumbers encodes a meta record of two numbers.
func twoNumbers(a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(number(a), b)
}

// parseTwoNumbers decodes one.
func parseTwoNumbers(b []byte) (uint64, uint64) {
	if len(b) < 16 {
		return parseMetaNumber(b), 0
	}
	return parseMetaNumber(b), parseMetaNumber(b[8:])
}

// timeNumber encodes a meta time; parseTime decodes it. Zero is the zero time.
func timeNumber(t time.Time) []byte {
	if t.IsZero() {
		return number(0)
	}
	return number(uint64(t.UnixNano()))
}

func parseTime(b []byte) time.Time {
	n := parseMetaNumber(b)
	if n == 0 || n > math.MaxInt64 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}
