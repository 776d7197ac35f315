package procfs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"

	"daemoneye.dev/procmond/collect/internal/procfile"
)

// play is the main function of a child. It says "ready" once it is what its
// role wants it to be, does what the role says at each line that it is sent,
// saying "ready" again, and ends when its input ends.
func play(role string) int {
	role, argument, _ := strings.Cut(role, " ")
	in := bufio.NewScanner(os.Stdin)
	switch role {
	case "exit":
		code, _ := strconv.Atoi(argument)
		return code
	case "pause": // until it is killed
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
		for {
			_ = unix.Pause()
		}
	}
	_, _ = fmt.Fprintln(os.Stdout, "ready") // who waits for it sees the end of the output
	for in.Scan() {
		if err := perform(role, argument); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			return 1
		}
		_, _ = fmt.Fprintln(os.Stdout, "ready") // who waits for it sees the end of the output
	}
	return 0
}

func perform(role, argument string) error {
	switch role {
	case "exec":
		return syscall.Exec("/proc/self/exe", []string{"second", "image"}, []string{roleVariable + "=wait"})
	case "rename":
		return os.WriteFile("/proc/self/comm", []byte(argument), 0)
	case "ids":
		if err := unix.Setresgid(1003, 1004, 1004); err != nil {
			return err
		}
		return unix.Setresuid(1001, 1002, 1002)
	case "leader":
		endMainThread()
		return nil
	case "chdir":
		return os.Chdir(argument)
	case "title":
		return retitle("a new title")
	case "threads":
		n, _ := strconv.Atoi(argument)
		return startThreads(n)
	case "parent":
		return startChild()
	case "scan":
		return printScan(argument)
	case "probe":
		pid, _ := strconv.Atoi(argument)
		return printProbe(int32(pid))
	}
	return nil
}

// endMainThread ends the thread that the process began with, and only that.
func endMainThread() {
	found, hold := make(chan struct{}), make(chan struct{})
	defer close(hold)
	var seek func()
	seek = func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			close(found)
			_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // never returns
		}
		go seek()
		<-hold // keep this thread from being tried again
	}
	go seek()
	<-found
	for { // the exit comes after found was closed
		b, _ := os.ReadFile("/proc/self/stat")
		var st procfile.Stat
		if st.Parse(b) == nil && st.Dead() {
			return
		}
		runtime.Gosched()
	}
}

// retitle writes over the arguments of this process.
func retitle(title string) error {
	var st procfile.Stat
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	if err := st.Parse(b); err != nil {
		return err
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	_, err = memory.WriteAt(append([]byte(title), 0), int64(st.ArgStart))
	return err
}

// startThreads keeps n more threads until the process ends.
func startThreads(n int) error {
	var running sync.WaitGroup
	running.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread()
			running.Done()
			select {}
		}()
	}
	running.Wait()
	return nil
}

// startChild starts a child that outlives this process, and prints its PID.
func startChild() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVariable + "=pause"}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(os.Stdout, cmd.Process.Pid)
	return err
}

// printScan prints what this process sees of all that are in proc.
func printScan(proc string) error {
	s, err := New(Config{Proc: proc})
	if err != nil {
		return err
	}
	var snap collect.Snapshot
	if err := s.Scan(context.Background(), true, &snap); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(snap)
}

// printProbe prints what this process sees of another one.
func printProbe(pid int32) error {
	s, err := New(Config{Enhanced: true, Env: []string{roleVariable}})
	if err != nil {
		return err
	}
	o, err := s.Probe(context.Background(), pid)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}

// child is a process under observation.
type child struct {
	t   *testing.T
	pid int32
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start runs a child and returns when it is ready. It ends with the test.
func start(t *testing.T, role string, change func(*exec.Cmd)) *child {
	t.Helper()
	c, err := tryStart(t, role, change)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// startOrSkip is start for a child that not every host lets run.
func startOrSkip(t *testing.T, role string, change func(*exec.Cmd)) *child {
	t.Helper()
	c, err := tryStart(t, role, change)
	needs(t, "start", err)
	return c
}

func tryStart(t *testing.T, role string, change func(*exec.Cmd)) (*child, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVariable + "=" + role}
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
	c := &child{t: t, pid: int32(cmd.Process.Pid), cmd: cmd, in: in, out: bufio.NewReader(out)}
	if role, _, _ := strings.Cut(role, " "); role != "exit" {
		c.ready()
	}
	return c, nil
}

// startAt starts a process that has a given PID, which must be free. It ends with
// the test.
func startAt(t *testing.T, pid int32, name string) int32 {
	t.Helper()
	for range 50 { // others take PIDs too
		err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(int(pid)-1)), 0)
		needs(t, "choose a PID", err)
		if c := start(t, "wait", with(name)); c.pid == pid {
			return pid
		}
	}
	t.Skip("others took the PID each time")
	return 0
}

func (c *child) ready() {
	c.t.Helper()
	if line, err := c.out.ReadString('\n'); err != nil || line != "ready\n" {
		c.t.Fatalf("child %d said %q (%v), want ready", c.pid, line, err)
	}
}

// act makes the child do what its role says, and waits until it has.
func (c *child) act() {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.t.Fatal(err)
	}
	c.ready()
}

// child makes a parent start a child and returns its PID.
func (c *child) child() int32 {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.t.Fatal(err)
	}
	var pid int32
	if _, err := fmt.Fscanln(c.out, &pid); err != nil {
		c.t.Fatal(err)
	}
	c.ready()
	return pid
}

// kill ends the child and reaps it.
func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	_ = c.cmd.Wait() // it was killed
}

// ended waits until the child is a zombie, which it stays.
func (c *child) ended() {
	c.t.Helper()
	for {
		err := unix.Waitid(unix.P_PID, int(c.pid), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			c.t.Fatal(err)
		}
		return
	}
}

func newScanner(t testing.TB, c Config) *Scanner {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// scan takes a snapshot and checks its form.
func scan(t testing.TB, s *Scanner, full bool) *collect.Snapshot {
	t.Helper()
	snap := new(collect.Snapshot)
	if err := s.Scan(t.Context(), full, snap); err != nil {
		t.Fatal(err)
	}
	for i, o := range snap.Observations {
		if i > 0 && o.PID <= snap.Observations[i-1].PID {
			t.Fatalf("process %d comes after %d", o.PID, snap.Observations[i-1].PID)
		}
	}
	return snap
}

// observed returns what a snapshot holds of pid.
func observed(t testing.TB, snap *collect.Snapshot, pid int32) collect.Observation {
	t.Helper()
	for _, o := range snap.Observations {
		if o.PID == pid {
			return o
		}
	}
	t.Fatalf("process %d is not in the snapshot", pid)
	return collect.Observation{}
}

// whole is observed for a process that must have been reported whole.
func whole(t testing.TB, snap *collect.Snapshot, pid int32) collect.Observation {
	t.Helper()
	o := observed(t, snap, pid)
	if o.Process == nil {
		t.Fatalf("process %d is not reported whole: %+v", pid, o)
	}
	return o
}
