package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/supervisor/control"
)

// want compares a check, and holds it to the contract: what is not as it should be
// has a cost and a mend, and nothing else has.
func want(t *testing.T, c Check, status Status, finding string) {
	t.Helper()
	if c.Status != status || !strings.Contains(c.Finding, finding) {
		t.Errorf("%s is %s: %q, want %s: %q", c.Name, c.Status, c.Finding, status, finding)
	}
	if full := c.Cost != "" && c.Mend != ""; full != (status != Pass) || (c.Cost == "") != (c.Mend == "") {
		t.Errorf("%s is %s, costs %q, mend %q", c.Name, c.Status, c.Cost, c.Mend)
	}
}

func TestDaemon(t *testing.T) {
	state := func(health string) Daemon {
		return Daemon{State: &control.State{Health: health, PID: 7, Running: health != control.HealthNotRunning, Mode: "standalone", Reasons: []string{"Because."}}}
	}
	for _, c := range []struct {
		daemon  Daemon
		status  Status
		finding string
	}{
		{state(control.HealthHealthy), Pass, "healthy, pid 7, standalone"},
		{state(control.HealthDegraded), Note, "degraded, pid 7: Because."},
		{state(control.HealthUnhealthy), Fail, "unhealthy"},
		{state(control.HealthNotResponding), Fail, "not responding"},
		{state(control.HealthNotRunning), Note, "No daemon runs"},
		{Daemon{Err: fmt.Errorf("ask: %w", control.ErrForbidden)}, Note, "may not ask"},
		{Daemon{Err: errors.New("boom")}, Fail, "boom"},
	} {
		e := examiner{Config: Config{Daemon: c.daemon}}
		want(t, e.daemon(), c.status, c.finding)
	}
}

func TestConfiguration(t *testing.T) {
	e := examiner{}
	want(t, e.configuration(), Pass, "Nothing is wrong")
	e.Faults = []string{"file x:1: interval", "file x:2: id"}
	want(t, e.configuration(), Fail, "file x:1: interval; file x:2: id")
}

func TestDisk(t *testing.T) {
	roomy := space{free: 10 << 30, files: 1e6, counted: true}
	for _, c := range []struct {
		change  func(*space)
		used    uint64
		keep    uint64
		status  Status
		finding string
	}{
		{func(*space) {}, 1 << 20, 1 << 30, Pass, "10.0 GiB free on the file system of /d; the store has 1 MiB of at most 1.0 GiB"},
		{func(*space) {}, 0, 0, Pass, "without a bound"},
		{func(s *space) { s.free = 500 << 20 }, 600 << 20, 1 << 30, Pass, ""}, // what it has counts
		{func(s *space) { s.free = 500 << 20 }, 100 << 20, 1 << 30, Note, "500 MiB free"},
		{func(s *space) { s.free = 63 << 20 }, 0, 0, Fail, ""},
		{func(s *space) { s.files = 5 }, 0, 0, Fail, ""},
		{func(s *space) { s.files, s.counted = 0, false }, 0, 0, Pass, ""},
		{func(s *space) { s.readOnly = true }, 0, 0, Fail, "read-only"},
		{func(s *space) { s.kind = "tmpfs" }, 0, 0, Note, ""},
		{func(s *space) { s.kind = "nfs" }, 0, 0, Note, ""},
	} {
		s := roomy
		c.change(&s)
		check := Check{Name: "disk", Status: Pass}
		judgeDisk(&check, s, "/d", c.used, c.keep)
		want(t, check, c.status, c.finding)
	}
	e := examiner{Config: Config{Database: filepath.Join(t.TempDir(), "not", "there")}}
	if got := e.disk(); !strings.Contains(got.Finding, "free on the file system of") {
		t.Errorf("disk: %+v", got)
	}
}

