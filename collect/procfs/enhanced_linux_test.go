package procfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/scantest"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

func TestEnhancedRecord(t *testing.T) {
	_, s := enhancedFixture(t, 4711, surrounded)
	o := scantest.Whole(t, scantest.Scan(t, s, false), 4711)
	p := o.Process
	size := 400 * uint64(os.Getpagesize())
	want := &event.Process{
		CWD: "/srv", Cgroup: "/docker/" + containerID, ContainerID: containerID, LoginUID: 1000, LoginSession: 3,
		Namespaces: []event.Namespace{{Type: "mnt", Inode: 77}, {Type: "pid", Inode: 78}},
		Env:        []string{"LANG=C", "TOKEN=x"}, RSS: size, RSSKind: event.RSSExact,
	}
	got := &event.Process{
		CWD: p.CWD, Cgroup: p.Cgroup, ContainerID: p.ContainerID, LoginUID: p.LoginUID, LoginSession: p.LoginSession,
		Namespaces: p.Namespaces, Env: p.Env, RSS: p.RSS, RSSKind: p.RSSKind, Missing: p.Missing,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if o.RSS != size || o.RSSKind != event.RSSExact || !cmp.Equal(p.Args, []string{"sleeper", "--for", "ever"}) || p.Session != 815 {
		t.Errorf("observation %+v of %+v", o, p)
	}
}

// TestEnhancedChanges: each of them is reported within 30 scans, once.
func TestEnhancedChanges(t *testing.T) {
	for name, change := range map[string]func(*around){
		"cwd":       func(a *around) { a.cwd = "/" },
		"cgroup":    func(a *around) { a.cgroup = "0::/other\n" },
		"login":     func(a *around) { a.loginuid = "0" },
		"session":   func(a *around) { a.sessionid = "4" },
		"namespace": func(a *around) { a.namespaces = map[string]string{"mnt": "mnt:[1]"} },
		"env":       func(a *around) { a.environ = "LANG=D\x00" },
		"denied":    func(a *around) { a.cwd = "" },
	} {
		t.Run(name, func(t *testing.T) {
			f, s := enhancedFixture(t, 1, surrounded)
			scantest.Scan(t, s, false)
			a := surrounded
			a.namespaces = map[string]string{"mnt": "mnt:[77]", "net": "net:[2]", "pid": "pid:[78]"}
			change(&a)
			f.surround(1, a)
			reports := 0
			for range 2 * rereadEvery {
				if scantest.Observed(t, scantest.Scan(t, s, false), 1).Process != nil {
					reports++
				}
			}
			if reports != 1 {
				t.Errorf("%d reports, want 1", reports)
			}
		})
	}
}

// TestEnvironmentThatWasNotAskedFor is not even noticed.
func TestEnvironmentThatWasNotAskedFor(t *testing.T) {
	f, _ := enhancedFixture(t, 1, surrounded)
	for _, c := range []Config{{Proc: f.Dir, Env: []string{"LANG"}}, {Proc: f.Dir, Enhanced: true}} {
		p := scantest.Whole(t, scantest.Scan(t, newScanner(t, c), false), 1).Process
		if len(p.Env) > 0 || !p.Missing.Unsupported.Has(event.FieldEnv) {
			t.Errorf("%+v: environment %q, missing %+v", c, p.Env, p.Missing)
		}
	}
	e := surrounded
	e.environ = "LANG=C\x00HOME=/elsewhere\x00TOKEN=x\x00"
	s := newScanner(t, Config{Proc: f.Dir, Enhanced: true, Env: []string{"LANG"}})
	scantest.Scan(t, s, false)
	f.surround(1, e)
	for range rereadEvery {
		if p := scantest.Observed(t, scantest.Scan(t, s, false), 1).Process; p != nil {
			t.Errorf("reported: %+v", p)
		}
	}
}

func TestExactMemoryOfEachScan(t *testing.T) {
	f, s := enhancedFixture(t, 1, surrounded)
	size := uint64(os.Getpagesize())
	look := func(statm string, pages uint64, kind event.RSSKind) {
		t.Helper()
		f.surround(1, around{statm: statm})
		if o := scantest.Observed(t, scantest.Scan(t, s, false), 1); o.RSS != pages*size || o.RSSKind != kind {
			t.Errorf("statm %q: %d pages, %v, want %d, %v", statm, o.RSS/size, o.RSSKind, pages, kind)
		}
	}
	look("1 400 0 0 0 0 0\n", 400, event.RSSExact)
	look("1 9 0 0 0 0 0\n", 9, event.RSSExact)
	look("1 0 0 0 0 0 0\n", 0, event.RSSExact)
	look("", 362, event.RSSApproximate) // that of stat
	look("nonsense", 362, event.RSSApproximate)
	s.enhanced.exact = false
	look("1 9 0 0 0 0 0\n", 362, event.RSSApproximate)
	if s.RSSKind() != event.RSSApproximate {
		t.Errorf("kind %v", s.RSSKind())
	}
}

// TestMemoryOfARecycledPID gives the PID to another process between the two files
// of a known one: the memory of the one is never that of the other.
func TestMemoryOfARecycledPID(t *testing.T) {
	f, s := enhancedFixture(t, 1, surrounded)
	scantest.Scan(t, s, false)
	for s.scans++; s.turn(1); s.scans++ { // not its turn in the scan that matters
	}
	s.scans--
	size, readKnown := uint64(os.Getpagesize()), s.readKnown
	s.readKnown = func(proc int, name string, buf []byte) (int, error) {
		n, err := readKnown(proc, name, buf)
		f.Put(1, zoo.Sleeper(1, 2))
		f.surround(1, around{statm: "1 7 0 0 0 0 0\n"})
		return n, err
	}
	if o := scantest.Observed(t, scantest.Scan(t, s, false), 1); o.RSS != 400*size && o.StartTicks == 1 || o.RSS != 7*size && o.StartTicks == 2 {
		t.Errorf("process that started at %d has %d pages", o.StartTicks, o.RSS/size)
	}
}

func TestMemoryOfWhatHasNone(t *testing.T) {
	_, s := enhancedFixture(t, 1, surrounded)
	st := func(flags uint32, state event.State, threads int32) *procfile.Stat {
		return &procfile.Stat{Flags: flags, State: state, Threads: threads, RSSPages: 5}
	}
	if m := s.memory(st(0x200000, 'S', 1), unread); m != (memory{kind: event.RSSExact}) {
		t.Errorf("kernel thread: %+v", m)
	}
	if m := s.memory(st(0, 'Z', 1), 7); m != (memory{kind: event.RSSExact}) {
		t.Errorf("zombie: %+v", m)
	}
	if m := s.memory(st(0, 'Z', 3), 0); m.kind != event.RSSApproximate {
		t.Errorf("process without its first thread: %+v", m)
	}
}

func TestEnhancedFieldsThatCanNotBeRead(t *testing.T) {
	fields := func(all ...event.Field) (set event.FieldSet) {
		for _, f := range all {
			set = set.With(f)
		}
		return set
	}
	login := fields(event.FieldLoginUID, event.FieldLoginSession)
	groups := fields(event.FieldCgroup, event.FieldContainer)
	rest := fields(event.FieldCWD, event.FieldNamespaces, event.FieldEnv)
	t.Run("absent", func(t *testing.T) {
		_, s := enhancedFixture(t, 1, around{})
		p := scantest.Whole(t, scantest.Scan(t, s, false), 1).Process
		if want := (event.Mask{Gone: login | groups | rest}); p.Missing != want {
			t.Errorf("missing %+v, want %+v", p.Missing, want)
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		_, s := enhancedFixture(t, 1, around{
			cgroup: "0::\n", loginuid: "root", sessionid: "-1", environ: "x", cwd: "/", namespaces: map[string]string{"mnt": "mnt"},
		})
		p := scantest.Whole(t, scantest.Scan(t, s, false), 1).Process
		if want := (event.Mask{Failed: login | groups | fields(event.FieldNamespaces)}); p.Missing != want || p.CWD != "/" {
			t.Errorf("missing %+v, want %+v", p.Missing, want)
		}
	})
	t.Run("not of this kernel", func(t *testing.T) {
		f, _ := enhancedFixture(t, 1, surrounded)
		f.Must(os.RemoveAll(filepath.Join(f.Dir, "self")))
		p := scantest.Whole(t, scantest.Scan(t, newScanner(t, Config{Proc: f.Dir, Enhanced: true, Env: []string{"LANG"}}), false), 1).Process
		if want := (event.Mask{Unsupported: login | fields(event.FieldNamespaces)}); p.Missing != want || p.CWD != "/srv" {
			t.Errorf("missing %+v, want %+v", p.Missing, want)
		}
	})
	for cgroup, gone := range map[string]bool{"0::/a.service\n": false, "4:memory:/\n0::/\n": true} {
		t.Run("zombie in "+cgroup, func(t *testing.T) {
			f, s := enhancedFixture(t, 1, surrounded)
			e := zoo.Sleeper(1, 1)
			e.Stat = strings.Replace(strings.Replace(e.Stat, ") S ", ") Z ", 1), " 20 0 3 0 ", " 20 0 1 0 ", 1)
			f.Put(1, e)
			f.surround(1, around{cgroup: cgroup, loginuid: "1000", sessionid: "3"})
			p := scantest.Whole(t, scantest.Scan(t, s, false), 1).Process
			want := event.Mask{Gone: rest | fields(event.FieldExe, event.FieldExeDeleted, event.FieldArgs)}
			if gone {
				want.Gone |= groups
			}
			if p.Missing != want || p.LoginUID != 1000 || (p.Cgroup == "") != gone {
				t.Errorf("missing %+v, want %+v, of %+v", p.Missing, want, p)
			}
		})
	}
	t.Run("kernel thread", func(t *testing.T) {
		f, s := enhancedFixture(t, 1, around{})
		e := zoo.Sleeper(2, 2)
		e.Stat = strings.Replace(e.Stat, " 4194304 ", " 69238880 ", 1)
		f.Put(2, e)
		a := surrounded
		a.cgroup, a.environ = "0::/\n", ""
		f.surround(2, a)
		p := scantest.Whole(t, scantest.Scan(t, s, false), 2).Process
		if !p.Missing.IsZero() || p.CWD != "" || p.Env != nil || p.Cgroup != "/" || len(p.Namespaces) != 2 {
			t.Errorf("got %+v", p)
		}
	})
}

func TestEnvironmentIsBounded(t *testing.T) {
	tests := map[string]struct {
		size int
		cut  bool
	}{"128 KiB": {128 << 10, false}, "too large": {procfile.MaxEnviron, true}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := surrounded
			a.environ = "LANG=C\x00HOME=" + strings.Repeat("x", tt.size) + "\x00TOKEN=x\x00"
			_, s := enhancedFixture(t, 1, a)
			p := scantest.Whole(t, scantest.Scan(t, s, false), 1).Process
			want := []string{"LANG=C", "TOKEN=x"}
			if tt.cut {
				want = want[:1]
			}
			if p.Missing.Truncated.Has(event.FieldEnv) != tt.cut || !cmp.Equal(p.Env, want) || len(p.Args) != 3 {
				t.Errorf("environment %q, missing %+v", p.Env, p.Missing)
			}
		})
	}
}

