package event

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func redactor(t testing.TB, patterns ...string) *Redactor {
	t.Helper()
	r, err := NewRedactor(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Arguments are separated by a bar, so that they can hold blanks.
func TestRedactCommandLines(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"mysql|-u|root|-phunter2|shop", "mysql|-u|root|-p[redacted]|shop"},
		{"mysql|-u|root|-p|shop", "mysql|-u|root|-p|shop"},
		{"/usr/bin/mysqldump|--password=hun ter;2|db", "/usr/bin/mysqldump|--password=[redacted]|db"},
		{"mysql|--password|hunter2", "mysql|--password|[redacted]"},
		{"mysql|--password|--host|db1", "mysql|--password|--host|db1"},
		{"sudo|-u|op|mariadb-admin|-phunter2|status", "sudo|-u|op|mariadb-admin|-p[redacted]|status"},
		{"sshpass|-p|hunter2|ssh|-p|22|host", "sshpass|-p|[redacted]|ssh|-p|22|host"},
		{"sshpass|-phunter2|ssh|host", "sshpass|-p[redacted]|ssh|host"},
		{"ssh|-p|2222|host", "ssh|-p|2222|host"},
		{"curl|-u|bob:hunter2|https://x/", "curl|-u|bob:[redacted]|https://x/"},
		{"curl|-sSu|bob:hun:ter2|https://x/", "curl|-sSu|bob:[redacted]|https://x/"},
		{"curl|-ubob:hunter2|x", "curl|-ubob:[redacted]|x"},
		{"curl|--user=bob:hunter2|x", "curl|--user=bob:[redacted]|x"},
		{"curl|--proxy-user|bob:hunter2|x", "curl|--proxy-user|bob:[redacted]|x"},
		{"curl|-u|bob|x", "curl|-u|bob|x"},
		{"curl|-H|Authorization: Bearer abc.def|x", "curl|-H|Authorization: Bearer [redacted]|x"},
		{"curl|-H|authorization: Basic Ym9iOnB3|x", "curl|-H|authorization: Basic [redacted]|x"},
		{"curl|-H|X-Api-Key: abc def|x", "curl|-H|X-Api-Key: [redacted]|x"},
		{"curl|-H|X-Auth-Token:abc|x", "curl|-H|X-Auth-Token:[redacted]|x"},
		{"curl|--header=Authorization: token abc|x", "curl|--header=Authorization: token [redacted]|x"},
		{"curl|-H|Authorization:|Bearer|abc", "curl|-H|Authorization:|Bearer|[redacted]"},
		{"curl|-H|Cookie: a=b; c=d", "curl|-H|Cookie: [redacted]"},
		{"curl|-H|Accept: text/html|https://x:8080/a@b", "curl|-H|Accept: text/html|https://x:8080/a@b"},
		{
			`curl|-d|{"user":"bob","password":"hun,ter}2","n":1}`,
			`curl|-d|{"user":"bob","password":[redacted],"n":1}`,
		},
		{`curl|-d|{"api_key" : "abc"}`, `curl|-d|{"api_key" : [redacted]}`},
		{`sh|-c|curl -d "{\"token\":\"a,b\"}" x`, `sh|-c|curl -d "{\"token\":[redacted]}" x`},
		{"curl|-d|user=bob&password=hunter2&x=1", "curl|-d|user=bob&password=[redacted]&x=1"},
		{"curl|-d|user[password]=hunter2", "curl|-d|user[password]=[redacted]"},
		{"curl|https://x/cb?code=1&access_token=abc&n=2#top", "curl|https://x/cb?code=1&access_token=[redacted]&n=2#top"},
		{"git|clone|https://bob:hunter2@git.example/r.git", "git|clone|https://bob:[redacted]@git.example/r.git"},
		{"git|clone|https://bob:hun@ter@git.example/r.git", "git|clone|https://bob:[redacted]@git.example/r.git"},
		{"git|clone|https://0123456789abcdef0123456789abcdef@github.com/r", "git|clone|https://[redacted]@github.com/r"},
		{"git|clone|https://bob@git.example/r.git", "git|clone|https://bob@git.example/r.git"},
		{"psql|postgres://u:p/w?x@db:5432/shop?sslmode=off", "psql|postgres://u:[redacted]@db:5432/shop?sslmode=off"},
		{"x|--dsn=postgres://u:pw@db/shop", "x|--dsn=postgres://u:[redacted]@db/shop"},
		{"x|redis://:pw@cache:6379/0", "x|redis://:[redacted]@cache:6379/0"},
		{"ssh|ssh://[::1]:22/a@b", "ssh|ssh://[::1]:22/a@b"},
		{"env|PGPASSWORD=hunter2|psql|-h|db", "env|PGPASSWORD=[redacted]|psql|-h|db"},
		{"env|PWD=/root|OLDPWD=/|MYSQL_PWD=x|ls", "env|PWD=/root|OLDPWD=/|MYSQL_PWD=[redacted]|ls"},
		{"sh|-c|PGPASSWORD=hunter2 psql -h db", "sh|-c|PGPASSWORD=[redacted] psql -h db"},
		{`bash|-lc|export TOKEN="a b;c"; run --x`, "bash|-lc|export TOKEN=[redacted]; run --x"},
		{"sh|-c|mysql -uroot -phunter2 shop && ls", "sh|-c|mysql -uroot -p[redacted] shop && ls"},
		{"ssh|db|mysqldump -p'hun ter2' shop", "ssh|db|mysqldump -p[redacted] shop"},
		{"x|a, b} -c (d)", "x|a, b} -c (d)"},
		{"sh|-c|sshpass -p hunter2 ssh host", "sh|-c|sshpass -p [redacted] ssh host"},
		{"sh|-c|login --password hunter2 --user bob", "sh|-c|login --password [redacted] --user bob"},
		{`sh|-c|curl -H "Authorization: Bearer abc def" https://x`, `sh|-c|curl -H "Authorization: Bearer [redacted]" https://x`},
		{"docker|login|-u|bob|-p|hunter2|reg", "docker|login|-u|bob|-p|[redacted]|reg"},
		{"docker|login|--password-stdin|reg", "docker|login|--password-stdin|reg"},
		{"docker|run|-p|80:80|-e|DB_PASSWORD=x|web", "docker|run|-p|80:80|-e|DB_PASSWORD=[redacted]|web"},
		{"docker|run|-eMYSQL_ROOT_PASSWORD=x|mysql:8", "docker|run|-eMYSQL_ROOT_PASSWORD=[redacted]|mysql:8"},
		{"docker|build|--build-arg|NPM_TOKEN=x|.", "docker|build|--build-arg|NPM_TOKEN=[redacted]|."},
		{"kubectl|--token=abc|get|secrets", "kubectl|--token=[redacted]|get|secrets"},
		{
			"kubectl|create|secret|generic|db|--from-literal=password=a&b;c",
			"kubectl|create|secret|generic|db|--from-literal=password=[redacted]",
		},
		{"kubectl|config|set-credentials|bob|--token|abc", "kubectl|config|set-credentials|bob|--token|[redacted]"},
		{"helm|install|x|--set|auth.password=a b|c", "helm|install|x|--set|auth.password=[redacted]|c"},
		{
			"aws|configure|set|aws_secret_access_key=wJalr|AKIAIOSFODNN7EXAMPLE",
			"aws|configure|set|aws_secret_access_key=[redacted]|[redacted]",
		},
		{"aws|s3|ls|--profile|prod", "aws|s3|ls|--profile|prod"},
		{"openssl|rsa|-passin|pass:hunter2|-in|k.pem", "openssl|rsa|-passin|pass:[redacted]|-in|k.pem"},
		{"openssl|rsa|-passin|file:/etc/pw|-passout|env:PW", "openssl|rsa|-passin|file:/etc/pw|-passout|env:PW"},
		{"openssl|enc|-aes-256-cbc|-k|hunter2", "openssl|enc|-aes-256-cbc|-k|[redacted]"},
		{"java|-Djavax.net.ssl.keyStorePassword=x|-jar|a.jar", "java|-Djavax.net.ssl.keyStorePassword=[redacted]|-jar|a.jar"},
		{"redis-cli|-h|c|-a|hunter2", "redis-cli|-h|c|-a|[redacted]"},
		{"smbclient|//s/x|-U|bob%hunter2", "smbclient|//s/x|-U|bob%[redacted]"},
		{"mount|-o|username=bob,password=hunter2,vers=3", "mount|-o|username=bob,password=[redacted],vers=3"},
		{"x|Server=db;User=sa;Password=hunter2;Timeout=5", "x|Server=db;User=sa;Password=[redacted];Timeout=5"},
		{"x|--client-secret|abc|--api-key|def|--apiKey=ghi", "x|--client-secret|[redacted]|--api-key|[redacted]|--apiKey=[redacted]"},
		{"x|token=|y", "x|token=|y"},
		{"x|-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "x|[redacted]"},
		{"gh|auth|ghp_0123456789abcdefghijklmnopqrstuvwxyzAB", "gh|auth|[redacted]"},
		{"x|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_", "x|[redacted]"},
		// Only the word is there.
		{"cat|/etc/token.d/x", "cat|/etc/token.d/x"},
		{"vim|/etc/secret=1/token:2", "vim|/etc/secret=1/token:2"},
		{"grep|-r|password|.", "grep|-r|password|."},
		{"man|passwd", "man|passwd"},
		{"apiserver|--token-auth-file=/etc/t|--authorization-mode=Node,RBAC", "apiserver|--token-auth-file=/etc/t|--authorization-mode=Node,RBAC"},
		{"llm|--max-tokens|512|--bypass=1|--compass|n", "llm|--max-tokens|512|--bypass=1|--compass|n"},
		{"psql|--no-password|shop", "psql|--no-password|shop"},
		{"login|--password|-|x", "login|--password|-|x"},
		{"x|--secret-name=foo|--password-file|/run/p", "x|--secret-name=foo|--password-file|/run/p"},
	} {
		in := strings.Split(test.in, "|")
		before := slices.Clone(in)
		got := redactor(t).Redact(in)
		if joined := strings.Join(got, "|"); joined != test.want {
			t.Errorf("Redact(%s)\n got %s\nwant %s", test.in, joined, test.want)
		}
		if diff := cmp.Diff(before, in); diff != "" {
			t.Errorf("Redact(%s) changed its input:\n%s", test.in, diff)
		}
		if again := redactor(t).Redact(got); !slices.Equal(again, got) {
			t.Errorf("Redact twice of %s: %q then %q", test.in, got, again)
		}
	}
}

func TestRedactPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern, in, want string
	}{
		{"ssn", "x|--customer-SSN=1|ssn|y", "x|--customer-SSN=[redacted]|ssn|y"},
		{"^pin$", "x|--pin|1234|--spin|2", "x|--pin|[redacted]|--spin|2"},
		{"^pin$", `x|{"pin": 12, "n": 1}`, `x|{"pin": [redacted], "n": 1}`},
		{`value:\b\d{4}-\d{4}\b`, "x|card 1234-5678 ok", "x|card [redacted] ok"},
		{`value:$1`, "x|--a=$1", "x|--a=$1"}, // $ is an anchor and never in the middle
	} {
		got := redactor(t, test.pattern).Redact(strings.Split(test.in, "|"))
		if joined := strings.Join(got, "|"); joined != test.want {
			t.Errorf("pattern %q: Redact(%s)\n got %s\nwant %s", test.pattern, test.in, joined, test.want)
		}
	}
}