func TestOpenFiles(t *testing.T) {
	want(t, judgeFiles("It", 255), Fail, "It may have 255 files open")
	want(t, judgeFiles("It", 1000), Note, "")
	want(t, judgeFiles("It", 1024), Pass, "")
	want(t, judgeFiles("It", 1<<60), Pass, "any number")
}

func TestWallClock(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	want(t, wallClock(now, time.Time{}), Pass, "The wall clock says")
	want(t, wallClock(now, now.Add(30*time.Second)), Pass, "")
	want(t, wallClock(now, now.Add(time.Hour)), Fail, "The store was written at")
	want(t, wallClock(time.Unix(0, 0), time.Time{}), Fail, "")
}

func TestStore(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil { //nolint:gosec // others may pass
		t.Fatal(err)
	}
	place := filepath.Join(open, "p.db")
	e := examiner{Config: Config{Database: place}}
	want(t, e.store(), Pass, "does not exist yet and can be made")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, e.store(), Pass, fmt.Sprintf("%s is of user %d, mode 0700", place, os.Getuid()))
	if err := os.Chmod(place, 0o750); err != nil { //nolint:gosec // that is what is found
		t.Fatal(err)
	}
	want(t, e.store(), Fail, "mode 0750")
	if err := os.Chmod(open, 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, e.store(), Pass, "") // nobody gets there
	e.Database = filepath.Join(open, "file")
	if err := os.WriteFile(e.Database, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, e.store(), Fail, "is not a directory")
	if os.Getuid() == 0 {
		return // root may do everything
	}
	e.Database = "/proc/p.db"
	want(t, e.store(), Note, "this user can not make it")
}

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T, path string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func TestSocket(t *testing.T) {
	dir := shortDir(t)
	e := examiner{Config: Config{Database: filepath.Join(dir, "p.db")}}
	path, err := control.SocketPath(e.Database)
	if err != nil {
		t.Fatal(err)
	}
	want(t, e.socket(), Pass, "is not there")
	listen(t, path)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, e.socket(), Pass, "mode 0600")
	if err := errors.Join(os.Chmod(path, 0o666), os.Chmod(dir, 0o755)); err != nil { //nolint:gosec // that is what is found
		t.Fatal(err)
	}
	want(t, e.socket(), Fail, "mode 0666")
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, e.socket(), Fail, "is not a socket")
}

func TestAgent(t *testing.T) {
	dir := shortDir(t)
	e := examiner{Config: Config{ID: "collector-1"}}
	want(t, e.agent(t.Context()), Pass, "None is named")
	e.Broker = filepath.Join(dir, "b.sock")
	want(t, e.agent(t.Context()), Fail, "Nobody answers on "+e.Broker+": no such file")
	listen(t, e.Broker)
	want(t, e.agent(t.Context()), Fail, "secrets/collector-1 can not be read: no such file")
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets", "collector-1"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, e.agent(t.Context()), Pass, "the secret of collector-1 is there")
	// A running daemon knows better than our environment.
	e.Daemon.State = &control.State{Running: true, Link: &control.Link{Socket: filepath.Join(dir, "other"), ID: "x"}}
	want(t, e.agent(t.Context()), Fail, "Nobody answers on "+filepath.Join(dir, "other"))
}

func TestExamineThisHost(t *testing.T) {
	r := Examine(t.Context(), Config{Self: os.Getpid(), Proc: "/proc", Sys: "/sys", Listen: func() kernel.Status { return kernel.Status{Source: "ebpf"} }, Database: filepath.Join(t.TempDir(), "p.db")})
	worst := Pass
	for _, c := range r.Checks {
		want(t, c, c.Status, "")
		if c.Finding == "" || strings.Contains(c.Finding, "%!") {
			t.Errorf("%s finds %q", c.Name, c.Finding)
		}
		worst = worse(worst, c.Status)
	}
	if len(r.Checks) < 9 || r.Status != worst || r.Count(Pass)+r.Count(Note)+r.Count(Fail) != len(r.Checks) {
		t.Errorf("report is %+v", r)
	}
}
