package portable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"

	"daemoneye.dev/procmond/collect/internal/procfile"
)

// fixture is a made-up /proc.
type fixture struct {
	t   *testing.T
	dir string
}

// entry is one made-up process; what is empty is not there.
type entry struct {
	stat, cmdline, status, exe string
}

func newFixture(t *testing.T) fixture { return fixture{t: t, dir: t.TempDir()} }

// sleeper is an ordinary process.
func sleeper(pid int, start uint64) entry {
	line := strings.Replace(statLine("sleeper", 0), "4711 (", strconv.Itoa(pid)+" (", 1)
	return entry{
		stat:    strings.Replace(line, " 275790 ", fmt.Sprintf(" %d ", start), 1),
		cmdline: "sleeper\x00--for\x00ever\x00",
		status:  "Name:\tsleeper\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n",
		exe:     "/usr/bin/sleeper",
	}
}

func (f fixture) put(pid int, e entry) {
	f.t.Helper()
	dir := filepath.Join(f.dir, strconv.Itoa(pid))
	f.remove(pid)
	f.must(os.MkdirAll(dir, 0o755))
	for name, content := range map[string]string{"stat": e.stat, "cmdline": e.cmdline, "status": e.status} {
		if content != "" {
			f.must(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
	}
	if e.exe != "" {
		f.must(os.Symlink(e.exe, filepath.Join(dir, "exe")))
	}
}

func (f fixture) remove(pid int) {
	f.t.Helper()
	f.must(os.RemoveAll(filepath.Join(f.dir, strconv.Itoa(pid))))
}

func (f fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestWholeRecord(t *testing.T) {
	t.Setenv("HOST_PROC", "/nowhere") // gopsutil's own setting must not lead it elsewhere
	f := newFixture(t)
	f.put(4711, sleeper(4711, 275790))
	s := newScanner(t, Config{Proc: f.dir})
	o := whole(t, scan(t, s, false), 4711)
	pages := uint64(os.Getpagesize())
	want := &event.Process{
		PID: 4711, PPID: 815, Name: "sleeper", Exe: "/usr/bin/sleeper",
		Args: []string{"sleeper", "--for", "ever"},
		UID:  1, EUID: 2, GID: 5, EGID: 6,
		Session: 815, TTY: 34816, StartTicks: 275790, StartTime: (&procfile.Stat{Start: 275790}).StartTime(s.boot),
		State: 'S', Threads: 3, RSS: 362 * pages, CPU: 3e9,
		Missing: event.Mask{Unsupported: unsupported},
	}
	if d := cmp.Diff(want, o.Process); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if o.ExecChanged || o.Exit != nil || o.StartTicks != 275790 || o.RSS != 362*pages || o.CPU != 3e9 || o.Threads != 3 {
		t.Errorf("observation %+v", o)
	}
}

func TestKnownProcessIsReadAgainOnlyWhenItChanges(t *testing.T) {
	change := func(from, to string) func(entry) entry {
		return func(e entry) entry {
			if !strings.Contains(e.stat, from) {
				panic("fixture has no " + from)
			}
			e.stat = strings.Replace(e.stat, from, to, 1)
			return e
		}
	}
	tests := []struct {
		name        string
		change      func(entry) entry
		whole, exec bool
	}{
		{"nothing", func(e entry) entry { return e }, false, false},
		{"cpu, threads and memory", change("250 50 9 8 20 0 3 0 275790 3133440 362", "950 50 9 8 20 0 4 0 275790 3133440 999"), false, false},
		{"state", change(") S ", ") R "), false, false},
		{"name", change("(sleeper)", "(renamed)"), true, false},
		{"parent", change(" 815 4711 815 ", " 1 4711 815 "), true, false},
		{"session", change(" 815 4711 815 ", " 815 4711 4711 "), true, false},
		{"terminal", change(" 34816 ", " 0 "), true, false},
		{"arguments moved", change(" 140733729090037 ", " 140733729090038 "), true, false},
		{"image", change(" 140733729086000 ", " 140733729086016 "), true, true},
		{"image hidden", change(" 140733729086000 ", " 0 "), true, false},
		{"another owner", func(e entry) entry {
			e.stat = strings.NewReplacer(" 275790 ", " 275791 ", " 140733729086000 ", " 140733729086016 ").Replace(e.stat)
			return e
		}, true, false},
		{"zombie", change(") S 815 4711 815 34816", ") Z 815 4711 0 0"), false, false},
		{"zombie with another parent", change(") S 815 ", ") Z 1 "), true, false},
	}
	const pid = 4711
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.put(pid, sleeper(pid, 275790))
			s := newScanner(t, Config{Proc: f.dir})
			scan(t, s, false)
			for s.scans++; s.turn(pid); s.scans++ { // not its turn in the scan that matters
			}
			s.scans--
			f.put(pid, tt.change(sleeper(pid, 275790)))
			o := observed(t, scan(t, s, false), pid)
			if got := o.Process != nil; got != tt.whole {
				t.Errorf("reported whole: %v, want %v", got, tt.whole)
			}
			if o.ExecChanged != tt.exec {
				t.Errorf("exec %v, want %v", o.ExecChanged, tt.exec)
			}
			for s.scans++; s.turn(pid); s.scans++ {
			}
			s.scans--
			if o := observed(t, scan(t, s, false), pid); o.Process != nil {
				t.Errorf("reported twice: %+v", o)
			}
		})
	}
}