// TestHangingEnvironmentStopsNoScan: it is behind the same lock as the arguments.
func TestHangingEnvironmentStopsNoScan(t *testing.T) {
	f, s := enhancedFixture(t, 3, surrounded)
	f.Put(4, zoo.Sleeper(4, 1))
	f.surround(4, surrounded)
	release := f.hangAt(3, "environ", surrounded.environ)
	snap := scantest.Scan(t, s, false)
	p := scantest.Whole(t, snap, 3).Process
	if failed := p.Missing.Failed; !failed.Has(event.FieldEnv) || !failed.Has(event.FieldArgs) || len(p.Env) > 0 || p.CWD != "/srv" {
		t.Errorf("got %+v", p)
	}
	if p := scantest.Whole(t, snap, 4).Process; len(p.Env) != 2 || !p.Missing.IsZero() {
		t.Errorf("the next one: %+v", p)
	}
	release()
	awaitHung(t, s, 0)
	if p := scantest.Whole(t, scantest.Scan(t, s, true), 3).Process; len(p.Env) != 2 || len(p.Args) != 3 || !p.Missing.IsZero() {
		t.Errorf("afterwards: %+v", p)
	}
}

// enhancedHost reads this host.
func enhancedHost(t *testing.T) *Scanner {
	t.Helper()
	return newScanner(t, Config{Enhanced: true, Env: []string{zoo.RoleVariable, "SECOND"}})
}

