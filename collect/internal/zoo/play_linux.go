package zoo

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/procfile"
)

// RoleVariable makes the test binary play a process in place of running tests.
const RoleVariable = "ZOO_ROLE"

// Act is what a process does when it is told to: line is what it was told, "" by
// [Process.Act].
type Act func(line string) error

// Roles are further roles of a test binary. Each takes what follows its name, and
// returns what the process is to do.
type Roles map[string]func(argument string) (Act, error)

// Main is TestMain of a package whose tests start processes. more may be nil.
func Main(m *testing.M, more Roles) {
	if role := os.Getenv(RoleVariable); role != "" {
		os.Exit(play(role, more)) //nolint:forbidigo // a child is no test and ends as its role says
	}
	goleak.VerifyTestMain(m)
}

// play is the main function of a child. It says "ready" once it is what its
// role wants it to be, does what the role says at each line that it is sent,
// saying "ready" again, and ends when its input ends.
func play(role string, more Roles) int {
	name, argument, _ := strings.Cut(role, " ")
	if name == "exit" {
		code, _ := strconv.Atoi(argument)
		return code
	}
	act, err := begin(name, argument, more)
	in := bufio.NewScanner(os.Stdin)
	for err == nil {
		_, _ = fmt.Fprintln(os.Stdout, "ready") // who waits for it sees the end of the output
		if !in.Scan() {
			return 0
		}
		if act != nil {
			err = act(in.Text())
		}
	}
	fmt.Fprintln(os.Stderr, role+":", err)
	if errno := unix.Errno(0); asErrno(err, &errno) {
		return refusal + int(errno)
	}
	return 1
}

// begin makes this process what the role says.
func begin(name, argument string, more Roles) (Act, error) {
	if role, ok := more[name]; ok {
		return role(argument)
	}
	switch name {
	case "wait":
		return nil, nil
	case "pause": // until it is killed
		for {
			_ = unix.Pause()
		}
	case "exec": // another image, in place
		return func(string) error {
			return syscall.Exec("/proc/self/exe", []string{"second", "image"}, environment("wait"))
		}, nil
	case "rename":
		return func(string) error { return os.WriteFile("/proc/self/comm", []byte(argument), 0) }, nil
	case "ids":
		return func(string) error { return takeIDs() }, nil
	case "leader":
		return func(string) error { endMainThread(); return nil }, nil
	case "chdir":
		return func(string) error { return os.Chdir(argument) }, nil
	case "title":
		return func(string) error { return retitle(argument) }, nil
	case "threads":
		n, err := strconv.Atoi(argument)
		return func(string) error { startThreads(n); return nil }, err
	case "spin":
		return func(string) error { spin(); return nil }, nil
	case "parent":
		return func(string) error { return startChild() }, nil
	case "twins":
		return newTwins(argument)
	case "stuck":
		return newStuck(argument)
	case "serve":
		return serveHanging(argument)
	}
	return nil, fmt.Errorf("no such role: %q", name)
}

// takeIDs takes user ids 1001 (real) and 1002, group ids 1003 and 1004.
func takeIDs() error {
	if err := unix.Setresgid(1003, 1004, 1004); err != nil {
		return err
	}
	return unix.Setresuid(1001, 1002, 1002)
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
func startThreads(n int) {
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
}

// Spin is how much processor time each of two threads takes in the role "spin".
const Spin = 50 * time.Millisecond

// spin keeps two threads busy, of which one ends afterwards.
func spin() {
	var busy sync.WaitGroup
	for _, ends := range []bool{true, false} {
		busy.Add(1)
		go func() {
			runtime.LockOSThread() // and never unlocks: the thread ends with its goroutine
			for used := time.Duration(0); used < Spin; used = threadTime() {
			}
			busy.Done()
			if !ends {
				select {}
			}
		}()
	}
	busy.Wait()
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var used unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used) // there is no kernel without it
	return time.Duration(used.Nano())
}

// startChild starts a child that outlives this process, and prints its PID.
func startChild() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = environment("pause")
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(os.Stdout, cmd.Process.Pid)
	return err
}
