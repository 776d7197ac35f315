package event

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// contract are the keys that every event has.
var contract = []string{
	"seq", "epoch", "kind", "source", "time", "observed", "process_id", "pid", "ppid", "parent_id", "name", "exe", "args",
	"uid", "gid", "start_time", "exit_code", "changes", "hash", "missing",
}

func object(t fataler, e *Event) map[string]any {
	t.Helper()
	b := AppendJSON([]byte("before"), e)
	b, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok {
		t.Fatalf("AppendJSON changed what was in dst")
	}
	if !utf8.Valid(b) || bytes.ContainsAny(b, "\n\r\x00") {
		t.Fatalf("not one line of UTF-8: %q", b)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	for _, key := range contract {
		if _, ok := m[key]; !ok {
			t.Fatalf("no key %q in %s", key, b)
		}
	}
	return m
}

func TestJSONGolden(t *testing.T) {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(sampleEvents())) {
		b = append(AppendJSON(b, sampleEvents()[name]), '\n')
	}
	want := golden(t, "events.jsonl", string(b))
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(b), "\n")); diff != "" {
		t.Errorf("JSON changed (-want +got):\n%s", diff)
	}
}

func TestJSONValues(t *testing.T) {
	full := object(t, sampleEvents()["stop"])
	for key, want := range map[string]any{
		"seq":         300.0,
		"epoch":       "e0000000000000000000000000000001",
		"kind":        "stop",
		"source":      "recovered",
		"cause":       "boot",
		"time":        "2026-03-01T12:30:45.123456789Z",
		"observed":    "2026-03-01T12:30:46.123456789Z",
		"name":        `sh\xff`,
		"args":        []any{"sh", "-c", "", `echo \\ \xfe\x0a`},
		"exit_code":   nil,
		"signal":      9.0,
		"core_dumped": true,
		"max_rss":     4096.0,
		"namespaces":  []any{map[string]any{"type": "net", "inode": 4026532000.0}, map[string]any{"type": "mnt", "inode": 4026532001.0}},
		"hash":        map[string]any{"algorithm": "sha256", "value": "dead", "status": "skipped", "reason": "a reason"},
		"missing": map[string]any{
			"tty": "gone", "exe": "denied", "env": "denied", "capabilities": "unsupported", "cgroup": "failed",
			"args": "truncated", "name": "inherited",
		},
		"cpu_ms": 1500.0,
	} {
		if diff := cmp.Diff(want, full[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	for _, key := range []string{"login_uid", "tty", "capabilities", "not_before", "loss", "sensor"} {
		if v, ok := full[key]; ok {
			t.Errorf("%s is there: %v", key, v)
		}
	}
}

// Null says that it is not known; 0, "" and [] are the truth.
func TestJSONNull(t *testing.T) {
	all := ^FieldSet(0)
	for _, test := range []struct {
		name string
		e    Event
		want map[string]any
	}{
		{"kernel thread", Event{Kind: KindStart, Process: Process{PID: 2}}, map[string]any{
			"pid": 2.0, "ppid": 0.0, "parent_id": nil, "name": "", "exe": "", "args": []any{}, "uid": 0.0, "gid": 0.0,
			"start_time": nil, "exit_code": nil, "changes": []any{}, "hash": nil, "missing": map[string]any{}, "time": nil, "epoch": nil,
		}},
		{"nothing read", Event{Kind: KindStart, Process: Process{PID: 2, Missing: Mask{Gone: all}}}, map[string]any{
			"pid": 2.0, "ppid": nil, "name": nil, "exe": nil, "args": nil, "uid": nil, "gid": nil,
		}},
		{"loss", Event{Kind: KindLoss, Loss: &Loss{Cause: LossDown}}, map[string]any{
			"process_id": nil, "pid": nil, "ppid": nil, "name": nil, "exe": nil, "args": nil, "uid": nil, "exit_code": nil, "hash": nil,
			"loss": map[string]any{"cause": "down", "from": nil, "to": nil, "count": nil},
		}},
		{"exit 0", Event{Kind: KindStop, Exit: &Exit{}}, map[string]any{"exit_code": 0.0}},
		{"exit unknown", Event{Kind: KindStop}, map[string]any{"exit_code": nil}},
		{"init", Event{Process: Process{CapEffective: 0x1ffffffffff, LoginUID: unsetUID, LoginSession: unsetUID}}, map[string]any{
			"capabilities": "000001ffffffffff", "login_uid": nil, "login_session": nil, "rss_kind": "approximate",
		}},
		{"later kind", Event{Kind: 200}, map[string]any{"kind": "#200"}},
	} {
		got := object(t, &test.e)
		for key, want := range test.want {
			if diff := cmp.Diff(want, got[key]); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", test.name, key, diff)
			}
		}
	}
}

func TestJSONIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		m := object(t, e)
		if e.Kind == KindLoss || e.Kind == KindSensor || e.Process.Name == "" {
			return
		}
		name, err := Untext(m["name"].(string))
		if err != nil || name != e.Process.Name {
			t.Fatalf("name %q comes back as %q, %v", e.Process.Name, name, err)
		}
	})
}

