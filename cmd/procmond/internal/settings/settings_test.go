package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
)

// write makes a configuration file.
func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "procmond.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDefaults(t *testing.T) {
	got, faults, warnings := Resolve(Input{})
	if len(faults)+len(warnings) > 0 {
		t.Fatal(faults, warnings)
	}
	want := Values{
		LogLevel: logrus.InfoLevel, LogFormat: "auto", Interval: 30 * time.Second, MemoryThreshold: 50, CPUThreshold: 50,
		EventDriven: "auto", EventBuffer: 8 << 20, HashMaxSize: 512 << 20, HashRate: 32 << 20,
		Snapshots: "auto", RetentionAge: 72 * time.Hour, RetentionBytes: 1 << 30, Watchdog: time.Minute,
		ID: "procmond", BeginTimeout: time.Minute, MaxBacklog: 512 << 20, DeliverFrom: "oldest", MaxEventsInFlight: 1000,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "interval: 10\nmax_processes: 1\nexclude: [pid:1, pid:2]\nlog_level: debug\n")
	got, faults, _ := Resolve(Input{
		ConfigFlag: &file,
		Environ:    []string{"PROCMOND_INTERVAL=20", "PROCMOND_MAX_PROCESSES=2", "PROCMOND_LOG_LEVEL="},
		Flags:      map[string][]string{"interval": {"25", "40"}, "exclude": {"pid:3"}},
	})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if got.Interval != 40*time.Second || got.MaxProcesses != 2 || got.LogLevel != logrus.DebugLevel {
		t.Errorf("interval %v, want the flag's last; max %d, want the environment's; level %v, want the file's",
			got.Interval, got.MaxProcesses, got.LogLevel)
	}
	if diff := cmp.Diff([]string{"pid:3"}, got.Exclude); diff != "" {
		t.Errorf("a list of a higher place replaces: %s", diff)
	}
}

func TestEnvironmentNames(t *testing.T) {
	got, faults, warnings := Resolve(Input{Environ: []string{"PROCMOND_ENV_ALLOW=LANG,TZ"}})
	if len(faults) > 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "no effect without enhanced-metadata") {
		t.Errorf("faults %v, warnings %q", faults, warnings)
	}
	if diff := cmp.Diff([]string{"LANG", "TZ"}, got.EnvAllow); diff != "" {
		t.Error(diff)
	}
	got, faults, warnings = Resolve(Input{Flags: map[string][]string{"enhanced-metadata": {"true"}, "env-allow": {"LANG"}}})
	if len(faults)+len(warnings) > 0 || !got.EnhancedMetadata {
		t.Errorf("faults %v, warnings %q, %+v", faults, warnings, got)
	}
	many := slices.Repeat([]string{"LANG"}, maxEnvNames+1)
	for want, names := range map[string][]string{"without a value": {"LANG=C"}, "too many": many, "want the name": {""}, "without": {"a\x00b"}} {
		_, faults, _ := Resolve(Input{Flags: map[string][]string{"env-allow": names}})
		if len(faults) != 1 || !strings.Contains(faults.Error(), want) {
			t.Errorf("%q: faults %v, want one with %q", names, faults, want)
		}
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	file := write(t, strings.Join([]string{
		"intervall: 30", "interval: [1]", "max_processes: &a 5", "max_processes: 6", "watchdog: *a",
		"log_level: loud", "retention: ~", "exclude:", "  - pid:1", "  - {a: b}", "collection_interval: 5",
	}, "\n"))
	_, faults, warnings := Resolve(Input{
		ConfigFlag: &file,
		Environ:    []string{"PROCMOND_INTERVAL=2", "PROCMOND_INTERVALL=3", "PROCMOND_PORT=tcp://10.0.0.1:80"},
		Flags:      map[string][]string{"host-id": {"a b"}, "metrics-listen": {"70000"}},
	})
	want := []string{
		`FILE:1: unknown setting "intervall": did you mean "interval"?`,
		`FILE:2: interval: want one value: 5 to 3600 seconds (or 5s to 1h)`,
		`FILE:4: max_processes: given before in line 3`,
		`FILE:5: watchdog: aliases are not accepted: write the value out`,
		`FILE:7: retention: no value: want an age`,
		`FILE:10: exclude: want a value or a list of values`,
		`FILE:11: unknown setting "collection_interval": did you mean "interval"?`,
		`FILE:6: log_level: "loud": want trace, debug, info, warning or error`,
		`flag --metrics-listen: "70000": want a port from 1 to 65535`,
		`flag --host-id: "a b": host id "a b"`,
		`environment PROCMOND_INTERVAL: "2": want 5s to 1h0m0s, in steps of 1s`,
	}
	if len(faults) != len(want) {
		t.Errorf("%d faults, want %d:\n%v", len(faults), len(want), faults)
	}
	all := strings.ReplaceAll(faults.Error(), "file "+file, "FILE")
	for _, w := range want {
		if !strings.Contains(all, w) {
			t.Errorf("not named: %s\nin:\n%s", w, all)
		}
	}
	if diff := cmp.Diff([]string{`environment PROCMOND_INTERVALL: unknown setting: did you mean "PROCMOND_INTERVAL"?`}, warnings); diff != "" {
		t.Error(diff)
	}
}

