package event

import (
	"slices"
	"strings"
	"testing"
)

// redactCase is a command line, its arguments separated by a bar; without want
// there is no secret in it.
type redactCase struct{ in, want string }

func testRedact(t *testing.T, tests []redactCase) {
	t.Helper()
	r := redactor(t)
	for _, test := range tests {
		if test.want == "" {
			test.want = test.in
		}
		got := r.Redact(strings.Split(test.in, "|"))
		if joined := strings.Join(got, "|"); joined != test.want {
			t.Errorf("Redact(%s)\n got %s\nwant %s", test.in, joined, test.want)
		}
		if again := r.Redact(got); !slices.Equal(again, got) {
			t.Errorf("Redact twice of %s: %q then %q", test.in, got, again)
		}
	}
}

func TestRedactCurl(t *testing.T) {
	testRedact(t, []redactCase{
		{in: "curl|--oauth2-bearer|abc|x", want: "curl|--oauth2-bearer|[redacted]|x"},
		{in: "curl|--oauth2-bearer=abc|x", want: "curl|--oauth2-bearer=[redacted]|x"},
		{in: "curl|-b|sid=abc|x", want: "curl|-b|[redacted]|x"},
		{in: "curl|-b|sid=abc; n=2|x", want: "curl|-b|[redacted]|x"},
		{in: "curl|-bsid=abc|x", want: "curl|-b[redacted]|x"},
		{in: "curl|-sSb|sid=abc|x", want: "curl|-sSb|[redacted]|x"},
		{in: "curl|--cookie|sid=abc|x", want: "curl|--cookie|[redacted]|x"},
		{in: "curl|--cookie=sid=abc|x", want: "curl|--cookie=[redacted]|x"},
		{in: "/usr/bin/curl|-b|jar|-b|sid=abc", want: "/usr/bin/curl|-b|jar|-b|[redacted]"},
		{in: "sh|-c|curl -b sid=abc x", want: "sh|-c|curl -b [redacted] x"},
		{in: `sh|-c|curl -b "sid=abc; n=2" x`, want: `sh|-c|curl -b "[redacted]" x`},
		{in: "sh|-c|curl --oauth2-bearer abc x", want: "sh|-c|curl --oauth2-bearer [redacted] x"},
		{in: "erl|-cookie|abc", want: "erl|-cookie|[redacted]"}, // a cookie without a name

		{in: "curl|-b|cookies.txt|x"},
		{in: "curl|-bcookies.txt|https://x/?a=b"},
		{in: "curl|--cookie|cookies.txt|https://x/?a=b"},
		{in: "curl|--cookie-jar|a=b|-c|a=b|-B|a=b"},
		{in: "sh|-c|curl -b cookies.txt https://x/?a=b"},
		{in: "git|checkout|-b|a=b"},
		{in: "x|--oauth2|abc|--bearer-of|news"},
	})
}

func TestRedactConfigureSet(t *testing.T) {
	testRedact(t, []redactCase{
		{
			in:   "aws|configure|set|aws_secret_access_key|abc|--profile|p",
			want: "aws|configure|set|aws_secret_access_key|[redacted]|--profile|p",
		},
		{
			in:   "aws|--profile|p|configure|set|aws_session_token|abc==",
			want: "aws|--profile|p|configure|set|aws_session_token|[redacted]",
		},
		{
			in:   "aws|configure|--profile|p|set|--region|r|profile.p.aws_session_token|abc",
			want: "aws|configure|--profile|p|set|--region|r|profile.p.aws_session_token|[redacted]",
		},
		// p may be the secret, if --debug is alone.
		{
			in:   "aws|configure|set|aws_session_token|--debug|p|abc|x",
			want: "aws|configure|set|aws_session_token|--debug|[redacted]|[redacted]|x",
		},
		{
			in:   "npm|config|set|//registry.npmjs.org/:_authToken|abc",
			want: "npm|config|set|//registry.npmjs.org/:_authToken|[redacted]",
		},
		{in: "gcloud|config|set|auth/access_token|abc", want: "gcloud|config|set|auth/access_token|[redacted]"},
		{
			in:   "sh|-c|aws configure set aws_session_token abc && ls",
			want: "sh|-c|aws configure set aws_session_token [redacted] && ls",
		},
		{
			in:   "ssh|host|aws configure set aws_secret_access_key 'abc'",
			want: "ssh|host|aws configure set aws_secret_access_key '[redacted]'",
		},

		{in: "aws|configure|set|region|eu-west-1|--profile|p"},
		{in: "aws|configure|get|aws_secret_access_key|p"},
		{in: "aws|configure|list|set|x"},
		{in: "git|config|set|user.name|bob"},
		{in: "git|config|set|token.path=x|bob"},
		{in: "kubectl|config|set-context|token|x"},
		{in: "x|set|token|y"},
		{in: "sh|-c|aws configure set region r; ls token x"},
		{in: "sh|-c|aws configure set region r\nls token x"},
	})
	r := redactor(t, "^pin$")
	if got := r.Redact([]string{"x", "config", "set", "pin", "1234"}); got[4] != Redacted {
		t.Errorf("a key of a pattern: %q", got)
	}
}

