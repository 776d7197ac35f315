package procfs

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// groupsOf is a made-up host on which process 7 started at tick 100, and a directory of
// control groups.
func groupsOf(t *testing.T, cgroup string) (fixture, *Groups) {
	t.Helper()
	f := newFixture(t)
	f.Put(7, zoo.Sleeper(7, 100))
	f.surround(7, around{cgroup: cgroup})
	g, err := NewGroups(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(g.proc) })
	g.unified = t.TempDir()
	return f, g
}

// group makes a group's directory, and returns its id.
func (g *Groups) make(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := os.MkdirAll(g.unified+path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(g.unified+path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

const started = 100 * procfile.Tick

func (g *Groups) expect(t *testing.T, what string, id uint64, want string) {
	t.Helper()
	path, container, ok := g.Of(7, started, id)
	if path != want || ok != (want != "") || (container != "") != (filepath.Base(want) == containerID) {
		t.Errorf("%s: group %q, container %q, %v, want %q", what, path, container, ok, want)
	}
}

// A path is remembered by its id, and only if it is that group's.
func TestGroupIsRemembered(t *testing.T) {
	f, g := groupsOf(t, "0::/docker/"+containerID+"\n")
	id := g.make(t, "/docker/"+containerID)
	other := g.make(t, "/other")
	g.expect(t, "of another id: it was moved since", other, "/docker/"+containerID)
	g.expect(t, "read", id, "/docker/"+containerID)
	f.surround(7, around{cgroup: "0::/other\n"})
	g.expect(t, "remembered", id, "/docker/"+containerID)
	g.expect(t, "the first is not", other, "/other")
	f.Remove(7)
	g.expect(t, "of one that is gone", other, "/other")
	g.expect(t, "no id", 0, "")
	for i := range uint64(maxGroups) {
		g.known[1<<40+i] = group{}
	}
	f.Put(7, zoo.Sleeper(7, 100))
	f.surround(7, around{cgroup: "0::/third\n"})
	if g.expect(t, "one more", g.make(t, "/third"), "/third"); len(g.known) != 1 {
		t.Errorf("%d are remembered", len(g.known))
	}
}

// Where there are several hierarchies the id of one says nothing of the others.
func TestMixedGroupsAreRead(t *testing.T) {
	for _, before := range []string{"0::/\n4:memory:", "4:memory:"} {
		f, g := groupsOf(t, before+"/a\n0::/\n")
		id := g.make(t, "/a")
		g.expect(t, "read", id, "/a")
		f.surround(7, around{cgroup: before + "/b\n0::/\n"})
		g.expect(t, "read again", id, "/b")
	}
}

// What belongs to another process is not taken for this one's.
func TestGroupOfAnother(t *testing.T) {
	f, g := groupsOf(t, "0::/a\n")
	for start, want := range map[time.Duration]string{started: "/a", started + procfile.Tick: "/a", started + 2*procfile.Tick: "", started - procfile.Tick: "", 0: ""} {
		if path, _, ok := g.Of(7, start, 0); path != want || ok != (want != "") {
			t.Errorf("started at %v: %q, want %q", start, path, want)
		}
	}
	f.surround(7, around{cgroup: "x\n"})
	g.expect(t, "no path", 0, "")
	f.surround(7, around{})
	g.expect(t, "no file", 0, "")
}

// TestGroupsLive asks for this process, and for none.
func TestGroupsLive(t *testing.T) {
	g, err := NewGroups("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(g.proc) })
	b, err := os.ReadFile("/proc/self/cgroup")
	var c procfile.Cgroup
	if err != nil || c.Parse(b) != nil {
		t.Skipf("cgroup %q: %v", b, err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	var st procfile.Stat
	if err != nil || st.Parse(stat) != nil {
		t.Fatalf("stat %q: %v", stat, err)
	}
	start := time.Duration(st.Start) * procfile.Tick
	if path, container, ok := g.Of(int32(os.Getpid()), start, 1); !ok || path != string(c.Path) || container != string(c.Container) {
		t.Errorf("group %q, container %q, %v, want %q", path, container, ok, c.Path)
	}
	if _, _, ok := g.Of(int32(os.Getpid()), start+time.Minute, 1); ok {
		t.Error("another one's is taken for its own")
	}
	if _, err := NewGroups(filepath.Join("/proc", strconv.Itoa(os.Getpid()), "no")); err == nil {
		t.Error("there is no such file system")
	}
}
