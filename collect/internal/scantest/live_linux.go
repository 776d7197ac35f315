package scantest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

func (s Source) testStartedProcess(t *testing.T) {
	scanner := s.host(t)
	Scan(t, scanner, false)
	before := time.Now()
	c := zoo.Start(t, "wait", zoo.With("watched", "one", "two words"))
	o := Whole(t, Scan(t, scanner, false), c.PID)
	p := o.Process
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"watched", "one", "two words"}, p.Args); d != "" {
		t.Errorf("arguments, -want +got:\n%s", d)
	}
	if p.PPID != int32(os.Getpid()) || p.Exe != exe || p.ExeDeleted || p.UID != uint32(os.Getuid()) || p.EUID != uint32(os.Geteuid()) ||
		p.GID != uint32(os.Getgid()) || p.EGID != uint32(os.Getegid()) || p.Name == "" || o.Threads < 1 || o.RSS == 0 || o.Exit != nil {
		t.Errorf("got %+v of %+v", o, p)
	}
	if p.Missing.Absent() != s.Unsupported {
		t.Errorf("missing %+v", p.Missing)
	}
	if d := p.StartTime.Sub(before); d < -time.Second || d > time.Minute {
		t.Errorf("started %v after it was started", d)
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(int(c.PID)), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(string(b)); strconv.FormatUint(o.StartTicks, 10) != fields[21] {
		t.Errorf("start %d, want %s", o.StartTicks, fields[21])
	}
}

func (s Source) testExecInPlace(t *testing.T) {
	scanner := s.host(t)
	c := zoo.Start(t, "exec", zoo.With("first", "image"))
	first := Whole(t, Scan(t, scanner, false), c.PID)
	c.Act()
	second := Whole(t, Scan(t, scanner, false), c.PID)
	if first.StartTicks != second.StartTicks || first.ExecChanged || !second.ExecChanged {
		t.Errorf("first %+v\nsecond %+v\nwant one process and an exec in the second", first, second)
	}
	if d := cmp.Diff([]string{"second", "image"}, second.Process.Args); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func (s Source) testRename(t *testing.T) {
	scanner := s.host(t)
	c := zoo.Start(t, "rename a)\n\\ (b", nil)
	Scan(t, scanner, false)
	c.Act()
	o := Whole(t, Scan(t, scanner, false), c.PID)
	if o.Process.Name != "a)\n\\ (b" || o.ExecChanged {
		t.Errorf("name %q, exec %v", o.Process.Name, o.ExecChanged)
	}
}

// testIDs: nothing in stat shows that a process takes other ids. It is seen within 30
// scans, and the real ids are told beside the effective ones, which own its directory in
// /proc.
func (s Source) testIDs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can take other ids")
	}
	scanner := s.host(t)
	c := zoo.Start(t, "ids", nil)
	Scan(t, scanner, false)
	c.Act()
	for range rereadEvery {
		if o := Observed(t, Scan(t, scanner, false), c.PID); o.Process != nil {
			p := o.Process
			if got := []uint32{p.UID, p.EUID, p.GID, p.EGID}; !cmp.Equal(got, []uint32{1001, 1002, 1003, 1004}) || o.ExecChanged {
				t.Errorf("ids %v, exec %v", got, o.ExecChanged)
			}
			return
		}
	}
	t.Error("the new ids were not seen")
}

