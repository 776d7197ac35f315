package settings

import (
	"bytes"
	"regexp"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// placeOf is the line of what is wrong with a text, and what it is. The YAML library
// names no line where it counts 0: on the first one, and for text that is none.
// Where its grammar, not its scanner, fails it names the line before.
func placeOf(err error, text []byte) (line int, what string) {
	parts := regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`).FindStringSubmatch(oneLine(err))
	line, what = 1, parts[2]
	switch n, err := strconv.Atoi(parts[1]); {
	case err != nil:
		line += bytes.Count(text[:badText(text)], []byte("\n"))
	case regexp.MustCompile(`^did not find expected (key|node content|'|<)`).MatchString(what):
		line = n + 1
	default:
		line = n
	}
	return max(1, min(line, lines(text))), what
}

// lines is how many there are; the last one may lack its end.
func lines(text []byte) int {
	return bytes.Count(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) + 1
}

// badText is where the first character stands that YAML does not take; 0 if there
// is none.
func badText(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 || unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' {
			return i
		}
		i += size
	}
	return 0
}
