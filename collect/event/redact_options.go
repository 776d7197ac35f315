package event

import "strings"

// options follows a command line and finds the secrets in short options, whose
// meaning depends on the command. Only those are known whose meaning is
// certain.
type options struct {
	command  secretOptions
	login    bool // the word login was there
	userinfo bool // the next argument is user:secret
	value    bool // the next argument is a secret
}

// secretOptions are the letters of a command's options that carry a secret.
type secretOptions struct {
	next      string // -x VALUE
	attached  string // -xVALUE
	userinfo  string // -x USER:VALUE or -xUSER:VALUE
	long      []string
	separator byte // in USER:VALUE
	login     bool // only behind the word login
}

// secretOptionsOf returns what is known of a command, by its name without path.
func secretOptionsOf(name string) (secretOptions, bool) {
	switch name {
	case "sshpass":
		return secretOptions{next: "p", attached: "p"}, true
	case "curl":
		return secretOptions{userinfo: "uU", long: []string{"--user", "--proxy-user"}, separator: ':'}, true
	case "http", "https", "xh":
		return secretOptions{userinfo: "a", long: []string{"--auth"}, separator: ':'}, true
	case "smbclient", "rpcclient", "smbget", "smbcacls":
		return secretOptions{userinfo: "U", long: []string{"--user"}, separator: '%'}, true
	case "docker", "podman", "nerdctl", "helm", "skopeo", "buildah", "oras", "crane", "regctl", "oc", "az":
		return secretOptions{next: "p", attached: "p", login: true}, true
	case "redis-cli":
		return secretOptions{next: "a", attached: "a"}, true
	case "mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat", "mongotop":
		return secretOptions{next: "p", attached: "p"}, true
	case "zip", "unzip", "sqlcmd", "bcp", "ipmitool":
		return secretOptions{next: "P", attached: "P"}, true
	case "7z", "7za", "7zr", "7zz", "rar", "unrar":
		return secretOptions{attached: "p"}, true
	case "openssl":
		return secretOptions{next: "kK"}, true
	case "ssh", "scp", "sftp", "rsync", "psql":
		return secretOptions{}, true // their -p and -U mean something else
	}
	switch {
	case strings.HasPrefix(name, "mysql") || strings.HasPrefix(name, "mariadb"):
		return secretOptions{attached: "p"}, true // -p VALUE names a database
	case strings.HasPrefix(name, "ldap"):
		return secretOptions{next: "w", attached: "w"}, true
	}
	return secretOptions{}, false
}

// next takes the next argument and returns where in it a secret begins, or -1.
func (o *options) next(arg string) int {
	switch {
	case o.value:
		o.value = false
		return 0
	case o.userinfo:
		o.userinfo = false
		return o.behindUser(arg, 0)
	case !strings.HasPrefix(arg, "-"):
		o.word(arg)
		return -1
	case len(arg) < 2 || o.command.login && !o.login:
		return -1
	case arg[1] == '-':
		return o.longOption(arg)
	}
	return o.shortOption(arg)
}

// word takes an argument that is no option: perhaps another command (behind
// sudo, env, ssh, ...).
func (o *options) word(arg string) {
	if arg == "login" {
		o.login = true
		return
	}
	name := arg[strings.LastIndexByte(arg, '/')+1:]
	if len(name) > 16 {
		return
	}
	if command, ok := secretOptionsOf(name); ok {
		*o = options{command: command}
	}
}

func (o *options) longOption(arg string) int {
	for _, long := range o.command.long {
		if arg == long {
			o.userinfo = true
		} else if strings.HasPrefix(arg, long) && arg[len(long)] == '=' {
			return o.behindUser(arg, len(long)+1)
		}
	}
	return -1
}

func (o *options) shortOption(arg string) int {
	letter := arg[1:2]
	if len(arg) == 2 {
		o.value = o.command.next != "" && strings.Contains(o.command.next, letter)
		o.userinfo = o.command.userinfo != "" && strings.Contains(o.command.userinfo, letter)
		return -1
	}
	if o.command.attached != "" && strings.Contains(o.command.attached, letter) {
		return 2
	}
	if o.command.userinfo == "" {
		return -1
	}
	if strings.Contains(o.command.userinfo, letter) {
		return o.behindUser(arg, 2)
	}
	// curl -sSu user:secret
	o.userinfo = len(arg) <= 8 && strings.Contains(o.command.userinfo, arg[len(arg)-1:])
	return -1
}

// behindUser is where the secret begins in arg[from:], or -1 if it has none.
func (o *options) behindUser(arg string, from int) int {
	n := strings.IndexByte(arg[from:], o.command.separator)
	if n < 0 {
		return -1
	}
	return from + n + 1
}

// coverWords replaces the secrets in short options of a shell script.
func coverWords(script string) string {
	var o options
	var out strings.Builder
	done := 0
	for i := 0; i < len(script); {
		if isDelimiter(script[i]) || script[i] == '(' {
			i++
			continue
		}
		end := wordEnd(script, i)
		word := strings.Trim(script[i:end], `"'`)
		if from := o.next(word); from >= 0 && from < len(word) {
			from += i + strings.Index(script[i:end], word)
			out.WriteString(script[done:from])
			out.WriteString(Redacted)
			done = end
		}
		i = end
	}
	if done == 0 {
		return script
	}
	out.WriteString(script[done:])
	return out.String()
}
