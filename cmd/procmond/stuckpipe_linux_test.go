package main

import (
	"context"
	"os"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipeThatNobodyReads fills the daemon's log pipe: the daemon goes on, and
// stops in order when it is told to.
func TestPipeThatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, database: newDatabase(t), log: new(log), done: make(chan struct{})}
	d.cmd = program(context.Background(), "run", "--database", d.database, "--interval", "5", "--log-level", "debug")
	d.cmd.Stderr = w
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	var wg sync.WaitGroup
	wg.Go(func() { defer close(d.done); _ = d.cmd.Wait() })
	t.Cleanup(func() { d.kill(); wg.Wait() })
	d.awaitCycle(1)
	for range 30 { // each says something
		d.signal(syscall.SIGHUP)
	}
	d.awaitCycle(2)
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if doc, _ := readState(t, d.database); doc.Clean == nil || !*doc.Clean {
		t.Errorf("not stopped in order: %+v", doc)
	}
}
