//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// play is the main function of a child.
func play(role string) int {
	role, argument, _ := strings.Cut(role, " ")
	var err error
	switch role {
	case "exec": // by a thread that is not the first
		err = fromAnotherThread(func() error { return execInPlace([]string{"second", "image"}) })
	case "empty": // no argument, not even a name
		err = execInPlace([]string{})
	case "fork":
		err = forkAndEnd()
	case "sibling":
		err = forkSibling()
	case "together":
		err = endTogether()
	case "orphan":
		err = startOrphan()
	case "end":
		_, _ = os.Stdin.Read(make([]byte, 1)) // waits for the end of the input, which is an error
		err = nil
	case "open":
		err = openHere(OpenBPF)
	case "listen":
		err = openHere(OpenConnector)
	case "hold":
		err = holdPrograms()
	case "session":
		_, err = unix.Setsid()
		if err == nil {
			err = execInPlace([]string{"of a session"})
		}
	case "sham":
		err = shamReader()
	case "drain":
		err = drainAndCount()
	case "memory":
		err = execMemory(argument)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// execInPlace runs what only ends.
func execInPlace(args []string) error {
	return syscall.Exec("/proc/self/exe", args, []string{roleVariable + "=nothing"})
}

func fromAnotherThread(f func() error) error {
	failed := make(chan error)
	var seek func()
	seek = func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			failed <- f()
			return
		}
		go seek()
		select {} // keep the first thread
	}
	go seek()
	return <-failed
}

// forkAndEnd makes a process without an exec, which ends with the code 5.
func forkAndEnd() error {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 5, 0, 0) // never returns
	}
	if errno != 0 {
		return errno
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	return err
}

// forkSibling makes a process of which the parent is that of this one, and which ends
// with the code 6. It prints its PID.
func forkSibling() error {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.CLONE_PARENT)|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 6, 0, 0) // never returns
	}
	if errno != 0 {
		return errno
	}
	_, err := fmt.Fprintln(os.Stdout, pid)
	return err
}

// endTogether ends the process from several of its threads at the same time, each of
// which wants another code.
func endTogether() error {
	const threads = 8
	runtime.GOMAXPROCS(threads + 1) // each is to run while the others do
	var ready atomic.Int32
	for code := range uintptr(threads) {
		go func() {
			runtime.LockOSThread()
			for ready.Add(1); ready.Load() < threads; {
				_, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			}
			_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 10+code, 0, 0)
		}()
	}
	select {}
}

// startOrphan starts a child that ends with its input, prints its PID and leaves it.
func startOrphan() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVariable + "=end"}
	cmd.Stdin = os.Stdin
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(os.Stdout, cmd.Process.Pid)
	return err
}

// openHere prints why the source can not be opened, or "opened".
func openHere(open func(Config) (Source, error)) error {
	s, err := open(Config{})
	var u *Unavailable
	switch {
	case errors.As(err, &u):
		_, err = fmt.Fprintf(os.Stdout, "%v: %v; %v\n", u.Reason, err, u.Mend)
		return err
	case err != nil:
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, "opened"); err != nil {
		return err
	}
	return s.Close()
}

// holdPrograms prints the ids of programs and maps and waits to be killed.
func holdPrograms() error {
	s, err := openBPF(Config{}, thisHost())
	if err != nil {
		return err
	}
	for kind, p := range s.programs.byKind() {
		info, err := p.Info()
		if err != nil {
			return fmt.Errorf("%v: %w", kind, err)
		}
		id, _ := info.ID()
		announce("program", id)
	}
	o := &s.programs.objects
	for _, m := range []*ebpf.Map{o.Ring, o.Lost, o.Reader, o.Scratch, o.Ended} {
		info, err := m.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		announce("map", id)
	}
	announce("ready")
	select {}
}

// execMemory runs a program that is in no directory.
func execMemory(name string) error {
	fd, err := unix.MemfdCreate(name, 0)
	if err != nil {
		return err
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if _, err := os.NewFile(uintptr(fd), name).Write(program); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"from memory"}, []string{roleVariable + "=nothing"})
}

// announce tells the test.
func announce(words ...any) { _, _ = fmt.Fprintln(os.Stdout, words...) }