func (s Source) testZombie(t *testing.T) {
	tests := []struct {
		name, role string
		kill       bool
		want       event.Exit
	}{
		{"success", "exit 0", false, event.Exit{}},
		{"exit code", "exit 7", false, event.Exit{Code: 7}},
		{"signal", "wait", true, event.Exit{Signal: 9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scanner := s.host(t)
			c := zoo.Start(t, tt.role, nil)
			if tt.kill {
				Scan(t, scanner, false)
				if err := c.Cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			c.Ended()
			o := Observed(t, Scan(t, scanner, !tt.kill), c.PID)
			if o.State != event.StateZombie || o.Threads > 1 || o.Exit == nil {
				t.Fatalf("got %+v, want a zombie that says how it ended", o)
			}
			tt.want.CPU = o.CPU
			if d := cmp.Diff(&tt.want, o.Exit); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			p := Whole(t, Scan(t, scanner, true), c.PID).Process
			if p.Exe != "" || p.Args != nil || !p.Missing.Gone.Has(event.FieldExe) || !p.Missing.Gone.Has(event.FieldArgs) {
				t.Errorf("got %+v, want executable and arguments gone", p)
			}
		})
	}
}

func (s Source) testFirstThread(t *testing.T) {
	scanner := s.host(t)
	c := zoo.Start(t, "leader", nil)
	Scan(t, scanner, false)
	c.Act()
	o := Observed(t, Scan(t, scanner, false), c.PID)
	if o.State != event.StateZombie || o.Threads < 2 || o.Exit != nil || o.ExecChanged {
		t.Errorf("got %+v, want a process without its first thread", o)
	}
}

func (s Source) testDeletedExecutable(t *testing.T) {
	for _, name := range []string{"plain", "named (deleted)"} {
		t.Run(name, func(t *testing.T) {
			path := zoo.Binary(t, name)
			c := zoo.Start(t, "wait", func(cmd *exec.Cmd) { cmd.Path = path })
			scanner := s.host(t)
			if p := Whole(t, Scan(t, scanner, true), c.PID).Process; p.Exe != path || p.ExeDeleted {
				t.Errorf("before: %q, deleted %v, want %q", p.Exe, p.ExeDeleted, path)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if p := Whole(t, Scan(t, scanner, true), c.PID).Process; p.Exe != path || !p.ExeDeleted {
				t.Errorf("after: %q, deleted %v, want %q, deleted", p.Exe, p.ExeDeleted, path)
			}
		})
	}
}

func (s Source) testMovedExecutable(t *testing.T) {
	path := zoo.Binary(t, "before")
	c := zoo.Start(t, "wait", func(cmd *exec.Cmd) { cmd.Path = path })
	scanner := s.host(t)
	Scan(t, scanner, false)
	if err := os.Rename(path, path+"-moved"); err != nil {
		t.Fatal(err)
	}
	if o := Whole(t, Scan(t, scanner, true), c.PID); o.Process.Exe != path+"-moved" || o.ExecChanged {
		t.Errorf("executable %q, exec %v", o.Process.Exe, o.ExecChanged)
	}
}

func (s Source) testArguments(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	tests := []struct {
		name string
		args []string
		cut  bool
	}{
		{"not UTF-8", []string{"w", "\xff\xfe", "\x01\n"}, false},
		{"nothing in the only one", []string{""}, false},
		{"nothing in any", []string{"", "", ""}, false},
		{"nothing at the end", []string{"w", "", ""}, false},
		{"more than 128 KiB", []string{"w", long, long[:40<<10]}, false},
		{"more than is read", []string{"w", long, long, long}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := zoo.Start(t, "wait", zoo.With(tt.args...))
			p := Whole(t, Scan(t, s.host(t), false), c.PID).Process
			if cut := p.Missing.Truncated.Has(event.FieldArgs); cut != tt.cut {
				t.Errorf("cut: %v, want %v", cut, tt.cut)
			}
			if !tt.cut && !cmp.Equal(tt.args, p.Args) {
				t.Errorf("arguments differ: %.100q", p.Args)
			}
			if all := strings.Join(tt.args, "\x00"); tt.cut && strings.Join(p.Args, "\x00") != all[:procfile.MaxCmdline] {
				t.Error("what is read is not the beginning")
			}
		})
	}
}

// ordinary makes a process that of a user who has no other one.
func ordinary(c *exec.Cmd) {
	id := 1<<20 + uint32(os.Getpid())
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}

func (s Source) testOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	living, dead := zoo.Start(t, "wait", zoo.With("watched")), zoo.Start(t, "exit 0", nil)
	dead.Ended()
	look := func(pid int32) (o collect.Observation) {
		zoo.Start(t, "probe "+strconv.Itoa(int(pid)), ordinary).Ask("", &o)
		return o
	}
	p := look(living.PID).Process
	want := event.Mask{Unsupported: p.Missing.Unsupported}
	want.Denied = fields(event.FieldExe, event.FieldExeDeleted, event.FieldCWD, event.FieldNamespaces, event.FieldEnv) &^ want.Unsupported
	if p.Missing != want || (p.Cgroup == "") != want.Unsupported.Has(event.FieldCgroup) || !cmp.Equal(p.Args, []string{"watched"}) || p.StartTicks == 0 {
		t.Errorf("got %+v, want all but the executable, and what else is the owner's", p)
	}
	if o := look(dead.PID); o.State != event.StateZombie || o.Exit != nil {
		t.Errorf("got %+v, want a zombie whose exit code is not known", o)
	}
}

func (s Source) testKernelThreadsOfThisHost(t *testing.T) {
	seen := 0
	for _, o := range Scan(t, s.host(t), false).Observations {
		if p := o.Process; p.PPID == 2 || p.PID == 2 && p.Name == "kthreadd" {
			seen++
			if p.Exe != "" || p.Args != nil || p.Missing.Absent() != s.Unsupported {
				t.Errorf("got %+v, want neither executable nor arguments", p)
			}
		}
	}
	if seen == 0 {
		t.Skip("none is visible here")
	}
}

// testForkStorm scans while processes come and go as fast as they can: none of
// that is an error, and what stays is in each scan.
func (s Source) testForkStorm(t *testing.T) {
	stays := zoo.Start(t, "wait", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var storm sync.WaitGroup
	defer storm.Wait()
	defer cancel()
	first := make(chan struct{})
	var once sync.Once
	for range 2 {
		storm.Go(func() {
			for ctx.Err() == nil {
				zoo.ForkAndExit()
				once.Do(func() { close(first) })
			}
		})
	}
	<-first
	scanner := s.host(t)
	vanished, scans := 0, 100
	if testing.Short() {
		scans = 20
	}
	for range scans {
		snap := Scan(t, scanner, true)
		vanished += snap.Vanished
		Whole(t, snap, stays.PID)
	}
	t.Logf("%d scans, %d processes vanished under them", scans, vanished)
}

func (s Source) testSnapshotIsReused(t *testing.T) {
	scanner := s.host(t)
	snap := collect.Snapshot{Observations: make([]collect.Observation, 0, 1<<16), Vanished: 7, Hidden: 7}
	want := &snap.Observations[:1][0]
	if err := scanner.Scan(t.Context(), false, &snap); err != nil {
		t.Fatal(err)
	}
	if &snap.Observations[0] != want {
		t.Error("the slice of the snapshot is not reused")
	}
	if snap.Hidden != 0 || !snap.Ended.After(snap.Began) {
		t.Errorf("snapshot from %v to %v, hidden %d", snap.Began, snap.Ended, snap.Hidden)
	}
}
