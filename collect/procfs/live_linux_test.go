package procfs

import (
	"context"
	"encoding/json"
	"io"
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
)

// with returns a change of the arguments.
func with(args ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Args = args }
}

func TestStartedProcess(t *testing.T) {
	s := newScanner(t, Config{})
	scan(t, s, false)
	before := time.Now()
	c := start(t, "wait", with("watched", "one", "two words"))
	o := whole(t, scan(t, s, false), c.pid)
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
	if p.Missing.Absent() != unsupported {
		t.Errorf("missing %+v", p.Missing)
	}
	if d := p.StartTime.Sub(before); d < -time.Second || d > time.Minute {
		t.Errorf("started %v after it was started", d)
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(int(c.pid)), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(string(b)); strconv.FormatUint(o.StartTicks, 10) != fields[21] {
		t.Errorf("start %d, want %s", o.StartTicks, fields[21])
	}
}

func TestExecInPlace(t *testing.T) {
	s := newScanner(t, Config{})
	c := start(t, "exec", with("first", "image"))
	first := whole(t, scan(t, s, false), c.pid)
	c.act()
	second := whole(t, scan(t, s, false), c.pid)
	if first.StartTicks != second.StartTicks || first.ExecChanged || !second.ExecChanged {
		t.Errorf("first %+v\nsecond %+v\nwant one process and an exec in the second", first, second)
	}
	if d := cmp.Diff([]string{"second", "image"}, second.Process.Args); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestRenameIsNoExec(t *testing.T) {
	s := newScanner(t, Config{})
	c := start(t, "rename a)\n\\ (b", nil)
	scan(t, s, false)
	c.act()
	o := whole(t, scan(t, s, false), c.pid)
	if o.Process.Name != "a)\n\\ (b" || o.ExecChanged {
		t.Errorf("name %q, exec %v", o.Process.Name, o.ExecChanged)
	}
}

func TestUserAndGroupIDs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can take other ids")
	}
	c := start(t, "ids", nil)
	c.act()
	p := whole(t, scan(t, newScanner(t, Config{}), false), c.pid).Process
	if got := []uint32{p.UID, p.EUID, p.GID, p.EGID}; !cmp.Equal(got, []uint32{1001, 1002, 1003, 1004}) {
		t.Errorf("ids %v", got)
	}
}

func TestZombie(t *testing.T) {
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
			s := newScanner(t, Config{})
			c := start(t, tt.role, nil)
			if tt.kill {
				scan(t, s, false)
				if err := c.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			c.ended()
			o := observed(t, scan(t, s, !tt.kill), c.pid)
			if o.State != event.StateZombie || o.Threads > 1 || o.Exit == nil {
				t.Fatalf("got %+v, want a zombie that says how it ended", o)
			}
			tt.want.CPU = o.CPU
			if d := cmp.Diff(&tt.want, o.Exit); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			p := whole(t, scan(t, s, true), c.pid).Process
			if p.Exe != "" || p.Args != nil || !p.Missing.Gone.Has(event.FieldExe) || !p.Missing.Gone.Has(event.FieldArgs) {
				t.Errorf("got %+v, want executable and arguments gone", p)
			}
		})
	}
}

func TestProcessOutlivesItsFirstThread(t *testing.T) {
	s := newScanner(t, Config{})
	c := start(t, "leader", nil)
	scan(t, s, false)
	c.act()
	o := observed(t, scan(t, s, false), c.pid)
	if o.State != event.StateZombie || o.Threads < 2 || o.Exit != nil || o.ExecChanged {
		t.Errorf("got %+v, want a process without its first thread", o)
	}
}

