package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fixture is an examiner of process 7 and of a host that has these files.
func fixture(t *testing.T, files map[string]string) *examiner {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &examiner{
		Config: Config{Proc: filepath.Join(root, "proc"), Sys: filepath.Join(root, "sys"), Self: 8},
		pid:    7, subject: "The daemon",
	}
}

const (
	allCaps  = "Name:\tx\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 4\nCapEff:\t000001ffffffffff\n"
	noCaps   = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t27 99\nCapEff:\t0000000000000000\n"
	ptrace   = "Uid:\t990\t990\t990\t990\nCapEff:\t0000000000080000\n"
	procLine = "21 28 0:19 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw"
)

func TestKernel(t *testing.T) {
	want(t, fixture(t, map[string]string{"proc/sys/kernel/osrelease": "6.18.4-generic"}).kernel(), Pass, "Linux 6.18.4-generic.")
	want(t, fixture(t, map[string]string{"proc/sys/kernel/osrelease": "2.6.32"}).kernel(), Note, "")
	want(t, fixture(t, nil).kernel(), Note, "")
}

func TestRights(t *testing.T) {
	want(t, fixture(t, map[string]string{"proc/7/status": allCaps}).rights(), Pass, "user id 0 and may see everything")
	want(t, fixture(t, map[string]string{"proc/7/status": noCaps}).rights(), Note, "user id 1000 and lacks CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH")
	want(t, fixture(t, map[string]string{"proc/7/status": ptrace}).rights(), Note, "lacks CAP_DAC_READ_SEARCH")
	want(t, fixture(t, map[string]string{"proc/8/status": ptrace}).ownRights(), Pass, "You have user id 990 and CAP_SYS_PTRACE.")
}

// Root of a user namespace is nobody to the host.
func TestRightsInUserNamespace(t *testing.T) {
	files := map[string]string{
		"proc/7/status": allCaps, "proc/7/uid_map": "         0      65534          1",
		"proc/7/mountinfo": procLine + ",hidepid=2",
	}
	want(t, fixture(t, files).rights(), Note, "user id 0 of a user namespace")
	want(t, fixture(t, files).hidepid(), Fail, "hidepid=2")
	files["proc/7/uid_map"] = "         0          0 4294967295"
	want(t, fixture(t, files).rights(), Pass, "may see everything")
	want(t, fixture(t, files).hidepid(), Pass, "sees everything all the same")
}

func TestPIDNamespace(t *testing.T) {
	for space, status := range map[string]Status{"pid:[4026531836]": Pass, "pid:[4026532001]": Note} {
		e := fixture(t, map[string]string{"proc/7/mountinfo": procLine, "proc/7/ns/.keep": ""})
		if err := os.Symlink(space, filepath.Join(e.Proc, "7/ns/pid")); err != nil {
			t.Fatal(err)
		}
		want(t, e.hidepid(), status, "hidepid=off")
	}
}

func TestHidepid(t *testing.T) {
	for _, c := range []struct {
		options string
		rights  string
		status  Status
		finding string
	}{
		{"", noCaps, Pass, "hidepid=off"},
		{",hidepid=0", noCaps, Pass, "hidepid=0"},
		{",hidepid=1", noCaps, Note, "hidepid=1"},
		{",hidepid=2", noCaps, Fail, "hidepid=2"},
		{",hidepid=invisible", noCaps, Fail, "hidepid=invisible"},
		{",hidepid=noaccess", noCaps, Note, ""},
		{",hidepid=ptraceable", noCaps, Fail, ""},
		{",hidepid=invisible", allCaps, Pass, "sees everything all the same"},
		{",hidepid=ptraceable", ptrace, Pass, "sees everything all the same"},
		{",gid=99,hidepid=2", noCaps, Pass, "sees everything all the same"},
		{",gid=99,hidepid=ptraceable", noCaps, Fail, ""},
		{",gid=9,hidepid=2", noCaps, Fail, ""},
		{",subset=pid", allCaps, Fail, "subset=pid"},
	} {
		mounts := "20 1 8:1 / / rw - ext4 /dev/sda1 rw,hidepid=2\n" + procLine + ",hidepid=2\n" + procLine + c.options
		e := fixture(t, map[string]string{"proc/7/mountinfo": mounts, "proc/7/status": c.rights})
		want(t, e.hidepid(), c.status, c.finding)
	}
	e := fixture(t, map[string]string{"proc/self/mountinfo": procLine + ",hidepid=2", "proc/7/status": noCaps})
	want(t, e.hidepid(), Fail, "hidepid=2") // the daemon's own is not for us
}

