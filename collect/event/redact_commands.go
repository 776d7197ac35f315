package event

import "strings"

// secretOptions is what is known of a command: the letters of its options that
// carry a secret, and whether an operand is one.
type secretOptions struct {
	next      string // -x VALUE
	attached  string // -xVALUE
	userinfo  string // -x USER:VALUE or -xUSER:VALUE
	cookie    string // -x NAME=VALUE or -xNAME=VALUE, not -x FILE
	slash     string // /x:VALUE
	separator byte   // in USER:VALUE
	login     bool   // only behind the word login
	token     want   // the operand behind the word login
	batch     bool   // -b makes the last operand a secret
}

// wantOf returns what follows the option with this letter.
func (s *secretOptions) wantOf(letter byte) want {
	switch {
	case strings.IndexByte(s.next, letter) >= 0:
		return aSecret
	case strings.IndexByte(s.userinfo, letter) >= 0:
		return aUserinfo
	case strings.IndexByte(s.cookie, letter) >= 0:
		return aCookie
	}
	return nothing
}

// wantOfLong returns what follows --name. That --cookie is here is for the files
// that curl takes: it is a secret key.
func (s *secretOptions) wantOfLong(name string) want {
	switch {
	case s.userinfo != "" && (name == "--user" || name == "--proxy-user"):
		return aUserinfo
	case s.cookie != "" && name == "--cookie":
		return aCookie
	}
	return nothing
}

// secretOptionsOf returns what is known of a command, by its name without path.
func secretOptionsOf(name string) (secretOptions, bool) {
	switch name {
	case "sshpass":
		return secretOptions{next: "p", attached: "p"}, true
	case "curl":
		return secretOptions{userinfo: "uU", cookie: "b", separator: ':'}, true
	case "http", "https", "xh":
		return secretOptions{userinfo: "a", separator: ':'}, true
	case "smbclient", "rpcclient", "smbget", "smbcacls":
		return secretOptions{userinfo: "U", separator: '%'}, true
	case "docker", "podman", "nerdctl", "helm", "skopeo", "buildah", "oras", "crane", "regctl", "oc", "az":
		return secretOptions{next: "p", attached: "p", login: true}, true
	case "redis-cli":
		return secretOptions{next: "a", attached: "a"}, true
	case "mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat", "mongotop":
		return secretOptions{next: "p", attached: "p"}, true
	case "zip", "unzip", "sqlcmd", "bcp", "ipmitool":
		return secretOptions{next: "P", attached: "P"}, true
	case "mosquitto_pub", "mosquitto_sub", "mosquitto_rr": //nolint:misspell // the name of the program
		return secretOptions{next: "P"}, true
	case "xfreerdp", "xfreerdp3", "wlfreerdp", "wlfreerdp3", "sdl-freerdp", "sdl-freerdp3":
		return secretOptions{next: "p", slash: "/p:/gp:/pth:"}, true
	case "7z", "7za", "7zr", "7zz", "rar", "unrar":
		return secretOptions{attached: "p"}, true
	case "openssl":
		return secretOptions{next: "kK"}, true
	case "vault", "bao":
		return secretOptions{token: aToken}, true
	case "htpasswd":
		return secretOptions{batch: true}, true
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

// operands follows the arguments of a command that are no options.
type operands struct {
	isConfig bool // the word config or configure was there,
	isSet    bool // and then set
	wants    want // what the next operand is
	isValue  bool // the argument before was an option, and this may be its value

	isBatch bool // htpasswd -b [FILE] USER PASSWORD
	noFile  bool
	seen    int
}

// setting takes a word of configure set NAME VALUE.
func (p *operands) setting(word string) {
	if word == "set" {
		p.isSet = p.isConfig
	} else {
		p.isConfig = true
	}
}

func (p *operands) expect(wants want) {
	p.wants, p.isValue = wants, false
}

// pastOption takes an option. Where the next argument may be its value and may
// be the secret, it is covered, and so is the one behind it.
func (p *operands) pastOption(arg string) {
	p.isValue = p.wants != nothing && !strings.Contains(arg, "=")
}

// begun reports whether all that follows are operands, whatever it looks like.
func (p *operands) begun() bool { return p.seen > 0 }

// batchOption takes short options of htpasswd, and returns what follows them.
func (p *operands) batchOption(arg string) want {
	p.isBatch = p.isBatch || strings.Contains(arg, "b")
	p.noFile = p.noFile || strings.Contains(arg, "n")
	if last := arg[len(arg)-1]; last == 'C' || last == 'r' {
		return aPlain // the cost
	}
	return nothing
}

// next takes an operand and returns where in it a secret begins, or -1.
func (p *operands) next(arg string) int {
	switch {
	case p.isBatch:
		return p.batchOperand()
	case p.wants == nothing || p.wants == aToken && isPair(arg):
		return -1
	case !p.isValue:
		p.wants = nothing
	}
	p.isValue = false
	return 0
}

func (p *operands) batchOperand() int {
	p.seen++
	if p.seen < 2 || p.seen == 2 && !p.noFile {
		return -1
	}
	*p = operands{}
	return 0
}

// isPair reports whether arg is NAME=VALUE. A token can end in =.
func isPair(arg string) bool {
	return strings.Contains(strings.TrimRight(arg, "="), "=")
}
