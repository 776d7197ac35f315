package event

import "strings"

// scan looks for keys and values inside one argument, in one pass.
type scan struct {
	redactor *Redactor
	s        string
	script   bool
	lastAt   int // of the last @, -1 if there is none

	out   []byte
	done  int  // s[:done] is in out
	quote byte // the quote that is open, or 0
	loose bool // something was there that can not stand in a key=key= prefix
}

// clean returns the argument with the values of secret keys replaced.
func (c *scan) clean() string {
	if !strings.ContainsAny(c.s, "=: \t\n") {
		return c.s
	}
	for i := 0; i < len(c.s); {
		i = c.step(i)
	}
	if c.done == 0 {
		return c.s
	}
	return string(append(c.out, c.s[c.done:]...))
}

// step looks at one place and returns the next.
func (c *scan) step(i int) int {
	b := c.s[i]
	switch b {
	case '\\':
		c.loose = true
		return min(i+2, len(c.s))
	case '"', '\'':
		c.loose = true
		switch c.quote {
		case 0:
			c.quote = b
		case b:
			c.quote = 0
		}
	case ':':
		if strings.HasPrefix(c.s[i:], "://") {
			c.loose = true
			return c.url(i + len("://"))
		}
		return c.separator(i)
	case '=':
		return c.separator(i)
	case ' ', '\t', '\n':
		next := c.blank(i)
		c.loose = true
		return next
	default:
		c.loose = c.loose || !isKeyByte(b)
	}
	return i + 1
}

// replace puts the mark in the place of s[from:to] and returns to.
func (c *scan) replace(from, to int) int {
	if from < to && c.s[from:to] != Redacted {
		c.out = append(append(c.out, c.s[c.done:from]...), Redacted...)
		c.done = to
	}
	return to
}

// separator looks at the = or : at i.
func (c *scan) separator(i int) int {
	key, start, spaced := c.keyBefore(i)
	if key == "" || !c.redactor.secret(key) {
		return i + 1
	}
	from := i + 1
	if c.s[i] == ':' || spaced {
		from = skipBlanks(c.s, from)
	}
	whole := !c.loose && !c.script
	if whole {
		from += skipScheme(c.s[from:])
		from += secretStart(key, c.s[from:])
		return c.replace(from, len(c.s))
	}
	return c.value(from, start)
}

// blank looks at the white space at i: it may stand behind an option in a script.
func (c *scan) blank(i int) int {
	key, start, _ := c.keyBefore(i)
	if key == "" || c.s[start] != '-' || start > 0 && !isBlank(c.s[start-1]) && !isQuote(c.s[start-1]) {
		return i + 1
	}
	from := skipBlanks(c.s, i)
	if from == len(c.s) || c.s[from] == '-' || !c.redactor.secret(key) {
		return i + 1
	}
	return c.value(from, start)
}

// value replaces the value at from of the key at start.
func (c *scan) value(from, start int) int {
	if n := skipScheme(c.s[from:]); n > 0 {
		from += n
	}
	// "key=a value with blanks": the quote before the key ends it.
	if c.quote != 0 && start > 0 && c.s[start-1] == c.quote && (start == 1 || c.s[start-2] != '\\') {
		return c.replace(from, quoteEnd(c.s, from, c.quote))
	}
	if c.quote != 0 {
		return c.replace(from, c.quotedEnd(from))
	}
	return c.replace(from, wordEnd(c.s, from, valueDelimiters))
}

// quotedEnd is the end of a value inside a quoted text that holds more.
func (c *scan) quotedEnd(from int) int {
	if opening := openingQuote(c.s[from:]); opening != "" && opening != string(c.quote) {
		return wordEnd(c.s, from, valueDelimiters)
	}
	for i := from; i < len(c.s); i++ {
		if c.s[i] == c.quote || isDelimiter(c.s[i]) {
			return i
		}
	}
	return len(c.s)
}