// copyBinary copies the test binary.
func copyBinary(t *testing.T, name string) string {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	path := filepath.Join(t.TempDir(), name)
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeletedExecutable(t *testing.T) {
	for _, name := range []string{"plain", "named (deleted)"} {
		t.Run(name, func(t *testing.T) {
			path := copyBinary(t, name)
			c := start(t, "wait", func(cmd *exec.Cmd) { cmd.Path = path })
			s := newScanner(t, Config{})
			if p := whole(t, scan(t, s, true), c.pid).Process; p.Exe != path || p.ExeDeleted {
				t.Errorf("before: %q, deleted %v, want %q", p.Exe, p.ExeDeleted, path)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if p := whole(t, scan(t, s, true), c.pid).Process; p.Exe != path || !p.ExeDeleted {
				t.Errorf("after: %q, deleted %v, want %q, deleted", p.Exe, p.ExeDeleted, path)
			}
		})
	}
}

func TestMovedExecutableIsNoExec(t *testing.T) {
	path := copyBinary(t, "before")
	c := start(t, "wait", func(cmd *exec.Cmd) { cmd.Path = path })
	s := newScanner(t, Config{})
	scan(t, s, false)
	if err := os.Rename(path, path+"-moved"); err != nil {
		t.Fatal(err)
	}
	if o := whole(t, scan(t, s, true), c.pid); o.Process.Exe != path+"-moved" || o.ExecChanged {
		t.Errorf("executable %q, exec %v", o.Process.Exe, o.ExecChanged)
	}
}

func TestArguments(t *testing.T) {
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
			c := start(t, "wait", with(tt.args...))
			p := whole(t, scan(t, newScanner(t, Config{}), false), c.pid).Process
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

func TestOrdinaryUserSeesWhatItMay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	living, dead := start(t, "wait", with("watched")), start(t, "exit 0", nil)
	dead.ended()
	look := func(pid int32) (o collect.Observation) {
		nobody := start(t, "probe "+strconv.Itoa(int(pid)), func(c *exec.Cmd) {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		})
		if _, err := io.WriteString(nobody.in, "\n"); err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(nobody.out).Decode(&o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	p := look(living.pid).Process
	want := event.Mask{Unsupported: p.Missing.Unsupported}
	want.Denied = want.Denied.With(event.FieldExe).With(event.FieldExeDeleted).
		With(event.FieldCWD).With(event.FieldNamespaces).With(event.FieldEnv)
	if p.Missing != want || p.Cgroup == "" || !cmp.Equal(p.Args, []string{"watched"}) || p.StartTicks == 0 {
		t.Errorf("got %+v, want all but the executable, and what else is the owner's", p)
	}
	if o := look(dead.pid); o.State != event.StateZombie || o.Exit != nil {
		t.Errorf("got %+v, want a zombie whose exit code is not known", o)
	}
}

func TestKernelThreadsOfThisHost(t *testing.T) {
	seen := 0
	for _, o := range scan(t, newScanner(t, Config{}), false).Observations {
		if p := o.Process; p.PPID == 2 || p.PID == 2 && p.Name == "kthreadd" {
			seen++
			if p.Exe != "" || p.Args != nil || p.Missing.Absent() != unsupported {
				t.Errorf("got %+v, want neither executable nor arguments", p)
			}
		}
	}
	if seen == 0 {
		t.Skip("none is visible here")
	}
}

// TestForkStorm scans while processes come and go as fast as they can: none of
// that is an error, and what stays is in each scan.
func TestForkStorm(t *testing.T) {
	stays := start(t, "wait", nil)
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
				forkAndExit()
				once.Do(func() { close(first) })
			}
		})
	}
	<-first
	s := newScanner(t, Config{})
	vanished, scans := 0, 100
	if testing.Short() {
		scans = 20
	}
	for range scans {
		snap := scan(t, s, true)
		vanished += snap.Vanished
		whole(t, snap, stays.pid)
	}
	t.Logf("%d scans, %d processes vanished under them", scans, vanished)
}

// forkAndExit runs one process that ends at once.
func forkAndExit() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVariable + "=exit 0"}
	_ = cmd.Run() // how it ends does not matter
}

func TestSnapshotIsReused(t *testing.T) {
	s := newScanner(t, Config{})
	snap := collect.Snapshot{Observations: make([]collect.Observation, 0, 1<<16), Vanished: 7, Hidden: 7}
	want := &snap.Observations[:1][0]
	if err := s.Scan(t.Context(), false, &snap); err != nil {
		t.Fatal(err)
	}
	if &snap.Observations[0] != want {
		t.Error("the slice of the snapshot is not reused")
	}
	if snap.Hidden != 0 || !snap.Ended.After(snap.Began) {
		t.Errorf("snapshot from %v to %v, hidden %d", snap.Began, snap.Ended, snap.Hidden)
	}
}
