package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

// program makes the agent run this test as a child, behaving as it is told.
func program(t *testing.T, how string) func(*Config) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		c.Children = []Command{{ID: "p", Path: self}}
		c.Survivors = true
		environ := append(os.Environ(), "AGENT_TEST_CHILD="+how, "NOTIFY_SOCKET=/nowhere", "GORACE=atexit_sleep_ms=0", "AGENT_TEST_LOG="+filepath.Join(t.TempDir(), "starts"))
		c.Starter = NewPrograms(c.Children, environ, "/run/broker.sock")
	}
}

func (r *running) childState() rpc.Child {
	r.t.Helper()
	return *r.collector("p").Child
}

// childReady waits until the child handles signals, and returns it.
func (r *running) childReady() rpc.Child {
	r.t.Helper()
	child := r.childIs(childRunning)
	var path string
	for _, pair := range r.cfg.Starter.(*Programs).environ {
		if value, ok := strings.CutPrefix(pair, "AGENT_TEST_LOG="); ok {
			path = value
		}
	}
	eventually(r.t, "the child is up", func() bool { _, err := os.Stat(path); return err == nil })
	return child
}

func (r *running) childIs(state string) rpc.Child {
	r.t.Helper()
	eventually(r.t, "the child is "+state, func() bool { return r.childState().State == state })
	return r.childState()
}

