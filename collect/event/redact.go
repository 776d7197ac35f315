package event

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Redacted stands in the place of a secret.
const Redacted = "[redacted]"

// What a Redactor looks at, so that no command line costs much: later
// arguments, and what of an argument is past the bound, are replaced unseen.
const (
	maxRedactArgs  = 8192
	maxRedactBytes = 256 << 10
)

// Redactor replaces secrets in arguments. It always knows these:
//
//   - the value of a secret key, written --key=value, --key value, key=value,
//     key: value or "key": "value", also inside a longer argument (a script, a
//     URL's query, JSON, a connection string). A key is secret by its last
//     words: password, passwd, passphrase, passcode, pwd, pass, secret, token,
//     credential, credentials, creds, cookie, authorization, pw, and api, access,
//     private, secret, account, master, encryption, signing, auth, session,
//     shared, storage, client or ssh key, in any case and with any of "-", "_"
//     and "." between the words, as in DB_PASSWORD, clientSecret, x-api-key.
//     So is auth, alone. --password-file is not secret, nor is PWD;
//   - the value in configure set KEY VALUE and config set KEY VALUE;
//   - the password in scheme://user:password@host, and a user without a password
//     that is as long as a token: 16 bytes with http and https, else 20;
//   - options and operands of some commands, such as sshpass -p, mysql -pVALUE,
//     curl -u user:VALUE, curl -b NAME=VALUE, docker login -p, redis-cli -a,
//     xfreerdp /p:VALUE, vault login VALUE, htpasswd -b;
//   - values that tell themselves: AWS key ids, GitHub, GitLab and Slack tokens,
//     JSON web tokens, bearer tokens, PEM private keys.
//
// Where it can not tell where a secret ends it replaces too much. A Redactor is
// immutable and safe for concurrent use.
type Redactor struct {
	keys   []*regexp.Regexp
	values []*regexp.Regexp
}

// valuePrefix marks a pattern of [NewRedactor] that matches values.
const valuePrefix = "value:"

// NewRedactor returns a redactor of the default set and the patterns, which are
// regular expressions (RE2 syntax, case ignored):
//
//	REGEX        makes keys secret in which it matches anywhere; ^ and $ work
//	value:REGEX  replaces all that it matches inside an argument
//
// The error names every bad pattern.
func NewRedactor(patterns []string) (*Redactor, error) {
	r := &Redactor{}
	var faults []error
	for _, pattern := range patterns {
		expr, isValue := strings.CutPrefix(pattern, valuePrefix)
		re, err := regexp.Compile("(?i)" + expr)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("compile redaction pattern %q: %w", pattern, err))
		case re.MatchString(""):
			faults = append(faults, fmt.Errorf("redaction pattern %q matches the empty text, so everything", pattern))
		case isValue:
			r.values = append(r.values, re)
		default:
			r.keys = append(r.keys, re)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return r, nil
}

// Redact returns args with every secret replaced by [Redacted]. It does not
// modify args, and returns that same slice when there is no secret in it. It
// takes a whole command line, whose first argument is the command, or a list of
// NAME=value pairs.
func (r *Redactor) Redact(args []string) []string {
	line := commandLine{redactor: r, options: options{redactor: r}}
	out := args
	size := 0
	for i, arg := range args {
		clean := Redacted
		switch {
		case i < maxRedactArgs && size+len(arg) <= maxRedactBytes:
			clean = line.next(arg)
		case i < maxRedactArgs && size < maxRedactBytes:
			clean = line.next(arg[:maxRedactBytes-size]) + Redacted
		}
		size += len(arg)
		if clean == arg {
			continue
		}
		if &out[0] == &args[0] {
			out = slices.Clone(args)
		}
		out[i] = clean
	}
	return out
}

// commandLine is what must be remembered from one argument to the next.
type commandLine struct {
	redactor *Redactor
	options  options
	wants    string // the secret key whose value is the next argument
	script   bool   // the next argument is a shell script
}

// next returns the argument without its secrets.
func (l *commandLine) next(arg string) string {
	wants, script := l.wants, l.script
	l.wants, l.script = "", scriptFollows(arg)
	if wants != "" && !looksLikeOption(arg) {
		if isScheme(arg) {
			l.wants = wants // Authorization: Bearer VALUE, unquoted
			return arg
		}
		from := secretStart(wants, arg)
		return cover(arg, from, len(arg))
	}
	if from := l.options.next(arg); from >= 0 {
		return cover(arg, from, len(arg))
	}
	// What is known of the command is better than what is known of the key.
	if key, ok := openKey(arg); ok && l.options.wants == nothing && l.redactor.secret(key) {
		l.wants = key
		return arg
	}
	if script || strings.Contains(arg, " ") {
		arg = l.redactor.coverWords(arg)
	}
	s := scan{redactor: l.redactor, s: arg, script: script, lastAt: strings.LastIndexByte(arg, '@')}
	return l.redactor.coverValues(s.clean())
}

// secret reports whether the value of this key is one.
func (r *Redactor) secret(key string) bool {
	if isSecretKey(key) {
		return true
	}
	for _, re := range r.keys {
		if re.MatchString(key) {
			return true
		}
	}
	return false
}

func (r *Redactor) coverValues(arg string) string {
	if tellsItself(arg) {
		arg = selfTelling.ReplaceAllString(arg, "${1}"+Redacted)
	}
	for _, re := range r.values {
		arg = re.ReplaceAllLiteralString(arg, Redacted)
	}
	return arg
}

// cover replaces s[from:to], unless it is empty or was replaced before.
func cover(s string, from, to int) string {
	if from >= to || s[from:to] == Redacted {
		return s
	}
	return s[:from] + Redacted + s[to:]
}

// looksLikeOption reports whether an argument that follows a secret option is
// rather the next option: --word, -x or - (standard input).
func looksLikeOption(arg string) bool {
	if !strings.HasPrefix(arg, "-") {
		return false
	}
	return len(arg) <= 2 || arg[1] == '-'
}

// scriptFollows reports whether arg is a shell's -c, alone or in a cluster.
func scriptFollows(arg string) bool {
	return len(arg) >= 2 && len(arg) <= 5 && arg[0] == '-' && arg[1] != '-' && arg[len(arg)-1] == 'c'
}

// openKey returns the key of an argument that has no value in it: --key or Key:.
func openKey(arg string) (string, bool) {
	key := strings.TrimLeft(arg, "-")
	if len(key) == len(arg) {
		var header bool
		if key, header = strings.CutSuffix(arg, ":"); !header {
			return "", false
		}
	}
	for i := range len(key) {
		if !isKeyByte(key[i]) {
			return "", false
		}
	}
	return key, key != "" && len(key) <= maxKey
}
