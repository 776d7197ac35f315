package zoo

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Process is a process under observation.
type Process struct {
	PID int32
	Cmd *exec.Cmd

	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

// refusal is added to the error number that a child ends with if the host did not
// let it become what its role says.
const refusal = 100

func asErrno(err error, errno *unix.Errno) bool { return errors.As(err, errno) }

// With returns a change of the arguments.
func With(args ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Args = args }
}

// Needs skips the test if the host did not let something be done.
func Needs(t testing.TB, what string, err error) {
	t.Helper()
	for _, refused := range []error{unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOSPC, unix.ENODEV, unix.ENOENT} {
		if errors.Is(err, refused) {
			t.Skipf("%s: %v", what, err)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Start runs a process and returns when it is ready. It ends with the test.
func Start(t testing.TB, role string, change func(*exec.Cmd)) *Process {
	t.Helper()
	p, err := tryStart(t, role, change)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// StartOrSkip is [Start] for a process that not every host lets run.
func StartOrSkip(t testing.TB, role string, change func(*exec.Cmd)) *Process {
	t.Helper()
	p, err := tryStart(t, role, change)
	Needs(t, "start "+role, err)
	return p
}

// environment is that of a child. One with the race detector would end a second late.
func environment(role string) []string {
	return []string{RoleVariable + "=" + role, "GORACE=atexit_sleep_ms=0"}
}

// tryStart returns the host's error if it did not let the process begin.
func tryStart(t testing.TB, role string, change func(*exec.Cmd)) (*Process, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = environment(role)
	cmd.Stderr = os.Stderr
	if change != nil {
		change(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	p := &Process{t: t, PID: int32(cmd.Process.Pid), Cmd: cmd, in: in, out: bufio.NewReader(out)}
	if strings.HasPrefix(role, "exit") {
		return p, nil
	}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code > refusal {
			return nil, unix.Errno(code - refusal)
		}
		t.Fatalf("child %d said %q (%v), want ready", p.PID, line, err)
	}
	return p, nil
}

// ForkAndExit runs one process that ends at once.
func ForkAndExit() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = environment("exit 0")
	_ = cmd.Run() // how it ends does not matter
}

// StartAt starts a process that has a given PID, which must be free. It ends with
// the test.
func StartAt(t testing.TB, pid int32, name string) {
	t.Helper()
	for range 50 { // others take PIDs too
		err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(int(pid)-1)), 0)
		Needs(t, "choose a PID", err)
		if p := Start(t, "wait", With(name)); p.PID == pid {
			return
		}
	}
	t.Skip("others took the PID each time")
}

func (p *Process) ready() {
	p.t.Helper()
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		p.t.Fatalf("child %d said %q (%v), want ready", p.PID, line, err)
	}
}

// Tell tells the process something and does not wait.
func (p *Process) Tell(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// Do tells the process something, and waits until it has done it.
func (p *Process) Do(line string) {
	p.t.Helper()
	p.Tell(line)
	p.ready()
}

// Act makes the process do what its role says, and waits until it has.
func (p *Process) Act() {
	p.t.Helper()
	p.Do("")
}

// Ask is [Process.Do] for a role that answers with a line of JSON.
func (p *Process) Ask(line string, answer any) {
	p.t.Helper()
	p.Tell(line)
	text, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		p.t.Fatalf("child %d said %q: %v", p.PID, text, err)
	}
	p.ready()
}

// Kill ends the process and reaps it.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.Cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = p.Cmd.Wait() // it was killed
}

// Ended waits until the process is a zombie, which it stays.
func (p *Process) Ended() {
	p.t.Helper()
	for {
		err := unix.Waitid(unix.P_PID, int(p.PID), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			p.t.Fatal(err)
		}
		return
	}
}

// Binary is a copy of the test binary, which a test may delete or move.
func Binary(t testing.TB, name string) string {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	path := filepath.Join(t.TempDir(), name)
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755) //nolint:gosec // it is to be run
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
