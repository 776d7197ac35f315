package timerslack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Allow lets each sleep of this process end up to d late; Linux allows 50 us. Nothing
// of ours has to be more exact, and Go's scheduler, which looks after its threads every
// 20 us while any goroutine runs, then looks d apart at the most. Threads inherit the
// value from the one that makes them (prctl(2), PR_SET_TIMERSLACK).
//
// Threads that exist already are asked through /proc (proc(5), timerslack_ns), which
// takes CAP_SYS_NICE. Without it the error says so, and what is not made by the calling
// thread stays as it was.
func Allow(d time.Duration) error {
	err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d.Nanoseconds()), 0, 0, 0)
	if err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	threads, err := filepath.Glob("/proc/self/task/[0-9]*")
	if err != nil {
		return fmt.Errorf("find threads: %w", err)
	}
	var errs []error
	for _, thread := range threads {
		errs = append(errs, allow(filepath.Base(thread), d))
	}
	return errors.Join(errs...)
}

// allow sets the slack of one thread. That is not in /proc/self/task, but each thread
// has a directory of its own in /proc, though it is not listed.
func allow(thread string, d time.Duration) error {
	value := strconv.AppendInt(nil, d.Nanoseconds(), 10)
	err := os.WriteFile(filepath.Join("/proc", thread, "timerslack_ns"), value, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) { // it has ended
		return nil
	}
	if err != nil {
		return fmt.Errorf("set timer slack of thread %s: %w", thread, err)
	}
	return nil
}