func TestEachProcessIsReadAgainWithin30Scans(t *testing.T) {
	f := newFixture(t)
	const n = 90
	for pid := 1; pid <= n; pid++ {
		f.put(pid, sleeper(pid, uint64(pid)))
	}
	s := newScanner(t, Config{Proc: f.dir})
	scan(t, s, false)
	for pid := 1; pid <= n; pid++ {
		e := sleeper(pid, uint64(pid))
		e.cmdline = "a new title"
		f.put(pid, e)
	}
	seen := make(map[int32]int)
	for range rereadEvery {
		for _, o := range scan(t, s, false).Observations {
			if o.Process != nil {
				seen[o.PID]++
				if d := cmp.Diff([]string{"a new title"}, o.Process.Args); d != "" {
					t.Errorf("process %d, -want +got:\n%s", o.PID, d)
				}
			}
		}
	}
	for pid := int32(1); pid <= n; pid++ {
		if seen[pid] != 1 {
			t.Errorf("process %d was read %d times, want once", pid, seen[pid])
		}
	}
}

func TestFullScanReportsEverything(t *testing.T) {
	f := newFixture(t)
	f.put(1, sleeper(1, 1))
	f.put(2, sleeper(2, 2))
	s := newScanner(t, Config{Proc: f.dir})
	for range 3 {
		snap := scan(t, s, true)
		whole(t, snap, 1)
		whole(t, snap, 2)
	}
}

func TestCacheDoesNotGrow(t *testing.T) {
	f := newFixture(t)
	f.put(1, sleeper(1, 1))
	s := newScanner(t, Config{Proc: f.dir})
	for pid := 2; pid < 200; pid++ {
		f.put(pid, sleeper(pid, uint64(pid)))
		scan(t, s, false)
		f.remove(pid)
	}
	scan(t, s, false)
	if len(s.known) != 1 {
		t.Errorf("%d processes are kept, want 1", len(s.known))
	}
}

func TestFailedScanIsFollowedByAFullOne(t *testing.T) {
	f := newFixture(t)
	f.put(1, sleeper(1, 1))
	f.put(2, entry{stat: "2 (nonsense)"})
	s := newScanner(t, Config{Proc: f.dir})
	var snap collect.Snapshot
	if err := s.Scan(t.Context(), false, &snap); err == nil || !strings.Contains(err.Error(), "process 2") {
		t.Fatalf("error %v, want one that names process 2", err)
	}
	f.remove(2)
	whole(t, scan(t, s, false), 1) // its first report was thrown away
}

// expiring is done after n questions.
type expiring struct {
	context.Context
	n int
}

