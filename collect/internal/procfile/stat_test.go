package procfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"daemoneye.dev/procmond/collect/event"
)

// statLine is a line of kernel 6.18 with the name and the exit code given.
func statLine(comm string, exit int) string {
	return fmt.Sprintf("4711 (%s) S 815 4711 815 34816 -1 4194304 98 7 6 5 250 50 9 8 20 0 3 0 275790 3133440 362 "+
		"18446744073709551615 94248873189376 94248873209257 140733729086000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 "+
		"94248873225264 94248873226880 94249401368576 140733729090037 140733729090057 140733729090057 "+
		"140733729091563 %d\n", comm, exit)
}

var wantStat = Stat{
	PID: 4711, PPID: 815, State: 'S', Session: 815, TTY: 34816, Flags: 4194304, CPUTicks: 300, Threads: 3,
	Start: 275790, RSSPages: 362, Image: Image{94248873189376, 94248873209257, 140733729086000},
	ArgStart: 140733729090037,
}

func TestParseStat(t *testing.T) {
	tests := []struct{ name, comm, want string }{
		{"plain", "cat", "cat"},
		{"empty", "", ""},
		{"spaces", "a b  c", "a b  c"},
		{"brackets that look like fields", ") R 1 1 (", ") R 1 1 ("},
		{"line feed, escaped by the kernel", `a\nb`, "a\nb"},
		{"line feed, by a kernel that does not", "a\nb", "a\nb"},
		{"backslash", `a\\nb`, `a\nb`},
		{"lone backslash", `a\`, `a\`},
		{"other escape", `a\tb`, `a\tb`},
		{"not UTF-8", "\xff\xfe", "\xff\xfe"},
		{"looks like a worker", "kworker/0:1-mm", "kworker/0:1-mm"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parsed([]byte(statLine(tt.comm, 1792)))
			if err != nil {
				t.Fatal(err)
			}
			if name := Unescape(got.Comm); name != tt.want {
				t.Errorf("name %q, want %q", name, tt.want)
			}
			want := wantStat
			want.ExitCode = 1792
			if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Stat{}, "Comm")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if got.CPU() != 3*time.Second {
				t.Errorf("CPU %v, want 3s", got.CPU())
			}
		})
	}
}

func TestParseStatOfOldKernel(t *testing.T) {
	line := statLine("cat", 0)
	fields := strings.Fields(line)
	got, err := parsed([]byte(strings.Join(fields[:24], " ")))
	if err != nil {
		t.Fatal(err)
	}
	if got.RSSPages != 362 || got.Image.Known() || got.ArgStart != 0 {
		t.Errorf("got %+v, want everything up to field 24", got)
	}
}

func TestParseStatRefuses(t *testing.T) {
	line := statLine("cat", 0)
	tests := map[string]string{
		"empty":               "",
		"no name":             "4711 S 1 1",
		"no process id":       line[4:],
		"bracket not closed":  "4711 (cat S 1",
		"name only":           "4711 (cat)",
		"cut before the rss":  strings.Join(strings.Fields(line)[:23], " "),
		"state of two bytes":  strings.Replace(line, " S ", " SS ", 1),
		"parent out of range": strings.Replace(line, " 815 ", " 4294967296 ", 1),
		"start out of range":  strings.Replace(line, " 275790 ", " 18446744073709551616 ", 1),
		"start negative":      strings.Replace(line, " 275790 ", " -1 ", 1),
		"two spaces":          strings.Replace(line, " 275790 ", "  275790 ", 1),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := parsed([]byte(text)); err == nil {
				t.Errorf("parsed %q as %+v", text, got)
			}
		})
	}
}

func TestWorkerNameIsStable(t *testing.T) {
	tests := map[string]string{
		"kworker/0:1":              "kworker/0:1",
		"kworker/0:1-events":       "kworker/0:1",
		"kworker/u8:3+flush-8:0":   "kworker/u8:3",
		"kworker/R-mm_percpu_wq":   "kworker/R-mm_percpu_wq",
		"kworker/0:0H-events_high": "kworker/0:0H",
	}
	for comm, want := range tests {
		line := strings.Replace(statLine(comm, 0), " 4194304 ", " 69238880 ", 1)
		got, err := parsed([]byte(line))
		if err != nil || string(got.Comm) != want || !got.KernelThread() {
			t.Errorf("%s: name %q (%v), want %q of a kernel thread", comm, got.Comm, err, want)
		}
	}
}

func TestExit(t *testing.T) {
	tests := []struct {
		status int32
		want   event.Exit
	}{
		{0, event.Exit{}},
		{7 << 8, event.Exit{Code: 7}},
		{255 << 8, event.Exit{Code: 255}},
		{9, event.Exit{Signal: 9}},
		{11 | 0x80, event.Exit{Signal: 11, Core: true}},
	}
	for _, tt := range tests {
		s := Stat{ExitCode: tt.status, CPUTicks: 12}
		tt.want.CPU = 120 * time.Millisecond
		if d := cmp.Diff(&tt.want, s.Exit()); d != "" {
			t.Errorf("status %#x, -want +got:\n%s", tt.status, d)
		}
	}
}

// FuzzParseStat holds the parser to a slow and plain one.
func FuzzParseStat(f *testing.F) {
	for _, comm := range []string{"cat", "", ") R 1 (", `a\nb`, "\xff", "kworker/0:1-events"} {
		f.Add([]byte(statLine(comm, 256)))
	}
	f.Add([]byte(strings.Replace(statLine("kworker/1:2+x", 0), " 4194304 ", " 69238880 ", 1)))
	f.Add([]byte("1 (a) Z 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 -5"))
	f.Add([]byte("-1 () )"))
	if self, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(self)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parsed(b)
		if err != nil {
			return
		}
		text := string(b)
		end := strings.LastIndexByte(text, ')')
		fields := append([]string{"", "", ""}, strings.Split(strings.TrimSpace(text[end+1:]), " ")...)
		if len(fields) <= lastRequiredField {
			t.Fatalf("took %d fields for enough", len(fields)-1)
		}
		number := func(n int) int64 { v, _ := strconv.ParseInt(fields[n], 10, 64); return v }
		start, _ := strconv.ParseUint(fields[22], 10, 64)
		if got.Start != start || int64(got.PPID) != number(4) || int64(got.Session) != number(6) ||
			int64(got.TTY) != number(7) || int64(got.Threads) != number(20) || got.RSSPages != number(24) ||
			string(got.State) != fields[3] && got.State < 0x80 {
			t.Errorf("got %+v of %q", got, text)
		}
		if name := Unescape(got.Comm); len(name) > len(got.Comm) {
			t.Errorf("%q grew to %q", got.Comm, name)
		}
		if got.CPU() < 0 {
			t.Errorf("CPU time %v", got.CPU())
		}
	})
}

func FuzzSplitArgs(f *testing.F) {
	for _, s := range []string{"", "\x00", "a\x00", "a\x00\x00", "a\x00b\x00", "title", "\xff\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		args, cut := SplitArgs(b)
		if want := len(strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")); len(b) > 0 && cut != (want > event.MaxArgCount) {
			t.Fatalf("%d of %d arguments, cut %v", len(args), want, cut)
		}
		if cut || len(b) == 0 {
			return
		}
		joined := strings.Join(args, "\x00")
		if s := string(b); joined != s && joined+"\x00" != s {
			t.Errorf("%q became %q", b, args)
		}
	})
}

func parsed(b []byte) (Stat, error) {
	var s Stat
	err := s.Parse(b)
	return s, err
}
