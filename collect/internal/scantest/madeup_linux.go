package scantest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

func (s Source) testWholeRecord(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(4711, zoo.Sleeper(4711, 275790))
	scanner := s.of(t, f.Dir)
	o := Whole(t, Scan(t, scanner, false), 4711)
	pages := uint64(os.Getpagesize())
	var sinceBoot unix.Timespec
	f.Must(unix.ClockGettime(unix.CLOCK_BOOTTIME, &sinceBoot))
	boot := time.Now().Add(-time.Duration(sinceBoot.Nano()))
	want := &event.Process{
		PID: 4711, PPID: 815, Name: "sleeper", Exe: "/usr/bin/sleeper",
		Args: []string{"sleeper", "--for", "ever"},
		UID:  1, EUID: 2, GID: 5, EGID: 6,
		Session: 815, TTY: 34816, StartTicks: 275790, StartTime: (&procfile.Stat{Start: 275790}).StartTime(boot),
		State: 'S', Threads: 3, RSS: 362 * pages, CPU: 3e9,
		Missing: event.Mask{Unsupported: s.Unsupported},
	}
	if !s.Unsupported.Has(event.FieldCapabilities) {
		want.CapEffective = 5
	}
	if d := cmp.Diff(want, o.Process, cmpopts.EquateApproxTime(time.Second)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if o.ExecChanged || o.Exit != nil || o.StartTicks != 275790 || o.RSS != 362*pages || o.CPU != 3e9 || o.Threads != 3 {
		t.Errorf("observation %+v", o)
	}
}

func (s Source) testKnownProcess(t *testing.T) {
	change := func(from, to string) func(zoo.Entry) zoo.Entry {
		return func(e zoo.Entry) zoo.Entry {
			if !strings.Contains(e.Stat, from) {
				panic("fixture has no " + from)
			}
			e.Stat = strings.Replace(e.Stat, from, to, 1)
			return e
		}
	}
	tests := []struct {
		name        string
		change      func(zoo.Entry) zoo.Entry
		whole, exec bool
	}{
		{"nothing", func(e zoo.Entry) zoo.Entry { return e }, false, false},
		{"cpu, threads and memory", change("250 50 9 8 20 0 3 0 275790 3133440 362", "950 50 9 8 20 0 4 0 275790 3133440 999"), false, false},
		{"state", change(") S ", ") R "), false, false},
		{"name", change("(sleeper)", "(renamed)"), true, false},
		{"parent", change(" 815 4711 815 ", " 1 4711 815 "), true, false},
		{"session", change(" 815 4711 815 ", " 815 4711 4711 "), true, false},
		{"terminal", change(" 34816 ", " 0 "), true, false},
		{"arguments moved", change(" 140733729090037 ", " 140733729090038 "), true, false},
		{"image", change(" 140733729086000 ", " 140733729086016 "), true, true},
		{"image hidden", change(" 140733729086000 ", " 0 "), true, false},
		{"another owner", func(e zoo.Entry) zoo.Entry {
			e.Stat = strings.NewReplacer(" 275790 ", " 275791 ", " 140733729086000 ", " 140733729086016 ").Replace(e.Stat)
			return e
		}, true, false},
		{"zombie", change(") S 815 4711 815 34816", ") Z 815 4711 0 0"), false, false},
		{"zombie with another parent", change(") S 815 ", ") Z 1 "), true, false},
	}
	const pid = 4711 // whose turn does not come in the first scans
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := zoo.NewFixture(t)
			f.Put(pid, zoo.Sleeper(pid, 275790))
			scanner := s.of(t, f.Dir)
			Scan(t, scanner, false)
			f.Put(pid, tt.change(zoo.Sleeper(pid, 275790)))
			o := Observed(t, Scan(t, scanner, false), pid)
			if got := o.Process != nil; got != tt.whole {
				t.Errorf("reported whole: %v, want %v", got, tt.whole)
			}
			if o.ExecChanged != tt.exec {
				t.Errorf("exec %v, want %v", o.ExecChanged, tt.exec)
			}
			if o := Observed(t, Scan(t, scanner, false), pid); o.Process != nil {
				t.Errorf("reported twice: %+v", o)
			}
		})
	}
}

