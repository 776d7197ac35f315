package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"daemoneye.dev/procmond/bus/agent/operator"
	"daemoneye.dev/procmond/bus/rpc"
)

const patience = 20 * time.Second

// noRaceDelay takes away the second that a program with the race detector waits at
// its end.
const noRaceDelay = "GORACE=atexit_sleep_ms=0"

// host is a place where an agent runs for a test.
type host struct {
	t   *testing.T
	dir string
	env []string // of the agents started, besides the test's own
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // short, for the socket, and open to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &host{t: t, dir: dir}
}

func (h *host) socket() string { return filepath.Join(h.dir, "run", socketName) }

// process is a program that was started, and what it says.
type process struct {
	t   *testing.T
	cmd *exec.Cmd

	done chan struct{}
	code int
}

// start runs the agent. Its output goes to a file, as a pipe would keep the test
// waiting for collectors that outlive it.
func (h *host) start(args ...string) *process {
	h.t.Helper()
	args = append([]string{"run", "--store", filepath.Join(h.dir, "store"), "--log-level", "debug", "--log-format", "json"}, args...)
	cmd := exec.Command("daemoneye-agent", args...)
	cmd.Env = append(append(os.Environ(), envPrefix+"SOCKET="+h.socket(), noRaceDelay), h.env...)
	out, err := os.CreateTemp(h.dir, "log")
	if err != nil {
		h.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	p := &process{t: h.t, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		p.code = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-p.done
			h.t.Error("the agent did not stop")
		}
		if h.t.Failed() {
			text, _ := os.ReadFile(out.Name())
			h.t.Logf("%s", text)
		}
		_ = out.Close()
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) ends(code int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the agent does not end")
	}
	if p.code != code {
		p.t.Fatalf("ended with %d, want %d", p.code, code)
	}
}

// ask runs a client command.
func (h *host) ask(args ...string) (stdout string, code int) {
	h.t.Helper()
	cmd := exec.Command("daemoneye-agent", args...)
	cmd.Env = append(os.Environ(), envPrefix+"SOCKET="+h.socket(), noRaceDelay)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run()
	return out.String() + errOut.String(), cmd.ProcessState.ExitCode()
}

// report asks as the command does, but without a process of its own; it is empty
// while the agent is not up.
func (h *host) report() (r rpc.AgentReport) {
	h.t.Helper()
	client, err := operator.Dial(h.socket(), false, nil)
	if err != nil {
		return r
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	text, err := client.Ask(ctx, rpc.OpCollectors, nil)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return rpc.AgentReport{}
	}
	return r
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// runs waits until the collector is begun, and returns its pid.
func (h *host) runs() int {
	h.t.Helper()
	var r rpc.AgentReport
	eventually(h.t, "the collector runs and was begun", func() bool {
		r = h.report()
		return len(r.Collectors) == 1 && r.State == "steady" && r.Collectors[0].Begun && r.Collectors[0].Heartbeat != nil && r.Collectors[0].Heartbeat.Collector == "running"
	})
	pid := r.Collectors[0].Registration.PID
	h.t.Cleanup(func() {
		if h.t.Failed() { // else the test has proved its end
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return pid
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func fakeProcmond(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("fake-procmond")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
