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

// holdEnv makes the test binary open a store and hold it until its input ends.
const holdEnv = "PROCMOND_TEST_HOLD_STORE"

func holdStore(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir, Fatal: func(err error) { panic(err) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Close(true)
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
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
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