func (s Source) testTurns(t *testing.T) {
	f := zoo.NewFixture(t)
	const n = 90
	for pid := 1; pid <= n; pid++ {
		f.Put(pid, zoo.Sleeper(pid, uint64(pid)))
	}
	scanner := s.of(t, f.Dir)
	Scan(t, scanner, false)
	for pid := 1; pid <= n; pid++ {
		e := zoo.Sleeper(pid, uint64(pid))
		e.Cmdline = "a new title"
		f.Put(pid, e)
	}
	seen := make(map[int32]int)
	for range rereadEvery {
		for _, o := range Scan(t, scanner, false).Observations {
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

func (s Source) testFullScan(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	f.Put(2, zoo.Sleeper(2, 2))
	scanner := s.of(t, f.Dir)
	for range 3 {
		snap := Scan(t, scanner, true)
		Whole(t, snap, 1)
		Whole(t, snap, 2)
	}
}

func (s Source) testCacheDoesNotGrow(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	scanner := s.of(t, f.Dir)
	for pid := 2; pid < 200; pid++ {
		f.Put(pid, zoo.Sleeper(pid, uint64(pid)))
		Scan(t, scanner, false)
		f.Remove(pid)
	}
	Scan(t, scanner, false)
	if n := s.Known(scanner); n != 1 {
		t.Errorf("%d processes are kept, want 1", n)
	}
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

func (s Source) testScanStops(t *testing.T) {
	f := zoo.NewFixture(t)
	for pid := 1; pid <= 100; pid++ {
		f.Put(pid, zoo.Sleeper(pid, uint64(pid)))
	}
	scanner := s.of(t, f.Dir)
	var snap collect.Snapshot
	err := scanner.Scan(&expiring{t.Context(), 10}, false, &snap)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
	if n := len(snap.Observations); n == 0 || n > 10 {
		t.Errorf("%d processes were read before the scan stopped", n)
	}
	if snap := Scan(t, scanner, false); len(snap.Observations) != 100 {
		t.Errorf("%d processes, want 100", len(snap.Observations))
	} else {
		Whole(t, snap, 1) // its first report was thrown away
	}
}

func (s Source) testVanishedAndHidden(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	f.Put(2, zoo.Entry{}) // listed, and gone when it is to be read
	f.Put(3, zoo.Sleeper(3, 3))
	wantHidden := 0
	if os.Getuid() != 0 { // nothing is hidden from root
		f.Must(os.Chmod(f.Path(3, "stat"), 0))
		wantHidden = 1
	}
	snap := Scan(t, s.of(t, f.Dir), false)
	if snap.Vanished != 1 || snap.Hidden != wantHidden {
		t.Errorf("vanished %d, hidden %d, want 1 and %d", snap.Vanished, snap.Hidden, wantHidden)
	}
	if n := len(snap.Observations); n != 2-wantHidden {
		t.Errorf("%d processes, want %d", n, 2-wantHidden)
	}
}

func (s Source) testMask(t *testing.T) {
	f := zoo.NewFixture(t)
	f.Put(1, zoo.Entry{Stat: zoo.Sleeper(1, 1).Stat})
	p := Whole(t, Scan(t, s.of(t, f.Dir), false), 1).Process
	want := event.Mask{Unsupported: s.Unsupported, Gone: fields(
		event.FieldExe, event.FieldExeDeleted, event.FieldArgs,
		event.FieldUID, event.FieldEUID, event.FieldGID, event.FieldEGID, event.FieldCapabilities,
	) &^ s.Unsupported}
	if d := cmp.Diff(want, p.Missing); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func (s Source) testKernelThread(t *testing.T) {
	f := zoo.NewFixture(t)
	e := zoo.Sleeper(2, 2)
	e.Stat = strings.Replace(e.Stat, " 4194304 ", " 69238880 ", 1)
	e.Exe, e.Cmdline = "", ""
	f.Put(2, e)
	p := Whole(t, Scan(t, s.of(t, f.Dir), false), 2).Process
	if p.Exe != "" || p.Args != nil || p.Missing.Absent() != s.Unsupported {
		t.Errorf("got %+v, want no executable, no arguments, and nothing missing but what is unsupported", p)
	}
}

func (s Source) testEmptyProc(t *testing.T) {
	var snap collect.Snapshot
	if err := s.of(t, t.TempDir()).Scan(t.Context(), false, &snap); err == nil {
		t.Error("a host without processes was believed")
	}
	if _, err := s.New(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
}

func (s Source) testProbeOfNobody(t *testing.T) {
	f := zoo.NewFixture(t)
	scanner := s.of(t, f.Dir)
	if _, err := scanner.Probe(t.Context(), 4711); !errors.Is(err, collect.ErrGone) {
		t.Errorf("error %v, want %v", err, collect.ErrGone)
	}
	f.Put(4711, zoo.Sleeper(4711, 1))
	if o, err := scanner.Probe(t.Context(), 4711); err != nil || o.Process == nil {
		t.Errorf("got %+v, %v", o, err)
	}
}

func (s Source) testArgumentsAreBounded(t *testing.T) {
	f := zoo.NewFixture(t)
	e := zoo.Sleeper(1, 1)
	e.Cmdline = strings.Repeat("x", procfile.MaxCmdline+1)
	f.Put(1, e)
	e = zoo.Sleeper(2, 2)
	e.Cmdline = strings.Repeat("\x00", event.MaxArgCount+1)
	f.Put(2, e)
	snap := Scan(t, s.of(t, f.Dir), false)
	if p := Whole(t, snap, 1).Process; len(p.Args) != 1 || len(p.Args[0]) != procfile.MaxCmdline || !p.Missing.Truncated.Has(event.FieldArgs) {
		t.Errorf("long: %d arguments, mask %+v", len(p.Args), p.Missing)
	}
	if p := Whole(t, snap, 2).Process; len(p.Args) != event.MaxArgCount || !p.Missing.Truncated.Has(event.FieldArgs) {
		t.Errorf("many: %d arguments, mask %+v", len(p.Args), p.Missing)
	}
}

// testChangeUnderTheReading changes a process after its stat was read and
// before its arguments are: the record must be of one process, or there is none.
func (s Source) testChangeUnderTheReading(t *testing.T) {
	const pid = 4711
	exec := zoo.Sleeper(pid, 1)
	exec.Stat = strings.Replace(exec.Stat, " 140733729086000 ", " 140733729086016 ", 1)
	exec.Exe, exec.Cmdline = "/usr/bin/other", "other\x00"
	owner := exec
	owner.Stat = strings.Replace(exec.Stat, " 1 3133440 ", " 2 3133440 ", 1)
	tests := []struct {
		name  string
		after *zoo.Entry // nil: gone
		start uint64
	}{
		{"exec", &exec, 1},
		{"another owner", &owner, 2},
		{"gone", nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := zoo.NewFixture(t)
			f.Put(1, zoo.Sleeper(1, 1))
			f.Put(pid, zoo.Sleeper(pid, 1))
			f.DuringReading(pid, func() {
				if tt.after == nil {
					f.Remove(pid)
				} else {
					f.Put(pid, *tt.after)
				}
			})
			snap := Scan(t, s.of(t, f.Dir), false)
			if tt.after == nil {
				if snap.Vanished != 1 || len(snap.Observations) != 1 {
					t.Errorf("vanished %d of %+v, want one", snap.Vanished, snap.Observations)
				}
				return
			}
			o := Whole(t, snap, pid)
			if o.StartTicks != tt.start || o.Process.StartTicks != tt.start || o.Process.Exe != "/usr/bin/other" ||
				!cmp.Equal(o.Process.Args, []string{"other"}) {
				t.Errorf("got %+v of %+v, want start %d and nothing of the process before", o, o.Process, tt.start)
			}
		})
	}
}

// testOwnerThatChangesEachTime gives a PID to another process under each
// reading: none of them can be reported, and the scan goes on.
func (s Source) testOwnerThatChangesEachTime(t *testing.T) {
	const pid = 4711
	f := zoo.NewFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	f.Put(pid, zoo.Sleeper(pid, 1))
	f.DuringReading(pid, func() {
		f.Put(pid, zoo.Sleeper(pid, 2))
		f.DuringReading(pid, func() { f.Put(pid, zoo.Sleeper(pid, 3)) })
	})
	scanner := s.of(t, f.Dir)
	if snap := Scan(t, scanner, false); snap.Vanished != 1 || len(snap.Observations) != 1 {
		t.Errorf("vanished %d of %+v, want one", snap.Vanished, snap.Observations)
	}
	if o := Whole(t, Scan(t, scanner, false), pid); o.StartTicks != 3 {
		t.Errorf("got %+v, want the last owner", o)
	}
}

// testNewEntry: a process is its PID and its start, whatever file its entry is. The
// kernel makes the entries anew when memory is short, with other inodes; and a file
// system may give an inode again.
func (s Source) testNewEntry(t *testing.T) {
	const pid = 4711
	f := zoo.NewFixture(t)
	f.Put(pid, zoo.Sleeper(pid, 1))
	scanner := s.of(t, f.Dir)
	Scan(t, scanner, false)
	before := inode(f, pid)
	f.Must(os.Rename(f.Path(pid, ""), filepath.Join(f.Dir, "former")))
	f.Put(pid, zoo.Sleeper(pid, 1))
	if inode(f, pid) == before {
		t.Fatal("the entry is the same")
	}
	if o := Observed(t, Scan(t, scanner, false), pid); o.Process != nil {
		t.Errorf("another entry: told as news: %+v", o.Process)
	}
	before = inode(f, pid)
	f.Must(os.WriteFile(f.Path(pid, "stat"), []byte(zoo.Sleeper(pid, 2).Stat), 0o600))
	if inode(f, pid) != before {
		t.Fatal("the entry is another one")
	}
	if o := Whole(t, Scan(t, scanner, false), pid); o.StartTicks != 2 || o.ExecChanged {
		t.Errorf("another process in the same entry: %+v", o)
	}
}

// inode is that of the entry of a process.
func inode(f zoo.Fixture, pid int) uint64 {
	f.T.Helper()
	var st unix.Stat_t
	f.Must(unix.Stat(f.Path(pid, ""), &st))
	return st.Ino
}

// testHiddenImage: of a process that may not be traced the kernel does not show which
// image it runs. An exec shows in the name, at once, or in what is read within 30 scans;
// it is not said to be one.
func (s Source) testHiddenImage(t *testing.T) {
	const pid = 4711
	hidden := func(from, to string) zoo.Entry {
		e := zoo.Sleeper(pid, 1)
		e.Stat = strings.NewReplacer(" 94248873189376 94248873209257 140733729086000 ", " 1 1 0 ", " 140733729090037 ", " 0 ", from, to).Replace(e.Stat)
		return e
	}
	f := zoo.NewFixture(t)
	f.Put(pid, hidden("", ""))
	scanner := s.of(t, f.Dir)
	Scan(t, scanner, false)
	f.Put(pid, hidden("(sleeper)", "(other)"))
	if o := Whole(t, Scan(t, scanner, false), pid); o.Process.Name != "other" || o.ExecChanged {
		t.Errorf("got %+v of %+v", o, o.Process)
	}
	e := hidden("(sleeper)", "(other)")
	e.Exe, e.Cmdline = "/usr/bin/other", "other\x00"
	f.Put(pid, e)
	for range rereadEvery {
		if o := Observed(t, Scan(t, scanner, false), pid); o.Process != nil {
			if o.Process.Exe != "/usr/bin/other" || o.ExecChanged {
				t.Errorf("got %+v of %+v", o, o.Process)
			}
			return
		}
	}
	t.Error("the new image was not seen")
}

// testExecUnderTheReading: a process that runs another program while its arguments are
// read keeps its directory. What is told is of one image.
func (s Source) testExecUnderTheReading(t *testing.T) {
	const pid = 4711
	f := zoo.NewFixture(t)
	f.Put(pid, zoo.Sleeper(pid, 1))
	f.DuringReading(pid, func() {
		f.Must(os.Remove(f.Path(pid, "cmdline")))
		f.Must(os.WriteFile(f.Path(pid, "cmdline"), []byte("other\x00"), 0o600))
		stat := strings.Replace(zoo.Sleeper(pid, 1).Stat, " 140733729086000 ", " 140733729086016 ", 1)
		f.Must(os.WriteFile(f.Path(pid, "stat"), []byte(stat), 0o600))
	})
	if o := Whole(t, Scan(t, s.of(t, f.Dir), false), pid); !cmp.Equal(o.Process.Args, []string{"other"}) {
		t.Errorf("got %q of the image before", o.Process.Args)
	}
}