// Every key and every field is documented.
func TestJSONKeysAreDocumented(t *testing.T) {
	docs, err := os.ReadFile("../../docs/events-json.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range sampleEvents() {
		e.Process.Missing = Mask{}
		e.Process.LoginUID = 1000
		for key, value := range object(t, e) {
			wantDocumented(t, docs, name, key)
			if inner, ok := value.(map[string]any); ok {
				for key := range inner {
					wantDocumented(t, docs, name, key)
				}
			}
		}
	}
	for f := range fieldCount {
		wantDocumented(t, docs, "field", f.String())
	}
}

func wantDocumented(t *testing.T, docs []byte, name, key string) {
	t.Helper()
	if !bytes.Contains(docs, []byte("`"+key+"`")) {
		t.Errorf("%s: docs/events-json.md does not name `%s`", name, key)
	}
}

func TestTextGolden(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"plain text/1.0 'x' \"y\"": "plain text/1.0 'x' \"y\"",
		"grün 日本 😀":                "grün 日本 😀",
		"a\\b":                     `a\\b`,
		"\\xff":                    `\\xff`,
		"\xff":                     `\xff`,
		"tab\tline\n\x00\x7f":      `tab\x09line\x0a\x00\x7f`,
		"\u009b31m":                `\xc2\x9b31m`,
		"\u202egnp.exe":            `\xe2\x80\xaegnp.exe`,
		"\u2028":                   `\xe2\x80\xa8`,
		"ss\u200bhd\u00ad":         `ss\xe2\x80\x8bhd\xc2\xad`,
		"\uFFFD":                   "\uFFFD",
		"cut \xe6\x97":             `cut \xe6\x97`,
		"\xed\xa0\x80":             `\xed\xa0\x80`,
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %s, want %s", in, got, want)
		}
	}
	for _, bad := range []string{`\`, `\x`, `\x4`, `\xFF`, `\n`, `\x41`, "\xff", "a\n"} {
		if got, err := Untext(bad); err == nil {
			t.Errorf("Untext(%q) = %q", bad, got)
		}
	}
}

var printable = regexp.MustCompile(`^[^\x00-\x1f\x7f]*$`)

// FuzzText: the text of any bytes is printable and gives them back, so no two
// are alike.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a\\b\xff", "\u202e", "\\x41", "\xf0\x9f\x98", "\xc2\x85"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := Text(s)
		if !utf8.ValidString(text) || !printable.MatchString(text) {
			t.Fatalf("Text(%q) = %q", s, text)
		}
		if back, err := Untext(text); err != nil || back != s {
			t.Fatalf("Untext(Text(%q)) = %q, %v", s, back, err)
		}
	})
}

// FuzzJSON: whatever a host says, it is valid JSON that says it.
func FuzzJSON(f *testing.F) {
	f.Add("sh", "a\"b\\\xff\n", "\u2028", int64(1), uint64(1), byte('S'), byte(1))
	f.Add("", "", "", int64(-1), uint64(1)<<63, byte(0xff), byte(6))
	f.Fuzz(func(t *testing.T, a, b, c string, n int64, u uint64, state, kind byte) {
		e := &Event{
			Seq: u, Kind: Kind(kind), Time: time.Unix(n, 0), Observed: time.Unix(0, n), Cause: a, HostID: b, BootID: c,
			Process: Process{
				Name: a, Exe: b, Args: []string{a, b, c}, CWD: c, Cgroup: a, ContainerID: b, Env: []string{c}, PID: int32(n),
				Namespaces: []Namespace{{a, u}}, State: State(state), RSS: u, RSSKind: RSSKind(state), CPU: time.Duration(n), StartTime: time.Unix(n, n),
				Hash:    Hash{Algorithm: a, Value: []byte(b), Status: HashStatus(kind), Reason: c},
				Missing: Mask{Gone: FieldSet(u), Failed: FieldSet(n), Inherited: FieldSet(u)},
			},
			Exit:    &Exit{Code: int32(n), MaxRSS: u},
			Changes: []Change{{Field(kind), a, b}},
			Loss:    &Loss{Cause: LossCause(kind), From: time.Unix(n, 0), Hint: a},
			Sensor:  &Sensor{What: SensorWhat(kind), Detail: b, Version: c, PreviousEpoch: Epoch{state}},
		}
		m := object(t, e)
		if args, ok := m["args"].([]any); !ok || args[0] != Text(a) || args[1] != Text(b) || args[2] != Text(c) {
			t.Fatalf("args of %q, %q, %q: %v", a, b, c, m["args"])
		}
	})
}

func BenchmarkJSON(b *testing.B) {
	e := typicalEvent()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendJSON(dst[:0], e)
	}
}