// keyBefore returns the key that ends before i, where it starts with its
// dashes, and whether white space was between. No key is empty, and so is what
// stands behind a slash: a path.
func (c *scan) keyBefore(i int) (key string, start int, spaced bool) {
	end := i
	for end > c.done && end > i-8 && isBlank(c.s[end-1]) {
		end--
	}
	spaced = end < i
	for end > c.done && end > i-12 && strings.IndexByte(`"'\]`, c.s[end-1]) >= 0 {
		end--
	}
	start = end
	for start > c.done && start > end-maxKey && isKeyByte(c.s[start-1]) {
		start--
	}
	if start > 0 && c.s[start-1] == '/' {
		return "", start, spaced
	}
	return strings.TrimLeft(c.s[start:end], "-"), start, spaced
}

// maxUserinfo bounds the search for the end of a password in a URL.
const maxUserinfo = 1024

// url looks at what follows :// and returns where to go on.
func (c *scan) url(from int) int {
	if from > c.lastAt {
		return from
	}
	rest := c.s[from:min(len(c.s), from+maxUserinfo)]
	if n := strings.IndexAny(rest, " \t\n\"'"); n >= 0 {
		rest = rest[:n]
	}
	authority := rest
	if n := strings.IndexAny(rest, "/?#"); n >= 0 {
		authority = rest[:n]
	}
	at := strings.LastIndexByte(authority, '@')
	colon := strings.IndexByte(authority, ':')
	if at < 0 && colon >= 0 && authority[0] != '[' && !isPort(authority[colon+1:]) {
		at = strings.LastIndexByte(rest, '@') // a password with a slash in it
	}
	if at < 0 {
		return from
	}
	return c.userinfo(from, rest[:at])
}

// userinfo replaces the secret in the user info at from and returns its end.
func (c *scan) userinfo(from int, info string) int {
	user, password, ok := strings.Cut(info, ":")
	switch {
	case (password == "" || password == "x-oauth-basic") && len(user) >= shortestToken(c.s[:from]):
		return c.replace(from, from+len(info))
	case ok:
		return c.replace(from+len(user)+1, from+len(info))
	}
	return from + len(info)
}

// shortestToken is how long a user without a password is at least that is
// rather a token, in a URL that begins like this. Who speaks HTTP has tokens;
// with other schemes long names of users are less rare.
func shortestToken(scheme string) int {
	scheme = strings.TrimSuffix(scheme, "://")
	for _, http := range [...]string{"http", "https"} {
		if n := len(scheme) - len(http); n >= 0 && strings.EqualFold(scheme[n:], http) {
			return 16
		}
	}
	return 20
}

func isPort(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

func isQuote(b byte) bool { return b == '"' || b == '\'' }

// What ends a word of a shell, and a value that can be in JSON or in a list too.
const (
	shellDelimiters = " \t\n\r;&|)"
	valueDelimiters = shellDelimiters + ",}"
)

// isDelimiter reports whether b ends a value that is not quoted.
func isDelimiter(b byte) bool { return strings.IndexByte(valueDelimiters, b) >= 0 }

func skipBlanks(s string, i int) int {
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	return i
}

// openingQuote is the quote that s begins with: ", ' or \".
func openingQuote(s string) string {
	switch {
	case strings.HasPrefix(s, `\"`), strings.HasPrefix(s, `\'`):
		return s[:2]
	case s != "" && isQuote(s[0]):
		return s[:1]
	}
	return ""
}

// quoteEnd is where the quote closes that is open at i, or the end of s.
func quoteEnd(s string, i int, quote byte) int {
	for ; i < len(s); i++ {
		if s[i] == '\\' && quote == '"' {
			i++
		} else if s[i] == quote {
			return i
		}
	}
	return len(s)
}

// wordEnd is where the word ends that begins at i, as a shell or JSON sees it:
// at a delimiter outside of quotes.
func wordEnd(s string, i int, delimiters string) int {
	for i < len(s) {
		switch opening := openingQuote(s[i:]); {
		case len(opening) == 2: // text inside a quoted text
			n := strings.Index(s[i+2:], opening)
			if n < 0 {
				return len(s)
			}
			i += 2 + n + 2
		case opening != "":
			i = min(quoteEnd(s, i+1, s[i])+1, len(s))
		case strings.IndexByte(delimiters, s[i]) >= 0:
			return i
		case s[i] == '\\':
			i = min(i+2, len(s))
		default:
			i++
		}
	}
	return len(s)
}