func TestEnhancedOfAChild(t *testing.T) {
	s := enhancedHost(t)
	dir := t.TempDir()
	c := zoo.Start(t, "chdir "+dir, func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.Env = append(cmd.Env, "SECOND=\xff=\n", "THIRD=3")
	})
	p := scantest.Whole(t, scantest.Scan(t, s, false), c.PID).Process
	if !cmp.Equal(p.Env, []string{zoo.RoleVariable + "=chdir " + dir, "SECOND=\xff=\n"}) || p.CWD != "/" || len(p.Namespaces) > 0 ||
		p.Missing.Absent()&^s.enhanced.unsupported != 0 {
		t.Errorf("got %+v", p)
	}
	self := scantest.Whole(t, scantest.Scan(t, s, true), int32(os.Getpid())).Process
	if p.Cgroup != self.Cgroup || p.ContainerID != self.ContainerID || p.LoginUID != self.LoginUID || p.LoginSession != self.LoginSession {
		t.Errorf("the child has %+v, its parent %+v", p, self)
	}
	wantLogin(t, self)
	c.Act()
	for range rereadEvery {
		if o := scantest.Observed(t, scantest.Scan(t, s, false), c.PID); o.Process != nil {
			if o.Process.CWD != dir || o.ExecChanged {
				t.Errorf("directory %q, want %q; exec %v", o.Process.CWD, dir, o.ExecChanged)
			}
			return
		}
	}
	t.Error("the new directory was not seen")
}

