package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

func TestRunAndAsk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	agent := h.start("--collector", fakeProcmond(t))
	pid := h.runs()
	eventually(t, "the stream is in service", func() bool { return h.report().Stream.InService })

	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"status"}, 0, []string{"is steady", "children/procmond", "loading -> ready"}},
		{[]string{"collectors"}, 0, []string{"procmond", "healthy", fmt.Sprint(pid), "running"}},
		{[]string{"health", "procmond"}, 1, []string{"procmond is degraded", `a test\x1b[2J`}},
		{[]string{"health", "procmond", "-o", "json"}, 1, []string{`"health": "degraded"`}},
		{[]string{"health", "other"}, 3, []string{"no collector other is registered", "daemoneye-agent collectors"}},
		{[]string{"config", "procmond", "a=1", "b=x", "c=true"}, 0, []string{"a=1", `b="x"`, "c=true"}},
		{[]string{"config", "procmond", "bad=1"}, 1, []string{"refused", "bad: no such key"}},
		{[]string{"config", "procmond", "--validate", "a=1"}, 0, []string{"nothing was changed"}},
		{[]string{"interval", "procmond", "5"}, 0, []string{"every 5s (configured: 30s)"}},
		{[]string{"interval", "procmond", "--clear", "--json"}, 0, []string{`"current_ms": 5000`}},
		{[]string{"begin", "procmond"}, 0, []string{"was watching already"}},
		{[]string{"events"}, 0, []string{"COLLECTOR", "procmond", "start", "1002", `/bin/sleep\x1b[2J 2`}},
		{[]string{"events", "-n", "1", "-o", "json"}, 0, []string{`"pid":1002`, `"seq":3`}},
		{[]string{"events", "-n", "2", "--id", "procmond"}, 0, []string{"1001", "1002"}},
		{[]string{"events", "--id", "other"}, 0, nil},
	} {
		out, code := h.ask(c.args...)
		if code != c.code {
			t.Errorf("%v ended with %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v does not say %q: %s", c.args, want, out)
			}
		}
		if strings.Contains(out, "\x1b") || c.want == nil && out != "" {
			t.Errorf("%v prints %q", c.args, out)
		}
	}
	if out, _ := h.ask("events", "-n", "1", "-o", "json"); strings.Count(out, "\n") != 1 {
		t.Errorf("more than one: %s", out)
	}

	out, code := h.ask("shutdown", "procmond", "--reason", "test")
	if code != 0 || !strings.Contains(out, "Delivered up to 3") {
		t.Errorf("%d: %s", code, out)
	}
	eventually(t, "it is gone and stays so", func() bool {
		c := h.report().Collectors
		return !alive(pid) && len(c) == 1 && c[0].Child.State == "stopped" && c[0].Liveness == rpc.LivenessGone
	})
	agent.signal(syscall.SIGTERM)
	agent.ends(0)
	if _, code := h.ask("status"); code != 3 {
		t.Errorf("status ends with %d after the agent", code)
	}
}

func TestFollowEvents(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start("--collector", fakeProcmond(t), "--expect", "late")
	eventually(t, "the agent is up", func() bool { return h.report().State == "loading" })
	out, err := os.Create(filepath.Join(h.dir, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	follow := exec.Command("daemoneye-agent", "events", "--follow", "-o", "json", "--socket", h.socket())
	follow.Stdout, follow.Stderr = out, out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the operator can begin one alone", func() bool {
		_, code := h.ask("begin", "procmond")
		return code == 0
	})
	eventually(t, "what comes is shown", func() bool {
		text, _ := os.ReadFile(out.Name())
		return strings.Count(string(text), `"kind":"start"`) == 3
	})
	if err := follow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, code := h.ask("collectors"); code != 2 {
		t.Errorf("a missing collector is no worry: %d", code)
	}
}

func TestSecondAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	eventually(t, "the first is up", func() bool { return h.report().State == "steady" })
	out, code := h.ask("run", "--store", filepath.Join(h.dir, "other"))
	if code != int(exitInUse) || !strings.Contains(out, fmt.Sprintf("pid %d has", h.report().PID)) || !strings.Contains(out, "daemoneye-agent status") {
		t.Errorf("%d: %s", code, out)
	}
}

