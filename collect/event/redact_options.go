package event

import "strings"

// options follows a command line and finds the secrets in short options and in
// operands, whose meaning depends on the command. Only those are known whose
// meaning is certain.
type options struct {
	redactor *Redactor
	command  secretOptions
	login    bool // the word login was there
	wants    want
	operands operands
}

// want says what the next argument is: the value of an option.
type want uint8

const (
	nothing want = iota
	aSecret
	aUserinfo // user:secret
	aCookie   // name=secret, or the name of a file
	aToken    // a secret, unless it is name=value
	aPlain    // no secret, and no operand
)

// next takes the next argument and returns where in it a secret begins, or -1.
func (o *options) next(arg string) int {
	wants := o.wants
	o.wants = nothing
	switch {
	case wants != nothing:
		return o.value(wants, arg, 0)
	case !strings.HasPrefix(arg, "-") || o.operands.begun():
		return o.operand(arg)
	case len(arg) < 2 || o.command.login && !o.login:
		return -1
	}
	o.operands.pastOption(arg)
	if arg[1] == '-' {
		return o.longOption(arg)
	}
	return o.shortOption(arg)
}

// value is where the secret begins in the value that arg[from:] is, or -1.
func (o *options) value(wants want, arg string, from int) int {
	switch wants {
	case aSecret:
		return from
	case aUserinfo:
		if n := strings.IndexByte(arg[from:], o.command.separator); n >= 0 {
			return from + n + 1
		}
	case aCookie:
		if strings.Contains(arg[from:], "=") {
			return from
		}
	}
	return -1
}

// operand takes an argument that is no option: a secret, or perhaps another
// command (behind sudo, env, ssh, ...).
func (o *options) operand(arg string) int {
	if from := o.operands.next(arg); from >= 0 || o.operands.begun() {
		return from
	}
	if o.command.slash != "" && strings.HasPrefix(arg, "/") {
		return o.slashOption(arg)
	}
	switch arg {
	case "login":
		o.login = true
		o.operands.expect(o.command.token)
		return -1
	case "config", "configure", "set":
		o.operands.setting(arg)
		return -1
	}
	o.word(arg)
	return -1
}

func (o *options) word(arg string) {
	if o.operands.isSet && o.namesSecret(arg) {
		o.operands.expect(aSecret)
		return
	}
	name := arg[strings.LastIndexByte(arg, '/')+1:]
	if len(name) > 16 {
		return
	}
	if command, ok := secretOptionsOf(name); ok {
		*o = options{redactor: o.redactor, command: command}
	}
}

// namesSecret reports whether a word is the name of a secret setting, such as
// aws_session_token and //registry.example/:_authToken.
func (o *options) namesSecret(word string) bool {
	key := word[strings.LastIndexAny(word, "/:")+1:]
	return len(key) <= maxKey && !strings.Contains(key, "=") && o.redactor.secret(key)
}

// slashOption knows the options of FreeRDP, such as /p:VALUE.
func (o *options) slashOption(arg string) int {
	n := strings.IndexByte(arg, ':')
	if n < 2 || !strings.Contains(o.command.slash, arg[:n+1]) {
		return -1
	}
	return n + 1
}

func (o *options) longOption(arg string) int {
	name, value, attached := strings.Cut(arg, "=")
	wants := o.command.wantOfLong(name)
	if attached {
		return o.value(wants, arg, len(arg)-len(value))
	}
	o.wants = wants
	return -1
}

func (o *options) shortOption(arg string) int {
	if o.command.batch {
		o.wants = o.operands.batchOption(arg)
		return -1
	}
	if len(arg) == 2 {
		o.wants = o.command.wantOf(arg[1])
		return -1
	}
	if strings.IndexByte(o.command.attached, arg[1]) >= 0 {
		return 2
	}
	if wants := o.command.wantOf(arg[1]); wants == aUserinfo || wants == aCookie {
		return o.value(wants, arg, 2)
	}
	// curl -sSu user:secret
	if wants := o.command.wantOf(arg[len(arg)-1]); len(arg) <= 8 && wants != aSecret {
		o.wants = wants
	}
	return -1
}

// coverWords replaces the secrets in options and operands of a shell script.
func (r *Redactor) coverWords(script string) string {
	o := options{redactor: r}
	var out strings.Builder
	done := 0
	for i := 0; i < len(script); {
		if endsCommand(script, i) {
			o.wants, o.operands = nothing, operands{}
		}
		if n := betweenWords(script[i:]); n > 0 {
			i += n
			continue
		}
		end := wordEnd(script, i, shellDelimiters)
		word := strings.Trim(script[i:end], `"'`)
		if from := o.next(word); from >= 0 && from < len(word) {
			from += i + strings.Index(script[i:end], word)
			out.WriteString(script[done:from])
			out.WriteString(Redacted)
			done = closingQuote(script, i, from, end)
		}
		i = end
	}
	if done == 0 {
		return script
	}
	out.WriteString(script[done:])
	return out.String()
}

// betweenWords is how long what s begins with is, if it is no word.
func betweenWords(s string) int {
	switch {
	case strings.IndexByte(shellDelimiters, s[0]) >= 0 || s[0] == '(':
		return 1
	case strings.HasPrefix(s, "\\\n"): // the line goes on
		return 2
	}
	return 0
}

// endsCommand reports whether a shell's command ends at i: not in 2>&1 and &>.
func endsCommand(script string, i int) bool {
	switch script[i] {
	case ';', '|', '\n':
		return true
	case '&':
		return (i == 0 || script[i-1] != '>') && !strings.HasPrefix(script[i+1:], ">")
	}
	return false
}

// closingQuote is the end of what the mark replaces in the word script[i:end]:
// a quote that is open at from must be closed behind the mark, or all that
// follows looks quoted, and what is quoted looks free.
func closingQuote(script string, i, from, end int) int {
	if last := script[end-1]; end-1 > from && isQuote(last) && strings.Count(script[i:from], string(last))%2 == 1 {
		return end - 1
	}
	return end
}