// wantLogin compares with what the kernel says of this process.
func wantLogin(t *testing.T, self *event.Process) {
	t.Helper()
	for file, got := range map[string]uint32{"loginuid": self.LoginUID, "sessionid": self.LoginSession} {
		text, err := os.ReadFile("/proc/self/" + file)
		if err != nil {
			t.Logf("no audit in this kernel: %v", err)
			continue
		}
		if want := strings.TrimSpace(string(text)); strconv.FormatUint(uint64(got), 10) != want {
			t.Errorf("%s %d, want %s", file, got, want)
		}
	}
}

func TestDeletedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := zoo.Start(t, "wait", func(cmd *exec.Cmd) { cmd.Dir = dir })
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if p := scantest.Whole(t, scantest.Scan(t, enhancedHost(t), false), c.PID).Process; p.CWD != dir+procfile.DeletedMark {
		t.Errorf("directory %q", p.CWD)
	}
}

// TestOtherNamespaces: a process that was given namespaces of its own shows these
// and no other.
func TestOtherNamespaces(t *testing.T) {
	flags, want := uintptr(unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWIPC), []string{"ipc", "mnt", "net", "pid", "uts"}
	if os.Getuid() != 0 {
		flags |= unix.CLONE_NEWUSER
		want = []string{"ipc", "mnt", "net", "pid", "user", "uts"}
	}
	c := zoo.StartOrSkip(t, "wait", func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags} })
	p := scantest.Whole(t, scantest.Scan(t, enhancedHost(t), false), c.PID).Process
	var types []string
	for _, n := range p.Namespaces {
		types = append(types, n.Type)
		link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(int(c.PID)), "ns", n.Type))
		if err != nil || link != n.Type+":["+strconv.FormatUint(n.Inode, 10)+"]" {
			t.Errorf("%+v, want %s (%v)", n, link, err)
		}
	}
	if !cmp.Equal(types, want) {
		t.Errorf("types %q, want %q; missing %+v", types, want, p.Missing)
	}
}

// TestContainerOfAGroup puts a child into a group with the name of a container's.
func TestContainerOfAGroup(t *testing.T) {
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/memory"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			root = dir
			break
		}
	}
	if root == "" {
		t.Skip("no control groups here")
	}
	group := filepath.Join(root, "libpod-"+strings.Repeat("ab", 30)+strconv.Itoa(1000+os.Getpid()%9000)+".scope")
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("control groups can not be changed here: %v", err)
	}
	c := zoo.Start(t, "wait", nil)
	t.Cleanup(func() { // after the child
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.Kill)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(int(c.PID))), 0o600); err != nil {
		t.Skipf("a process can not be moved here: %v", err)
	}
	p := scantest.Whole(t, scantest.Scan(t, enhancedHost(t), false), c.PID).Process
	id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(group), "libpod-"), ".scope")
	if p.ContainerID != id || !strings.HasSuffix(p.Cgroup, "/"+filepath.Base(group)) {
		t.Errorf("group %q, container %q, want %q", p.Cgroup, p.ContainerID, id)
	}
}

// TestExactMemoryOfAChild: what is called exact is what the kernel sums up.
func TestExactMemoryOfAChild(t *testing.T) {
	s := enhancedHost(t)
	if kernel := kernelVersion(t); !s.enhanced.exact {
		if kernel >= 6_016 {
			t.Errorf("the memory of a kernel %d is not exact", kernel)
		}
		t.Skip("this kernel has no exact memory")
	}
	c := zoo.Start(t, "wait", nil)
	if err := c.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(c.PID), &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("child is not stopped: %v, %v", status, err)
	}
	t.Cleanup(func() { _ = c.Cmd.Process.Signal(syscall.SIGCONT) })
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(int(c.PID)), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	want, err := strconv.ParseUint(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range []bool{false, false, true} {
		if o := scantest.Observed(t, scantest.Scan(t, s, full), c.PID); o.RSS != want<<10 || o.RSSKind != event.RSSExact {
			t.Errorf("%d bytes, %v, want %d, exact", o.RSS, o.RSSKind, want<<10)
		}
	}
	if p := scantest.Whole(t, scantest.Scan(t, newScanner(t, Config{}), false), c.PID).Process; p.RSSKind != event.RSSApproximate {
		t.Errorf("without enhanced metadata: %v", p.RSSKind)
	} else {
		t.Logf("exact %d, approximate %d", want<<10, p.RSS)
	}
}

// kernelVersion is 6016 for 6.16.
func kernelVersion(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.FieldsFunc(string(text), func(r rune) bool { return r < '0' || r > '9' })
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	return major*1000 + minor
}