// The service manager hears that the agent is ready once clients find it, and not
// before.
func TestReadyMeansOpen(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(h.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	h.env = []string{"NOTIFY_SOCKET=" + manager.LocalAddr().String()}
	agent := h.start()
	word := make([]byte, 100)
	hear := func(want string) {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := manager.Read(word); err != nil || string(word[:n]) != want {
			t.Fatalf("heard %q, %v", word[:n], err)
		}
	}
	hear("READY=1")
	conn, err := net.Dial("unix", h.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if n, err := conn.Read(word[:5]); err != nil || string(word[:n]) != "INFO " {
		t.Errorf("the broker said %q, %v", word[:n], err)
	}
	agent.signal(syscall.SIGTERM)
	hear("STOPPING=1")
	agent.ends(0)
}

// Another socket and the same store.
func TestStoreOfAnother(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	eventually(t, "the first is up", func() bool { return h.report().Stream.InService })
	out, code := h.ask("run", "--socket", filepath.Join(h.dir, "two", "s"), "--store", filepath.Join(h.dir, "store"))
	if code != int(exitInUse) || !strings.Contains(out, "in use") {
		t.Errorf("%d: %s", code, out)
	}
}

func TestBadBrokerConfiguration(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	out, code := h.ask("run", "--store", filepath.Join(h.dir, "store"), "--listen", "0.0.0.0:4222", "--max-age", "1m", "--duplicate-window", "5m")
	if code != int(exitConfiguration) || !strings.Contains(out, "want a TLS certificate") || !strings.Contains(out, "duplicate window") {
		t.Errorf("%d: %s", code, out)
	}
}

// Collectors outlive a killed agent; the next one adopts them, and stops them.
func TestKilledAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := h.start("--collector", fakeProcmond(t))
	pid := h.runs()
	first.signal(syscall.SIGKILL)
	first.ends(-1)
	if !alive(pid) {
		t.Fatal("the collector died with its agent")
	}
	second := h.start("--collector", fakeProcmond(t))
	if again := h.runs(); again != pid {
		t.Errorf("pid %d, was %d", again, pid)
	}
	eventually(t, "it is adopted", func() bool { return h.report().Collectors[0].Child.State == "adopted" })
	second.signal(syscall.SIGTERM)
	second.ends(0)
	eventually(t, "the adopted one was stopped", func() bool { return !alive(pid) })
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	agent := h.start("--collector", fakeProcmond(t))
	pid := h.runs()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // so that it does not stop
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	agent.signal(syscall.SIGTERM)
	timer := time.NewTimer(secondSignalAfter + 100*time.Millisecond)
	<-timer.C
	agent.signal(syscall.SIGINT)
	agent.ends(int(exitForced))
}

func TestHopelessCollector(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start("--collector", fakeProcmond(t), "--collector-arg", "exit", "--collector-arg", "77")
	eventually(t, "why is said", func() bool {
		out, code := h.ask("collectors")
		return code == 2 && strings.Contains(out, "it lacks permission")
	})
}

// status reads a line of /proc/PID/status.
func status(t *testing.T, pid int, name string) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

const nobody = "65534"

// TestUser runs the broker as nobody: the parent keeps its privileges and does nothing
// else, collectors are root's, and outlive the broker.
func TestUser(t *testing.T) {
	if os.Getuid() != 0 || !exists("/proc/self/status") {
		t.Skip("needs root, and /proc")
	}
	t.Parallel()
	h := newHost(t)
	parent := h.start("--collector", fakeProcmond(t), "--user", nobody)
	pid := h.runs()
	broker := h.report().PID
	if broker == parent.cmd.Process.Pid {
		t.Fatal("the parent is the broker")
	}
	if uids, caps := status(t, broker, "Uid"), status(t, broker, "CapEff"); !slices.Equal(uids, []string{nobody, nobody, nobody, nobody}) || caps[0] != "0000000000000000" {
		t.Errorf("the broker has uids %v, capabilities %v", uids, caps)
	}
	if groups := status(t, broker, "Groups"); slices.Contains(groups, "0") {
		t.Errorf("the broker has groups %v", groups)
	}
	if uids, ppid := status(t, pid, "Uid"), status(t, pid, "PPid"); uids[0] != "0" || ppid[0] != strconv.Itoa(parent.cmd.Process.Pid) {
		t.Errorf("the collector has uids %v and parent %v", uids, ppid)
	}
	if sockets := socketsOf(t, parent.cmd.Process.Pid); sockets > 1 {
		t.Errorf("the parent has %d sockets: only the one to its child is needed", sockets)
	}
	for _, path := range []string{filepath.Dir(h.socket()), filepath.Join(h.dir, "store"), rpc.SecretPath(h.socket(), rpc.UserOperator)} {
		info, err := os.Stat(path)
		if err != nil || fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid) != nobody || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}

	if out, code := h.ask("enroll", "web-1", "--group", nobody); code != 0 { // by root
		t.Errorf("enroll: exit %d: %s", code, out)
	}
	if info, err := os.Stat(rpc.SecretPath(h.socket(), "web-1")); err != nil || info.Mode().Perm() != 0o640 ||
		fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid, info.Sys().(*syscall.Stat_t).Gid) != nobody+" "+nobody {
		t.Errorf("secret of web-1: %v %v", info, err)
	}

	if err := syscall.Kill(broker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another broker is started", func() bool { p := h.report().PID; return p != 0 && p != broker })
	if again := h.runs(); again != pid {
		t.Errorf("the collector has pid %d, had %d", again, pid)
	}
	if child := h.report().Collectors[0].Child; child.State != "running" || child.PID != pid {
		t.Errorf("the next broker does not know the process: %+v", child)
	}
	parent.signal(syscall.SIGTERM)
	parent.ends(0)
	if alive(pid) {
		t.Error("the collector is left")
	}
}