func TestChildRunsAndStopsInOrder(t *testing.T) {
	started := time.Now()
	r := run(t, program(t, "wait"))
	child := r.childReady()
	if time.Since(started) < fastTiming().Adopt {
		t.Error("no time for one that is there already")
	}
	if child.PID == 0 {
		t.Errorf("%+v", child)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if end := r.childState(); end.State != childStopped || end.LastExit != "exit status 0" || end.PID != 0 {
		t.Errorf("%+v", end)
	}
}

func TestChildLearnsSocketAndID(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("AGENT_TEST_CHILD", "0")
	t.Setenv("AGENT_TEST_LOG", log)
	self, _ := os.Executable()
	p := NewPrograms([]Command{{ID: "x", Path: self}}, os.Environ(), "/run/broker.sock")
	process, err := p.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	<-process.Exited()
	if text, _ := os.ReadFile(log); string(text) != "x /run/broker.sock\n" {
		t.Errorf("%q", text)
	}
	if _, err := p.Start(1); err == nil {
		t.Error("there is no second program")
	}
}

func TestChildIsRestartedWithBackoff(t *testing.T) {
	r := run(t, program(t, "70"))
	eventually(t, "four ends", func() bool { return r.childState().Restarts >= 4 })
	child := r.childState()
	if !strings.Contains(child.LastExit, "watchdog") {
		t.Errorf("%+v", child)
	}
	var pauses []string
	for _, e := range r.logs.AllEntries() {
		if pause, ok := e.Data["retry_in"].(string); ok {
			pauses = append(pauses, pause)
		}
	}
	if got := strings.Join(pauses[:4], " "); got != "20ms 40ms 80ms 80ms" {
		t.Errorf("pauses %s", got)
	}
}

func TestHopelessEndWaitsLong(t *testing.T) {
	r := run(t, program(t, "78"))
	child := r.childIs(childBackoff)
	if child.RetryAt == nil || time.Until(*child.RetryAt) < 5*time.Minute || !strings.Contains(child.LastExit, "configuration") {
		t.Errorf("%+v", child)
	}
	if r.logged("Collector ended: its configuration is wrong. Look at what it prints, and mend its configuration.") != 1 {
		t.Error("what to do is not said")
	}
}

func TestMissingProgram(t *testing.T) {
	r := run(t, func(c *Config) {
		c.Children = []Command{{ID: "p", Path: "/nowhere/procmond"}}
		c.Starter = NewPrograms(c.Children, nil, "/s")
	})
	eventually(t, "the failure is told", func() bool { return strings.Contains(r.childState().LastExit, "no such file") })
}

func TestStubbornChildIsKilled(t *testing.T) {
	r := run(t, func(c *Config) {
		program(t, "stubborn")(c)
		c.Timing.Stop = 50 * time.Millisecond
	})
	r.childReady()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if end := r.childState(); end.LastExit != "signal: killed" {
		t.Errorf("%+v", end)
	}
}

// A collector that an earlier agent left is let run; when it has gone, another one is
// started.
func TestSurvivorIsAdopted(t *testing.T) {
	r := run(t, func(c *Config) {
		program(t, "wait")(c)
		c.Timing.Adopt = 500 * time.Millisecond
	})
	r.broker.connect("p", 1)
	survivor := newCollector(t, r.broker, "p", "1")
	survivor.join()
	if child := r.childIs(childAdopted); child.PID != 0 {
		t.Errorf("%+v", child)
	}
	r.broker.connect("p")
	child := r.childIs(childRunning)
	if child.PID == 0 || child.Restarts != 0 {
		t.Errorf("%+v", child)
	}
}

func TestAdoptedIsAskedToStop(t *testing.T) {
	r := run(t, func(c *Config) {
		program(t, "wait")(c)
		c.Timing.Adopt = time.Minute
	})
	r.broker.connect("p", 1)
	survivor := newCollector(t, r.broker, "p", "1")
	survivor.join()
	r.childIs(childAdopted)
	survivor.setReply(func(q rpc.Request) (any, *rpc.Error) {
		if q.Operation == rpc.OpGracefulShutdown {
			r.broker.connect("p")
		}
		return rpc.ShutdownResult{Complete: true}, nil
	})
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if survivor.askedFor(rpc.OpGracefulShutdown) != 1 {
		t.Error("it was not asked")
	}
}

// Exit code 73: another one holds the store. If it is registered, it is adopted.
func TestStoreInUse(t *testing.T) {
	r := run(t, program(t, "73"))
	eventually(t, "it is tried again", func() bool { return r.childState().Restarts >= 2 })
	if !strings.Contains(r.childState().LastExit, "another process has its database") {
		t.Errorf("%+v", r.childState())
	}
	r.broker.connect("p", 1)
	newCollector(t, r.broker, "p", "1").join()
	r.childIs(childAdopted)
}

func TestOperatorStopsAChild(t *testing.T) {
	r := run(t, program(t, "wait"))
	r.childReady()
	operator := r.broker.client(t, rpc.UserOperator)
	response := call(t, operator, rpc.SubjectAgent, rpc.OpStop, rpc.Target{ID: "p"})
	if result := decode[rpc.ShutdownResult](t, response.Payload); response.Status != rpc.StatusOK || !strings.Contains(result.Detail, "signal") {
		t.Errorf("it was not connected: %+v", response)
	}
	child := r.childIs(childStopped)
	if child.LastExit != "exit status 0" || child.Restarts != 0 || child.RetryAt != nil {
		t.Errorf("%+v", child)
	}
	if r.logged("Collector stopped, and is not started again: the operator stopped it") != 1 {
		t.Error("not said")
	}
}

// A child's service that is started again finds its process.
func TestRestartedServiceKeepsTheProcess(t *testing.T) {
	r := run(t, program(t, "wait"))
	pid := r.childIs(childRunning).PID
	again := newChild(r.Agent, 0)
	if p := again.starter.Running(0); p == nil || p.PID() != pid {
		t.Errorf("%v, want pid %d", p, pid)
	}
}

func TestNotInherited(t *testing.T) {
	p := NewPrograms(nil, []string{"A=1", "NOTIFY_SOCKET=/x", "WATCHDOG_USEC=3"}, "/s")
	if got := strings.Join(p.environ, " "); got != "A=1 "+rpc.EnvSocket+"=/s" {
		t.Errorf("%s", got)
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := New(Config{
		Expected: []string{"a b"},
		Children: []Command{{ID: "x"}, {ID: "x", Path: "/p"}},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"broker", "log", "starts the children", `"a b"`, "no program", "two children", "ready timeout", "watchdog", "hangs"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%q is not named in %v", want, err)
		}
	}
}
