package procfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/internal/zoo"
)

const containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// around is what is around a made-up process; what is empty is not there.
type around struct {
	statm, cgroup, loginuid, sessionid, environ, cwd string
	namespaces                                       map[string]string
}

// surrounded is a process in a container.
var surrounded = around{
	statm: "900 400 20 1 0 99 0\n", cgroup: "0::/docker/" + containerID + "\n", loginuid: "1000", sessionid: "3",
	environ: "LANG=C\x00HOME=/root\x00TOKEN=x\x00", cwd: "/srv",
	namespaces: map[string]string{"mnt": "mnt:[77]", "net": "net:[2]", "pid": "pid:[78]"},
}

// fixture is a made-up /proc, with what only this source reads.
type fixture struct{ zoo.Fixture }

func newFixture(t testing.TB) fixture { return fixture{zoo.NewFixture(t)} }

// surround puts something around a process.
func (f fixture) surround(pid int, a around) {
	f.T.Helper()
	f.surroundAt(f.Path(pid, ""), a)
}

func (f fixture) surroundAt(dir string, a around) {
	f.T.Helper()
	f.Must(os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	for name, content := range map[string]string{
		"statm": a.statm, "cgroup": a.cgroup, "loginuid": a.loginuid, "sessionid": a.sessionid, "environ": a.environ,
	} {
		f.Must(os.RemoveAll(filepath.Join(dir, name)))
		if content != "" {
			f.Must(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
	}
	links := map[string]string{"cwd": a.cwd}
	for name, target := range a.namespaces {
		links[filepath.Join("ns", name)] = target
	}
	for name, target := range links {
		f.Must(os.RemoveAll(filepath.Join(dir, name)))
		if target != "" {
			f.Must(os.Symlink(target, filepath.Join(dir, name)))
		}
	}
}

// putSelf makes up the daemon: a kernel with three types of namespaces, and audit.
func (f fixture) putSelf() {
	f.T.Helper()
	f.surroundAt(filepath.Join(f.Dir, "self"), around{
		loginuid: "4294967295", sessionid: "4294967295",
		namespaces: map[string]string{"mnt": "mnt:[1]", "net": "net:[2]", "pid": "pid:[3]"},
	})
}

// enhancedFixture is a process in a container, and a scanner that reads all of it.
func enhancedFixture(t *testing.T, pid int, a around) (fixture, *Scanner) {
	t.Helper()
	f := newFixture(t)
	f.putSelf()
	f.Put(pid, zoo.Sleeper(pid, 1))
	f.surround(pid, a)
	s := newScanner(t, Config{Proc: f.Dir, Enhanced: true, Env: []string{"LANG", "TOKEN"}, Patience: 20 * time.Millisecond})
	s.enhanced.exact = true // whatever this kernel does
	return f, s
}