func TestNewRedactorNamesEveryFault(t *testing.T) {
	_, err := NewRedactor([]string{"ok", "a(", "value:x*", ""})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"a("`, `"value:x*"`, `""`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), `"ok"`) {
		t.Errorf("error names a good pattern: %v", err)
	}
}

func TestRedactWithoutSecretAllocatesNothing(t *testing.T) {
	args := []string{"/usr/bin/python3", "-m", "http.server", "--bind=127.0.0.1", "--directory", "/srv/data:ro", "https://x/?a=b"}
	r := redactor(t)
	if got := r.Redact(args); &got[0] != &args[0] {
		t.Error("not the same slice")
	}
	if n := testing.AllocsPerRun(100, func() { r.Redact(args) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := r.Redact(nil); got != nil {
		t.Errorf("Redact(nil) = %q", got)
	}
}

// A secret in the place of a value never comes through, whatever it consists of.
func TestRedactLeavesNoSecret(t *testing.T) {
	r := redactor(t)
	const tail = "zZsecretZz"
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.String().Draw(t, "secret") + tail
		key := rapid.SampledFrom([]string{"password", "DB_TOKEN", "api-key", "clientSecret"}).Draw(t, "key")
		for _, args := range [][]string{
			{"x", "--" + key + "=" + secret},
			{"x", key + "=" + secret},
			{"x", "--set=" + key + "=" + secret},
			{"x", "--" + key, "v" + secret},
			{"sshpass", "-p", secret},
			{"mysql", "-p" + secret},
			{"curl", "-u", "user:" + secret},
			{"curl", "-b", "sid=" + secret},
			{"x", "configure", "set", key, "v" + secret},
			{"htpasswd", "-b", "file", "user", secret},
			{"xfreerdp", "/p:" + secret},
		} {
			got := r.Redact(args)
			if joined := strings.Join(got, " "); strings.Contains(joined, tail) {
				t.Fatalf("Redact(%q) = %q", args, got)
			}
		}
	})
}

func TestRedactTakesAnything(t *testing.T) {
	r := redactor(t)
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
			"--password", "token=", "a: ", `"`, `\"`, "'", "://", "u:p@", "Bearer ", " ", "=", ":", "-p", "mysql", "sh", "-c", ";", "[redacted]", "pass:",
			"curl", "-b", "vault", "login", "config", "set", "htpasswd", "xfreerdp", "/p:", "https://", "\\\n",
		}))
		arg := rapid.Map(rapid.SliceOfN(part, 0, 6), func(parts []string) string { return strings.Join(parts, "") })
		args := rapid.SliceOfN(arg, 0, 6).Draw(t, "args")
		before := slices.Clone(args)
		got := r.Redact(args)
		if len(got) != len(args) || !slices.Equal(args, before) {
			t.Fatalf("Redact(%q) = %q, input now %q", before, got, args)
		}
	})
}

