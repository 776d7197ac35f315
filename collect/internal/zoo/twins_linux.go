package zoo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// twins are children that have the same PID, one after the other.
type twins struct{ pid int32 }

// newTwins is the role "twins PID". At "start" it starts a child with that PID, at
// "end" it ends and reaps it.
func newTwins(argument string) (Act, error) {
	pid, err := strconv.ParseInt(argument, 10, 32)
	if err != nil {
		return nil, err
	}
	t := &twins{pid: int32(pid)}
	if err := t.start(); err != nil { // to learn whether it may
		return nil, err
	}
	if err := t.end(); err != nil {
		return nil, err
	}
	return func(line string) error {
		if line == "end" {
			return t.end()
		}
		return t.start()
	}, nil
}

func (t *twins) start() error {
	child, errno := forkAt(&t.pid)
	if errno != 0 {
		return fmt.Errorf("clone with PID %d: %w", t.pid, errno)
	}
	if child != t.pid {
		return fmt.Errorf("clone with PID %d gave %d", t.pid, child)
	}
	return nil
}

func (t *twins) end() error {
	if err := unix.Kill(int(t.pid), unix.SIGKILL); err != nil {
		return err
	}
	_, err := unix.Wait4(int(t.pid), nil, 0, nil)
	return err
}

// cloneArgs is clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// forkAt forks a child with the PID at pid. The child is a copy of this process
// with one thread, without a Go runtime that works: it waits to be killed, and
// calls nothing but the kernel.
//
//go:norace
//go:nosplit
//go:noinline
func forkAt(pid *int32) (int32, unix.Errno) {
	args := cloneArgs{
		exitSignal: uint64(unix.SIGCHLD),
		setTID:     uint64(uintptr(unsafe.Pointer(pid))), setTIDSize: 1,
	}
	child, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno == 0 && child == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_PPOLL, 0, 0, 0)
		}
	}
	return int32(child), errno
}

// FreePID is a PID that nobody has, far from those that the kernel gives out at
// present: others start processes too.
func FreePID() (int32, error) {
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 0, err
	}
	most, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, err
	}
	for range 100 {
		pid := int32(most/2 + rand.Int64N(most/2))
		if unix.Kill(int(pid), 0) == unix.ESRCH {
			return pid, nil
		}
	}
	return 0, errors.New("most PIDs are in use")
}
