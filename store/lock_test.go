package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// holdEnv makes the test binary make a store and hold its lock until its input
// ends. It does not keep the database open, whose background work would change
// files while the test looks whether anything did.
const holdEnv = "PROCMOND_TEST_HOLD_STORE"

func holdStore(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir, Fatal: func(err error) { panic(err) }})
	if err == nil {
		err = s.Close(true)
	}
	if err != nil {
		panic(err)
	}
	lock, err := lockDir(ctx, privateFS{vfs.Default}, dir, 0)
	if err != nil {
		panic(err)
	}
	_, _ = fmt.Fprintln(os.Stdout, "held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = lock.Close()
}

func TestLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir() + "/db"
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	c := testConfig(t, nil)
	c.Dir = dir
	before := listing(t, dir)
	_, err := Open(t.Context(), c)
	var locked *LockedError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &locked) || locked.PID != cmd.Process.Pid {
		t.Errorf("open: %v, want the lock of process %d", err, cmd.Process.Pid)
	}
	compareListing(t, before, listing(t, dir))

	opened := make(chan error)
	c.LockWait = time.Minute
	go func() {
		s, err := Open(context.Background(), c)
		if err == nil {
			err = s.Close(true)
		}
		opened <- err
	}()
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("open while the other process ends: %v", err)
	}
}

func TestLockedByThisProcess(t *testing.T) {
	c := testConfig(t, nil)
	c.Dir = t.TempDir() + "/db"
	s := mustOpen(t, c)
	defer mustClose(t, s, true)
	_, err := Open(t.Context(), c)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second open: %v", err)
	}
	// The refused one must not have given up the lock of the first.
	if _, err = Open(t.Context(), c); !errors.Is(err, ErrLocked) {
		t.Errorf("third open: %v", err)
	}
	if err := s.Append(t.Context(), testBatch(testTime, 1)); err != nil {
		t.Error(err)
	}
}

func TestLockedOnMemory(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testConfig(t, mem))
	defer mustClose(t, s, true)
	if _, err := Open(t.Context(), testConfig(t, mem)); err == nil {
		t.Error("opened twice")
	}
}