func TestPIDs(t *testing.T) {
	host := func(most, load string) *examiner {
		return fixture(t, map[string]string{"proc/sys/kernel/pid_max": most, "proc/loadavg": load})
	}
	want(t, host("4194304", "0.1 0.2 0.3 2/345 9999").pids(), Pass, "room for 4194304 threads and processes and has 345.")
	want(t, host("32768", "x").pids(), Pass, "room for 32768 threads and processes.")
	want(t, host("1000", "0 0 0 1/100 5").pids(), Note, "")
	want(t, host("32768", "0 0 0 1/30000 5").pids(), Fail, "has 30000")
	if c := fixture(t, nil).pids(); c.Status != "" {
		t.Errorf("a host that does not say: %+v", c)
	}
}

func TestMemory(t *testing.T) {
	const v2 = "0::/system.slice/procmond.service"
	for name, c := range map[string]struct {
		files   map[string]string
		status  Status
		finding string
	}{
		"none":             {map[string]string{"proc/7/cgroup": v2}, Pass, "sets no limit"},
		"no groups at all": {nil, Pass, "sets no limit"},
		"max": {map[string]string{
			"proc/7/cgroup": v2, "sys/fs/cgroup/system.slice/procmond.service/memory.max": "max",
		}, Pass, "sets no limit"},
		"roomy": {map[string]string{
			"proc/7/cgroup": v2, "sys/fs/cgroup/system.slice/procmond.service/memory.max": "268435456",
		}, Pass, "The control group /system.slice/procmond.service allows 256 MiB."},
		"of the parent": {map[string]string{
			"proc/7/cgroup": v2, "sys/fs/cgroup/system.slice/procmond.service/memory.max": "268435456", "sys/fs/cgroup/system.slice/memory.max": "104857600",
		}, Note, "/system.slice allows 100 MiB"},
		"tight": {map[string]string{
			"proc/7/cgroup": v2, "sys/fs/cgroup/system.slice/procmond.service/memory.max": "33554432",
		}, Fail, "32 MiB"},
		"container": {map[string]string{"proc/7/cgroup": "0::/", "sys/fs/cgroup/memory.max": "33554432"}, Fail, "The control group / allows 32 MiB"},
		"version 1": {map[string]string{
			"proc/7/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc", "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "33554432",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
		}, Fail, "/docker/abc allows 32 MiB"},
		"version 1 without": {map[string]string{
			"proc/7/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
		}, Pass, "sets no limit"},
		"out of the mount": {map[string]string{"proc/7/cgroup": "0::/../../x", "sys/fs/cgroup/memory.max": "33554432"}, Fail, "32 MiB"},
	} {
		t.Run(name, func(t *testing.T) { want(t, fixture(t, c.files).memory(), c.status, c.finding) })
	}
}

func TestLimits(t *testing.T) {
	limits := func(soft string) *examiner {
		return fixture(t, map[string]string{"proc/7/limits": "Limit                     Soft Limit           Hard Limit           Units\n" +
			"Max open files            " + soft + "                 524288               files"})
	}
	want(t, limits("64").files(), Fail, "The daemon may have 64 files open")
	want(t, limits("4096").files(), Pass, "4096")
	want(t, limits("unlimited").files(), Pass, "any number")
	if c := fixture(t, nil).files(); c.Status != "" {
		t.Errorf("a host that does not say: %+v", c)
	}
}

func TestBootShift(t *testing.T) {
	if got := bootShift("monotonic           0         0\nboottime     -86400         0\n"); got != "-86400" {
		t.Errorf("shift is %q", got)
	}
	if got := bootShift("monotonic 0 0\nboottime 0 0\n"); got != "" {
		t.Errorf("shift is %q", got)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(procLine + ",hidepid=2")
	f.Add("- - - - /proc - proc x")
	f.Fuzz(func(_ *testing.T, text string) { procOptions(strings.ToValidUTF8(text, "?")) })
}
