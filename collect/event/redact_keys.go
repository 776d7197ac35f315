package event

import (
	"regexp"
	"strings"
)

// maxKey is the longest key that is looked at; of a longer one its end is.
const maxKey = 128

// isKeyByte reports whether c can be in a key.
func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// isSecretKey reports whether the default set says that the value of this key
// is a secret; see [Redactor].
func isSecretKey(key string) bool {
	key = strings.TrimRight(key, "0123456789")
	if key == "" || key == "PWD" || key == "OLDPWD" {
		return false
	}
	var buf [maxKey]byte
	squeezed := buf[:0] // lower case, the words joined
	for i := range len(key) {
		c := key[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != '-' && c != '_' && c != '.' && len(squeezed) < maxKey {
			squeezed = append(squeezed, c)
		}
	}
	if strings.HasPrefix(key, "no-") { // --no-password takes no value
		return false
	}
	return hasSecretEnd(key, string(squeezed))
}

// hasSecretEnd looks at the last letter first: it decides for most keys.
func hasSecretEnd(key, squeezed string) bool {
	if squeezed == "" {
		return false
	}
	switch squeezed[len(squeezed)-1] {
	case 'd':
		return endsIn(squeezed, "password", "passwd", "pwd")
	case 'e':
		return endsIn(squeezed, "passphrase", "passcode", "cookie")
	case 'h':
		return squeezed == "auth" || strings.HasSuffix(key, "_auth") // npm
	case 'l':
		return endsIn(squeezed, "credential")
	case 'n':
		return endsIn(squeezed, "token", "authorization") || squeezed == "passin"
	case 'r':
		return endsIn(squeezed, "oauth2bearer") // curl
	case 's':
		return endsIn(squeezed, "credentials", "creds") || endsInWord(key, squeezed, "pass")
	case 't':
		return endsIn(squeezed, "secret") || squeezed == "passout"
	case 'w':
		return endsInWord(key, squeezed, "pw")
	case 'y':
		return endsIn(squeezed, "apikey", "accesskey", "privatekey", "secretkey", "accountkey", "masterkey",
			"encryptionkey", "signingkey", "authkey", "sessionkey", "sharedkey", "storagekey", "clientkey", "sshkey")
	}
	return false
}

func endsIn(s string, ends ...string) bool {
	for _, end := range ends {
		if strings.HasSuffix(s, end) {
			return true
		}
	}
	return false
}

// endsInWord knows db_pass, dbPass, dbpass and SSHPASS from bypass and compass:
// other words end in a word that is so short.
func endsInWord(key, squeezed, word string) bool {
	rest, ok := strings.CutSuffix(squeezed, word)
	if !ok {
		return false
	}
	switch rest {
	case "", "db", "user", "root", "admin", "ssh", "ftp", "smtp", "my", "http":
		return true
	}
	last := len(key) - len(word)
	before := key[last-1]
	return before == '-' || before == '_' || before == '.' || key[last] == 'P' && before >= 'a' && before <= 'z'
}

// secretStart is where the secret begins in the value of a key: after pass: for
// openssl, whose other forms name where the secret is and are left alone.
func secretStart(key, value string) int {
	if key == "auth" && isAuthMethod(value) {
		return len(value)
	}
	if key != "passin" && key != "passout" && key != "pass" {
		return 0
	}
	if strings.HasPrefix(value, "pass:") {
		return len("pass:")
	}
	if value == "stdin" || strings.HasPrefix(value, "env:") ||
		strings.HasPrefix(value, "file:") || strings.HasPrefix(value, "fd:") {
		return len(value)
	}
	return 0
}

// isAuthMethod reports whether the value of auth only says how: openvpn --auth
// SHA256, code-server --auth none.
func isAuthMethod(value string) bool {
	switch value {
	case "none", "off", "on", "false", "true", "no", "yes", "basic", "digest", "ntlm", "password",
		"MD5", "SHA1", "SHA256", "SHA384", "SHA512", "sha1", "sha256", "sha384", "sha512":
		return true
	}
	return false
}

// schemes stand before the secret in an Authorization header.
var schemes = [...]string{"bearer", "basic", "token", "digest", "negotiate", "apikey"}

func isScheme(s string) bool {
	for _, scheme := range schemes {
		if strings.EqualFold(s, scheme) {
			return true
		}
	}
	return false
}

// skipScheme returns how much of s is a scheme and the blanks behind it.
func skipScheme(s string) int {
	n := strings.IndexByte(s[:min(len(s), 16)], ' ')
	if n < 0 || !isScheme(s[:n]) {
		return 0
	}
	return len(s) - len(strings.TrimLeft(s[n:], " "))
}

// selfTelling matches secrets that have a form of their own; what is in the
// first group stays.
var selfTelling = regexp.MustCompile(`\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b` +
	`|\bgh[pousr]_[A-Za-z0-9]{30,}` +
	`|\bgithub_pat_[A-Za-z0-9_]{30,}` +
	`|\bglpat-[A-Za-z0-9_-]{20,}` +
	`|\bxox[abeoprs]-[A-Za-z0-9-]{10,}` +
	`|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?` +
	`|(?i:(\bbearer[ ]+))[A-Za-z0-9._~+/=-]{8,}` +
	`|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)

// tellsItself is a quick look for what selfTelling can match: most arguments
// never meet the regular expression.
func tellsItself(s string) bool {
	if len(s) < len("bearer 12345678") {
		return false
	}
	for _, part := range [...]string{
		"AKIA", "ASIA", "ABIA", "ACCA", "gh", "glpat-", "xox", "eyJ", "earer ", "EARER ", "PRIVATE KEY",
	} {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}