func TestRedactBoundsItsWork(t *testing.T) {
	r := redactor(t, "x{2}y")
	for _, hostile := range []string{
		"=", ":", " ", "a=", "--token ", "://", "://a:b/", "a:b@", `\"`, `"`, "'", "token=", `token="`, `token=\"`, " = ",
		"Bearer ", "eyJ", "-----BEGIN PRIVATE KEY-----", "password:", "x-", "-", "mysql -p", ", -", "(} ", "\x00", "earer  ",
		"vault login ", "config set token ", "htpasswd -b a b ", "https://a:@", "\\\n", "2>&",
	} {
		args := []string{"sh", "-c", strings.Repeat(hostile, maxRedactBytes/len(hostile)), `"`, "@"}
		began := time.Now()
		r.Redact(args)
		r.Redact([]string{strings.Repeat(hostile, 1+maxRedactBytes/len(hostile)/2) + `" @`})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%q repeated takes %v", hostile, took)
		} else {
			t.Logf("%q: %v", hostile, took)
		}
	}

	many := make([]string, maxRedactArgs+10)
	if got := r.Redact(many); got[maxRedactArgs-1] != "" || got[maxRedactArgs] != Redacted {
		t.Error("arguments past the bound are not replaced")
	}
	long := []string{strings.Repeat("a", maxRedactBytes) + "tail", "next"}
	got := r.Redact(long)
	if len(got[0]) != maxRedactBytes+len(Redacted) || got[1] != Redacted {
		t.Errorf("argument past the bound: %d bytes, then %q", len(got[0]), got[1])
	}
}