// A killed parent takes its child with it, in order; collectors go on.
func TestKilledParent(t *testing.T) {
	if os.Getuid() != 0 || !exists("/proc/self/status") {
		t.Skip("needs root, and /proc")
	}
	t.Parallel()
	h := newHost(t)
	parent := h.start("--collector", fakeProcmond(t), "--user", nobody)
	pid := h.runs()
	broker := h.report().PID
	parent.signal(syscall.SIGKILL)
	eventually(t, "the broker ends", func() bool { return !alive(broker) })
	if !alive(pid) {
		t.Error("the collector ended")
	}
	next := h.start("--collector", fakeProcmond(t), "--user", nobody)
	if again := h.runs(); again != pid {
		t.Errorf("the collector has pid %d, had %d", again, pid)
	}
	next.signal(syscall.SIGTERM)
	next.ends(0)
	eventually(t, "the collector was stopped", func() bool { return !alive(pid) })
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func socketsOf(t *testing.T, pid int) int {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func TestGiveDirFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := giveDir(filepath.Join(dir, "link"), 65534, 65534, 0o700); err == nil {
		t.Error("a link was followed")
	}
	for dir, shared := range map[string]bool{
		"/": true, "/tmp": true, "/opt/": true, "/var/lib": true, "/var/../run": true, "/home/me": true, "/etc/daemoneye": true,
		"/run/daemoneye": false, "/var/lib/daemoneye": false, "/opt/daemoneye": false, "/srv/daemoneye/run": false,
	} {
		if got := sharedDir(dir); got != shared {
			t.Errorf("%s: %v", dir, got)
		}
	}
	if err := giveDir("/tmp", 65534, 65534, 0o700); err == nil {
		t.Error("/tmp was given away")
	}
}

func TestSharedPrivateDir(t *testing.T) {
	dir := t.TempDir()
	p := invocation{uid: os.Geteuid(), environ: []string{"TMPDIR=" + dir}}
	if err := p.makeDir(p.privateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p.privateDir(), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := p.makeDir(p.privateDir(), 0o700); exitCodeOf(err) != exitPermission {
		t.Errorf("a directory of all: %v", err)
	}
}