func (e *expiring) Err() error {
	if e.n--; e.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestScanStopsBetweenProcesses(t *testing.T) {
	f := newFixture(t)
	for pid := 1; pid <= 100; pid++ {
		f.put(pid, sleeper(pid, uint64(pid)))
	}
	s := newScanner(t, Config{Proc: f.dir})
	var snap collect.Snapshot
	err := s.Scan(&expiring{t.Context(), 10}, false, &snap)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
	if n := len(snap.Observations); n == 0 || n > 10 {
		t.Errorf("%d processes were read before the scan stopped", n)
	}
	if snap := scan(t, s, false); len(snap.Observations) != 100 {
		t.Errorf("%d processes, want 100", len(snap.Observations))
	} else {
		whole(t, snap, 1)
	}
}

func TestVanishedAndHiddenProcessesAreCounted(t *testing.T) {
	f := newFixture(t)
	f.put(1, sleeper(1, 1))
	f.put(2, entry{}) // listed, and gone when it is to be read
	f.put(3, sleeper(3, 3))
	wantHidden := 0
	if os.Getuid() != 0 { // nothing is hidden from root
		f.must(os.Chmod(filepath.Join(f.dir, "3", "stat"), 0))
		wantHidden = 1
	}
	snap := scan(t, newScanner(t, Config{Proc: f.dir}), false)
	if snap.Vanished != 1 || snap.Hidden != wantHidden {
		t.Errorf("vanished %d, hidden %d, want 1 and %d", snap.Vanished, snap.Hidden, wantHidden)
	}
	if n := len(snap.Observations); n != 2-wantHidden {
		t.Errorf("%d processes, want %d", n, 2-wantHidden)
	}
}

func TestUnreadableFieldsStandInTheMask(t *testing.T) {
	f := newFixture(t)
	f.put(1, entry{stat: sleeper(1, 1).stat})
	p := whole(t, scan(t, newScanner(t, Config{Proc: f.dir}), false), 1).Process
	want := event.Mask{Unsupported: unsupported}
	for _, field := range []event.Field{
		event.FieldExe, event.FieldExeDeleted, event.FieldArgs, event.FieldUID, event.FieldEUID, event.FieldGID, event.FieldEGID,
	} {
		want.Gone = want.Gone.With(field)
	}
	if d := cmp.Diff(want, p.Missing); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestKernelThreadHasNeitherExecutableNorArguments(t *testing.T) {
	f := newFixture(t)
	e := sleeper(2, 2)
	e.stat = strings.Replace(e.stat, " 4194304 ", " 69238880 ", 1)
	e.exe, e.cmdline = "", ""
	f.put(2, e)
	p := whole(t, scan(t, newScanner(t, Config{Proc: f.dir}), false), 2).Process
	if p.Exe != "" || p.Args != nil || p.Missing.Absent() != unsupported {
		t.Errorf("got %+v, want no executable, no arguments, and nothing missing but what is unsupported", p)
	}
}

func TestEmptyProcIsAnError(t *testing.T) {
	var snap collect.Snapshot
	if err := newScanner(t, Config{Proc: t.TempDir()}).Scan(t.Context(), false, &snap); err == nil {
		t.Error("a host without processes was believed")
	}
	if _, err := New(Config{Proc: filepath.Join(t.TempDir(), "absent")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestProbeOfNobody(t *testing.T) {
	f := newFixture(t)
	s := newScanner(t, Config{Proc: f.dir})
	if _, err := s.Probe(t.Context(), 4711); !errors.Is(err, collect.ErrGone) {
		t.Errorf("error %v, want %v", err, collect.ErrGone)
	}
	f.put(4711, sleeper(4711, 1))
	if o, err := s.Probe(t.Context(), 4711); err != nil || o.Process == nil {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestArgumentsAreBounded(t *testing.T) {
	f := newFixture(t)
	e := sleeper(1, 1)
	e.cmdline = strings.Repeat("x", procfile.MaxCmdline+1)
	f.put(1, e)
	e = sleeper(2, 2)
	e.cmdline = strings.Repeat("\x00", event.MaxArgCount+1)
	f.put(2, e)
	snap := scan(t, newScanner(t, Config{Proc: f.dir}), false)
	if p := whole(t, snap, 1).Process; len(p.Args) != 1 || len(p.Args[0]) != procfile.MaxCmdline || !p.Missing.Truncated.Has(event.FieldArgs) {
		t.Errorf("long: %d arguments, mask %+v", len(p.Args), p.Missing)
	}
	if p := whole(t, snap, 2).Process; len(p.Args) != event.MaxArgCount || !p.Missing.Truncated.Has(event.FieldArgs) {
		t.Errorf("many: %d arguments, mask %+v", len(p.Args), p.Missing)
	}
}

// TestChangeUnderTheReading changes a process after its stat was read and
// before its arguments are: the record must be of one process, or there is none.
func TestChangeUnderTheReading(t *testing.T) {
	const pid = 4711
	exec := sleeper(pid, 1)
	exec.stat = strings.Replace(exec.stat, " 140733729086000 ", " 140733729086016 ", 1)
	exec.exe, exec.cmdline = "/usr/bin/other", "other\x00"
	owner := exec
	owner.stat = strings.Replace(exec.stat, " 1 3133440 ", " 2 3133440 ", 1)
	tests := []struct {
		name  string
		after *entry // nil: gone
		start uint64
	}{
		{"exec", &exec, 1},
		{"another owner", &owner, 2},
		{"gone", nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.put(1, sleeper(1, 1))
			f.put(pid, sleeper(pid, 1))
			f.duringReading(pid, func() {
				if tt.after == nil {
					f.remove(pid)
				} else {
					f.put(pid, *tt.after)
				}
			})
			snap := scan(t, newScanner(t, Config{Proc: f.dir}), false)
			if tt.after == nil {
				if snap.Vanished != 1 || len(snap.Observations) != 1 {
					t.Errorf("vanished %d of %+v, want one", snap.Vanished, snap.Observations)
				}
				return
			}
			o := whole(t, snap, pid)
			if o.StartTicks != tt.start || o.Process.StartTicks != tt.start || o.Process.Exe != "/usr/bin/other" ||
				!cmp.Equal(o.Process.Args, []string{"other"}) {
				t.Errorf("got %+v of %+v, want start %d and nothing of the process before", o, o.Process, tt.start)
			}
		})
	}
}

// TestOwnerThatChangesEachTime gives a PID to another process under each
// reading: none of them can be reported, and the scan goes on.
func TestOwnerThatChangesEachTime(t *testing.T) {
	const pid = 4711
	f := newFixture(t)
	f.put(1, sleeper(1, 1))
	f.put(pid, sleeper(pid, 1))
	f.duringReading(pid, func() {
		f.put(pid, sleeper(pid, 2))
		f.duringReading(pid, func() { f.put(pid, sleeper(pid, 3)) })
	})
	s := newScanner(t, Config{Proc: f.dir})
	if snap := scan(t, s, false); snap.Vanished != 1 || len(snap.Observations) != 1 {
		t.Errorf("vanished %d of %+v, want one", snap.Vanished, snap.Observations)
	}
	if o := whole(t, scan(t, s, false), pid); o.StartTicks != 3 {
		t.Errorf("got %+v, want the last owner", o)
	}
}

// duringReading calls change once, while the scanner reads the arguments of pid.
func (f fixture) duringReading(pid int, change func()) {
	f.t.Helper()
	cmdline := filepath.Join(f.dir, strconv.Itoa(pid), "cmdline")
	f.must(os.Remove(cmdline))
	f.must(unix.Mkfifo(cmdline, 0o600))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w, err := os.OpenFile(cmdline, os.O_WRONLY, 0) // waits for the reader
		if err != nil {
			f.t.Error(err)
			return
		}
		change()
		_, _ = w.WriteString(sleeper(pid, 1).cmdline) // what the scanner does with it does not matter
		_ = w.Close()
	}()
	f.t.Cleanup(func() {
		// Without a reader, because the test failed, the goroutine would wait for ever.
		if r, err := os.OpenFile(cmdline, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = r.Close()
		}
		<-done
	})
}

// statLine is a line of kernel 6.18 with the name and the exit code given.
func statLine(comm string, exit int) string {
	return fmt.Sprintf("4711 (%s) S 815 4711 815 34816 -1 4194304 98 7 6 5 250 50 9 8 20 0 3 0 275790 3133440 362 "+
		"18446744073709551615 94248873189376 94248873209257 140733729086000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 "+
		"94248873225264 94248873226880 94249401368576 140733729090037 140733729090057 140733729090057 "+
		"140733729091563 %d\n", comm, exit)
}