// FuzzRedact: any command line comes to an end, with as many arguments.
func FuzzRedact(f *testing.F) {
	r := redactor(f, "^pin$", `value:\d{4}-\d{4}`)
	for _, line := range []string{
		"mysql|-phunter2", `sh|-c|curl -H "Authorization: Bearer x" -d '{"token":"a\\"b"}' https://u:p@h/`,
		"curl|-u|a:b|--pin|1", `x|{\"password\":\"x\"}|a, b} -c (d)`, "x|-----BEGIN PRIVATE KEY-----",
		"htpasswd|-bC|1|f|u|p", "x|vault login \\\n a=b c 2>&1", "aws|configure|set|token|a|https://a:@h", "xfreerdp|/p:x",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "|")
		before := slices.Clone(args)
		got := r.Redact(args)
		if len(got) != len(args) || !slices.Equal(args, before) {
			t.Fatalf("Redact(%q) = %q, input now %q", before, got, args)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	r := redactor(b)
	args := []string{"/usr/lib/jvm/java/bin/java", "-Xmx4g", "-Dlog.level=info", "-cp", "/opt/app/lib/a.jar:/opt/app/lib/b.jar", "com.example.Main", "--port=8080", "--config", "/etc/app/config.yaml"}
	b.ReportAllocs()
	for b.Loop() {
		r.Redact(args)
	}
}
