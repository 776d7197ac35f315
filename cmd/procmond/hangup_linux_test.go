package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo terminal (pty(7)).
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this host gives no terminal: %v", err)
	}
	number, err := unlock(master)
	if err != nil {
		t.Skipf("this host gives no terminal: %v", err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this host gives no terminal: %v", err)
	}
	return master, slave
}

// unlock opens a terminal's other side, which has this number. It leaves master to
// the poller: a file that was asked for its descriptor blocks, and its Close takes
// effect only when the read under way has returned.
func unlock(master *os.File) (number int, err error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return 0, err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		if number, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); ioctlErr == nil {
			ioctlErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
	})
	return number, errors.Join(err, ioctlErr)
}

// TestTerminalHangsUp closes the terminal in which the daemon runs: that is a
// stop, not a reload.
func TestTerminalHangsUp(t *testing.T) {
	master, slave := openTerminal(t)
	d := &daemon{t: t, database: newDatabase(t), log: new(log), done: make(chan struct{})}
	d.cmd = program(context.Background(), "run", "--database", d.database, "--interval", "5")
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = slave, slave, slave
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	var wg sync.WaitGroup
	wg.Go(func() { defer close(d.done); _ = d.cmd.Wait() })
	wg.Go(func() { _, _ = io.Copy(d.log, master) })
	t.Cleanup(func() { d.kill(); _ = master.Close(); wg.Wait() })
	d.awaitCycle(1)
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil { // the terminal is there: a reload
		t.Fatal(err)
	}
	waitFor(t, "a reload", func() bool { return contains(d.log, "read again") })
	if err := master.Close(); err != nil {
		t.Fatal(err)
	}
	if code := d.wait(); code != 0 {
		t.Errorf("exit %d\n%s", code, d.log)
	}
	if doc, _ := readState(t, d.database); doc.Clean == nil || !*doc.Clean {
		t.Errorf("not stopped in order: %+v", doc)
	}
}