func TestRedactUserOfURL(t *testing.T) {
	testRedact(t, []redactCase{
		{in: "git|clone|https://0123456789abcdef@host/r", want: "git|clone|https://[redacted]@host/r"},
		{in: "x|--url=HTTP://0123456789abcdef@host:80/r", want: "x|--url=HTTP://[redacted]@host:80/r"},
		{in: "pip|install|git+https://0123456789abcdef@host/r", want: "pip|install|git+https://[redacted]@host/r"},
		{in: "x|https://0123456789abcdef:@host/r", want: "x|https://[redacted]@host/r"},
		{in: "x|https://0123456789abcdef:x-oauth-basic@host/r", want: "x|https://[redacted]@host/r"},
		{in: "x|ssh://0123456789abcdef0123@host/r", want: "x|ssh://[redacted]@host/r"},
		{in: "sh|-c|curl https://0123456789abcdef@host/r x", want: "sh|-c|curl https://[redacted]@host/r x"},

		{in: "git|clone|ssh://git@host/r"},
		{in: "git|clone|https://bob@host/r"},
		{in: "git|clone|https://bob:@host/r"},
		{in: "git|clone|https://0123456789abcde@host/r"},
		{in: "ssh|ssh://0123456789abcdef@host/r"},
		{in: "x|https://host/0123456789abcdef@2"},
		{in: "x|https://host:8080/0123456789abcdef@2"},
		{in: "x|https://host/?mail=0123456789abcdef@host"},
		{in: "ssh|0123456789abcdef@host"},
	})
}

func TestRedactShortKeys(t *testing.T) {
	testRedact(t, []redactCase{
		{in: "x|--pw|abc|y", want: "x|--pw|[redacted]|y"},
		{in: "x|--pw=abc|y", want: "x|--pw=[redacted]|y"},
		{in: "plink|-pw|abc|host", want: "plink|-pw|[redacted]|host"},
		{in: "x|--db-pw|abc|ROOT_PW=def|userPw=ghi", want: "x|--db-pw|[redacted]|ROOT_PW=[redacted]|userPw=[redacted]"},
		{in: "x|--auth|abc|y", want: "x|--auth|[redacted]|y"},
		{in: "x|--auth=abc|y", want: "x|--auth=[redacted]|y"},
		{in: "x|--auth|Bearer|abc", want: "x|--auth|Bearer|[redacted]"},
		{in: "http|--auth|bob:abc|x:80", want: "http|--auth|[redacted]|x:80"},
		{in: "sh|-c|x --pw abc --auth def y", want: "sh|-c|x --pw [redacted] --auth [redacted] y"},

		{in: "x|--spw|abc|--draw=1|--raw-pw-file|y"},
		{in: "mongod|--auth|--port|27017"},
		{in: "openvpn|--auth|SHA256|--cipher|x"},
		{in: "code-server|--auth=none|--auth|password|y"},
		{in: "x|--oauth|abc|--auth-type=a|--xauth|b|--auth.enabled=true"},
		{in: "x|--no-auth|y"},
	})
}

func TestRedactOperands(t *testing.T) {
	testRedact(t, []redactCase{
		{in: "vault|login|abc", want: "vault|login|[redacted]"},
		{in: "/opt/vault|login|-no-store|-address=x|abc=", want: "/opt/vault|login|-no-store|-address=x|[redacted]"},
		{in: "bao|login|-namespace|ns|abc|x", want: "bao|login|-namespace|[redacted]|[redacted]|x"},
		{in: "vault|login|-method=userpass|username=bob|password=abc", want: "vault|login|-method=userpass|username=bob|password=[redacted]"},
		{in: "ssh|host|vault login abc", want: "ssh|host|vault login [redacted]"},
		{in: "sh|-c|vault login \\\n  abc; ls", want: "sh|-c|vault login \\\n  [redacted]; ls"},

		{in: "vault|login|-"},
		{in: "vault|login|-method=oidc|role=dev"},
		{in: "sh|-c|vault login -method=oidc && ls x"},
		{in: "vault|status|x"},
		{in: "aws-vault|login|prod"},
		{in: "gh|auth|login|x"},

		{in: "htpasswd|-b|/etc/htpasswd|bob|abc", want: "htpasswd|-b|/etc/htpasswd|bob|[redacted]"},
		{in: "htpasswd|-c|-bB|-C|10|f|bob|-abc", want: "htpasswd|-c|-bB|-C|10|f|bob|[redacted]"},
		{in: "htpasswd|-nbBC|10|bob|abc", want: "htpasswd|-nbBC|10|bob|[redacted]"},
		{in: "htpasswd|-n|-b|bob|abc", want: "htpasswd|-n|-b|bob|[redacted]"},
		{in: "docker|run|httpd|htpasswd|-nb|bob|abc", want: "docker|run|httpd|htpasswd|-nb|bob|[redacted]"},
		{in: "sh|-c|htpasswd -b f bob 'a,b' > out", want: "sh|-c|htpasswd -b f bob '[redacted]' > out"},

		{in: "htpasswd|-B|f|bob|x"},
		{in: "htpasswd|-c|f|bob|x"},
		{in: "vim|htpasswd|bob|x"},
		{in: "sh|-c|htpasswd -b f; ls a b c"},
	})
}

