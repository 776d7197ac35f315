package procfile

import "math"

// The parsers take nothing but digits, with a minus sign where one is possible,
// and report whether the number fits.

func parseUint(b []byte) (uint64, bool) {
	if len(b) < 20 { // no overflow is possible
		var v uint64
		for _, c := range b {
			d := c - '0'
			if d > 9 {
				return 0, false
			}
			v = v*10 + uint64(d)
		}
		return v, len(b) > 0
	}
	var v uint64
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || v > (math.MaxUint64-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

func parseInt(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	v, ok := parseUint(b)
	if !ok || v > math.MaxInt64 {
		return 0, false
	}
	if negative {
		return -int64(v), true
	}
	return int64(v), true
}

func parseInt32(b []byte) (int32, bool) {
	v, ok := parseInt(b)
	return int32(v), ok && v == int64(int32(v))
}

func parseUint32(b []byte) (uint32, bool) {
	v, ok := parseUint(b)
	return uint32(v), ok && v <= math.MaxUint32
}

func parseHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		var d byte
		switch {
		case c-'0' <= 9:
			d = c - '0'
		case c-'a' <= 5:
			d = c - 'a' + 10
		case c-'A' <= 5:
			d = c - 'A' + 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(d)
	}
	return v, len(b) > 0 && len(b) <= 16
}