func TestHostileFiles(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	for name, c := range map[string]struct{ text, want string }{
		"not YAML":          {"interval: [", ".yaml:1: "},
		"a list":            {"- interval\n", "want a mapping"},
		"a scalar":          {"interval", "want a mapping"},
		"two documents":     {"interval: 30\n---\ninterval: 40\n", "want one YAML document"},
		"too large":         {strings.Repeat("#", maxFile+1), "larger than 1048576 bytes"},
		"a bomb":            {bomb, `unknown setting "a"`},
		"merge":             {"<<: {interval: 5}\n", `unknown setting "<<"`},
		"a mapping as key":  {"? {a: b}\n: 1\n", "want the name of a setting"},
		"bytes":             {"interval: \xff\xfe\n", "file"},
		"a control":         {"host_id: \"a\\0b\"\n", "host_id"},
		"a very long value": {"database: " + strings.Repeat("x", 5000), "too long"},
		"deep":              {"interval: " + strings.Repeat("[", 20000), "depth"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, c.text)
			got, faults, _ := Resolve(Input{ConfigFlag: &file})
			if len(faults) == 0 || !strings.Contains(faults.Error(), c.want) {
				t.Errorf("faults %q, want one with %q", faults, c.want)
			}
			if got.Interval != 30*time.Second {
				t.Errorf("interval %v, want the default", got.Interval)
			}
		})
	}
}

// TestSyntaxErrorsNameTheirLine, also on the first line and where the library counts
// another.
func TestSyntaxErrorsNameTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"a: b: c\n":                          ":1: mapping values are not allowed",
		"interval: 10\na: b: c\n":            ":2: mapping values are not allowed",
		"\ta: 1\n":                           ":1: found character that cannot start any token",
		"# x\n# y\n\ta: 1\n":                 ":3: found character that cannot start any token",
		"[1, 2\n":                            ":1: did not find expected ',' or ']'",
		"interval: 10\n- a\n":                ":2: did not find expected key",
		"# c\ninterval: \x01\n":              ":2: control characters are not allowed",
		"# c\n\ninterval: \xff\n":            ":3: invalid leading UTF-8 octet",
		"interval: 10\n---\nb: 1\n":          ":2: want one YAML document, found another",
		"interval: 10\n---\n\nb: {c: [1}}\n": ":4: did not find expected ',' or ']'",
	} {
		name := write(t, text)
		_, faults, _ := Resolve(Input{ConfigFlag: &name})
		if len(faults) != 1 || !strings.HasPrefix(faults[0].Error(), "file "+name+want) {
			t.Errorf("%q: %v, want %s", text, faults, want)
		}
	}
}

