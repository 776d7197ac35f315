package event

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text makes host text printable; see the package comment. Different texts
// stay different, and [Untext] gives the bytes back. Text that needs no change
// is returned as it is.
func Text(s string) string {
	if plain(s) {
		return s
	}
	return string(appendText(make([]byte, 0, len(s)+16), s))
}

// plain reports whether Text leaves s alone. It looks at ASCII only and may
// say no too often.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

func appendText(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\':
			dst = append(dst, `\\`...)
		case r == utf8.RuneError && size == 1, deceptive(r):
			dst = appendHex(dst, s[i:i+size])
		default:
			dst = append(dst, s[i:i+size]...)
		}
		i += size
	}
	return dst
}

// deceptive reports whether a character does something else to a terminal or
// a page than stand there: controls, line separators, the marks that change the
// direction of the text around them, and characters that are not seen at all.
func deceptive(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

const hexDigits = "0123456789abcdef"

func appendHex(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = append(dst, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
	}
	return dst
}

// Untext is the inverse of [Text]: the bytes that the host said. It refuses
// what Text never writes.
func Untext(s string) (string, error) {
	var b strings.Builder
	for rest := s; rest != ""; {
		n := strings.IndexByte(rest, '\\')
		if n < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:n])
		c, size, ok := unescape(rest[n:])
		if !ok {
			return "", fmt.Errorf("unescape text %q: want \\\\ or \\xNN after the first %d bytes", s, len(s)-len(rest)+n)
		}
		b.WriteByte(c)
		rest = rest[n+size:]
	}
	if Text(b.String()) != s {
		return "", fmt.Errorf("unescape text %q: it escapes what needs no escape, or the reverse", s)
	}
	return b.String(), nil
}

// unescape reads the escape that s begins with.
func unescape(s string) (c byte, size int, ok bool) {
	if strings.HasPrefix(s, `\\`) {
		return '\\', 2, true
	}
	if len(s) < 4 || s[1] != 'x' {
		return 0, 0, false
	}
	high := strings.IndexByte(hexDigits, s[2])
	low := strings.IndexByte(hexDigits, s[3])
	return byte(high<<4 | low), 4, high >= 0 && low >= 0
}