//nolint:misspell // the names of the programs
func TestRedactMosquitto(t *testing.T) {
	testRedact(t, []redactCase{
		{in: "mosquitto_pub|-p|1883|-u|bob|-P|abc|-t|x", want: "mosquitto_pub|-p|1883|-u|bob|-P|[redacted]|-t|x"},
		{in: "/usr/bin/mosquitto_sub|-P|abc", want: "/usr/bin/mosquitto_sub|-P|[redacted]"},
		{in: "mosquitto_sub|--pw|abc", want: "mosquitto_sub|--pw|[redacted]"},

		{in: "mosquitto_sub|-p|1883|-t|x"},
		{in: "mosquitto|-P|x"},
	})
}

func TestRedactOptionsOfCommands(t *testing.T) {
	testRedact(t, []redactCase{
		{in: "xfreerdp|/u:bob|/p:a:b|/v:host", want: "xfreerdp|/u:bob|/p:[redacted]|/v:host"},
		{in: "xfreerdp3|/gp:abc|/pth:def|/port:1", want: "xfreerdp3|/gp:[redacted]|/pth:[redacted]|/port:1"},
		{in: "sh|-c|xfreerdp /u:bob /p:abc /v:host", want: "sh|-c|xfreerdp /u:bob /p:[redacted] /v:host"},
		{in: "sshpass|-pabc|ssh|host", want: "sshpass|-p[redacted]|ssh|host"},
		{in: "sshpass|-p|abc|ssh|host", want: "sshpass|-p|[redacted]|ssh|host"},
		{in: "mysql|-pabc|shop", want: "mysql|-p[redacted]|shop"},

		{in: "xfreerdp|/p:|/port:3389|/app:x|/"},
		{in: "x|/p:abc"},
		{in: "sshpass|-f|file|ssh|-p|22|host"},
		{in: "mysql|-p|shop|-P|3306"},
		{in: "mkdir|-p|abc"},
		{in: "mkdir|-pabc"},
	})
}

// What is replaced must leave no quote open: behind it what is quoted would look
// free, and a value could end at its first quote.
func TestRedactKeepsQuotesClosed(t *testing.T) {
	testRedact(t, []redactCase{
		{in: `sh|-c|sshpass -p "x" y --password="a b" z`, want: `sh|-c|sshpass -p "[redacted]" y --password=[redacted] z`},
		{in: `sh|-c|curl -u "bob:pw" --password="a b"`, want: `sh|-c|curl -u "bob:[redacted]" --password=[redacted]`},
		{in: `sh|-c|mysql -p"a b" --token='c d'`, want: `sh|-c|mysql -p[redacted] --token=[redacted]`},
		{in: "sh|-c|mysql -phun,ter2} shop", want: "sh|-c|mysql -p[redacted] shop"},
		{in: "sh|-c|(mysql -pabc)", want: "sh|-c|(mysql -p[redacted])"},
		{in: "sh|-c|curl x 2>&1 -u \\\n bob:pw", want: "sh|-c|curl x 2>&1 -u \\\n bob:[redacted]"},
	})
}

func TestRedactCommandsWithoutSecretAllocateNothing(t *testing.T) {
	r := redactor(t)
	for _, line := range []string{
		"curl|-sSf|--user|bob|-b|jar|https://bob@host/",
		"aws|configure|set|region|eu-west-1",
		"vault|login|-method=oidc|role=dev",
		"htpasswd|-B|f|bob",
		"xfreerdp|/u:bob|/v:host",
		"sh|-c|curl -o x https://host/ && vault status",
		"git|commit|-m|a text of some words",
	} {
		args := strings.Split(line, "|")
		if n := testing.AllocsPerRun(100, func() { r.Redact(args) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}