// TestManyFaults: a file that is something else does not fill the screen.
func TestManyFaults(t *testing.T) {
	var text strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&text, "k%d: 1\n", i)
	}
	name := write(t, text.String())
	_, faults, _ := Resolve(Input{ConfigFlag: &name})
	lines := strings.Split(faults.Error(), "\n")
	if len(faults) != 60_000 || len(lines) != cli.MostFaults+1 || lines[cli.MostFaults] != "and 59980 more" {
		t.Errorf("%d faults in %d lines, the last is %q", len(faults), len(lines), lines[len(lines)-1])
	}
}

func TestFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	if _, faults, _ := Resolve(Input{DefaultFile: missing}); len(faults) > 0 {
		t.Errorf("the default file may be missing: %v", faults)
	}
	for _, name := range []string{missing, dir} {
		if _, faults, _ := Resolve(Input{Environ: []string{"PROCMOND_CONFIG=" + name}}); len(faults) != 1 {
			t.Errorf("%s: faults %v, want one", name, faults)
		}
	}
	if _, faults, _ := Resolve(Input{Environ: []string{"PROCMOND_CONFIG="}, DefaultFile: dir}); len(faults) > 0 {
		t.Errorf("an empty name asks for no file: %v", faults)
	}
	empty := write(t, "# nothing\n")
	if _, faults, _ := Resolve(Input{ConfigFlag: &empty}); len(faults) > 0 {
		t.Errorf("an empty file is no fault: %v", faults)
	}
}

func TestValues(t *testing.T) {
	table := Table()
	for _, c := range []struct {
		name, text, want string // want is empty for a fault
	}{
		{"interval", "5", "5"},
		{"interval", "1h", "3600"},
		{"interval", "90s", "90"},
		{"interval", "4", ""},
		{"interval", "3601", ""},
		{"interval", "5.5s", ""},
		{"interval", "-30", ""},
		{"interval", "9223372036854775807", ""},
		{"interval", "99999999999999999999", ""},
		{"min-process-lifetime", "250", "250"},
		{"min-process-lifetime", "1s", "1000"},
		{"min-process-lifetime", "1us", ""},
		{"memory-change-threshold", "12.5", "12.5"},
		{"memory-change-threshold", "NaN", ""},
		{"memory-change-threshold", "+Inf", ""},
		{"memory-change-threshold", "-1", ""},
		{"max-processes", "4194305", ""},
		{"max-processes", "0x10", ""},
		{"retention", "7d", "168h0m0s,1073741824"},
		{"retention", "2GiB", "72h0m0s,2147483648"},
		{"retention", "24h,512MiB", "24h0m0s,536870912"},
		{"retention", "512MiB,24h", "24h0m0s,536870912"},
		{"retention", "0", "0s,0"},
		{"retention", "0,1GiB", "0s,1073741824"},
		{"retention", "24h,0", "24h0m0s,0"},
		{"retention", "1GiB,1GiB", ""},
		{"retention", "5", ""},
		{"retention", "0,0", "0s,0"},
		{"retention", "-5,1GiB", ""},
		{"retention", "1h,1h", ""},
		{"retention", "1h,1GiB,1h", ""},
		{"retention", "30s", ""},
		{"retention", "1MiB", ""},
		{"retention", "99999999999TiB", ""},
		{"retention", ",", ""},
		{"metrics-listen", "off", ""},
		{"metrics-listen", "9464", "127.0.0.1:9464"},
		{"metrics-listen", ":9464", "127.0.0.1:9464"},
		{"metrics-listen", "0.0.0.0:9464", "0.0.0.0:9464"},
		{"metrics-listen", "[::1]:9464", "[::1]:9464"},
		{"metrics-listen", "localhost:http", ""},
		{"metrics-listen", "::1:9464:x", ""},
		{"watchdog", "0", "0s"},
		{"watchdog", "5", ""},
		{"exclude", "pid:1", "pid:1"},
		{"exclude", "nobody:1", ""},
		{"event-driven", "netlink", ""},
		{"snapshots", "ebpf", ""},
	} {
		var s *Setting
		for i := range table {
			if table[i].Name == c.name {
				s = &table[i]
			}
		}
		v := defaults(table)
		before := s.show(&v)
		fault := s.apply(&v, given{origin: "test", texts: []string{c.text}})
		off := c.name == "metrics-listen" && c.text == "off"
		if c.want == "" && !off {
			if fault == nil {
				t.Errorf("%s %q is accepted as %s", c.name, c.text, s.show(&v))
			}
			if s.show(&v) != before {
				t.Errorf("%s %q: a fault changed the value", c.name, c.text)
			}
			continue
		}
		if fault != nil || s.show(&v) != c.want {
			t.Errorf("%s %q is %q (fault %v), want %q", c.name, c.text, s.show(&v), fault, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Table() {
		if s.Help == "" || s.parse == nil || s.show == nil || s.accepts() == "" || s.Placeholder == "" {
			t.Errorf("%s: the row is not complete", s.Name)
		}
		if seen[s.Name] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestHotAndRestart(t *testing.T) {
	running, _, _ := Resolve(Input{})
	next, _, _ := Resolve(Input{Flags: map[string][]string{"interval": {"60"}, "retention": {"24h"}, "redact": {"x"}}})
	if got := Hot(&next)["collection_interval"]; got != "60" {
		t.Errorf("collection_interval %q, want 60", got)
	}
	if diff := cmp.Diff([]string{"retention", "redact"}, RestartRequired(&running, &next)); diff != "" {
		t.Error(diff)
	}
}

func TestExampleIsAccepted(t *testing.T) {
	file := write(t, Example)
	got, faults, _ := Resolve(Input{ConfigFlag: &file})
	if len(faults) > 0 || got.Interval != 15*time.Second || len(got.Exclude) != 2 {
		t.Errorf("%+v, faults %v", got, faults)
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(Example))
	f.Add([]byte("a: &a [*a]\n<<: *a\n? [x]\n: ~\n"))
	table := Table()
	f.Fuzz(func(t *testing.T, text []byte) {
		found, faults := parseFile(table, "f", text)
		for name := range found {
			if len(found[name]) == 0 || len(found[name][0].texts) == 0 {
				t.Errorf("%s has no text", name)
			}
		}
		for _, fault := range faults {
			if strings.Contains(fault.What, "\n") {
				t.Errorf("a fault of more than one line: %q", fault.What)
			}
		}
	})
}

func TestDeliverySettings(t *testing.T) {
	for text, want := range map[string]time.Duration{"never": -1, "0": 0, "5": 5 * time.Second, "2m": 2 * time.Minute} {
		v, faults, _ := Resolve(Input{Flags: map[string][]string{"begin-timeout": {text}}})
		if len(faults) > 0 || v.BeginTimeout != want {
			t.Errorf("%s: %v %v, want %v", text, v.BeginTimeout, faults, want)
		}
	}
	for flag, texts := range map[string][]string{
		"begin-timeout": {"-1", "soon", "25h"}, "max-backlog": {"1023KiB", "0", "-1", "2TiB", "x"},
		"deliver-from": {"then"}, "max-events-in-flight": {"0", "1001", "many"}, "id": {"a.b", "lifecycle", "*"},
	} {
		for _, text := range texts {
			if _, faults, _ := Resolve(Input{Flags: map[string][]string{flag: {text}}}); len(faults) != 1 {
				t.Errorf("--%s %s: %v", flag, text, faults)
			}
		}
	}
	v, faults, _ := Resolve(Input{Flags: map[string][]string{"max-backlog": {"1GiB"}}})
	if len(faults) > 0 || v.MaxBacklog != 1<<30 {
		t.Errorf("%d %v", v.MaxBacklog, faults)
	}
}
