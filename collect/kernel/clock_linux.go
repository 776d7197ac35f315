package kernel

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// bootClock turns times of CLOCK_MONOTONIC, which events have, into those of
// CLOCK_BOOTTIME, which start times have: that one goes on while the host sleeps.
type bootClock struct {
	// Asking Go, which asks no one, is cheaper than asking the kernel for the monotonic
	// clock: it was reading when base was now.
	base    time.Time
	reading time.Duration

	ahead    time.Duration // of the boot clock
	measured time.Duration // when, monotonic
	// Before changed, which is when the host had not slept yet, it was aheadBefore.
	changed, aheadBefore time.Duration
}

const (
	// maxMeasuring is how long reading the clocks may take to be believed.
	maxMeasuring = 100 * time.Microsecond
	// minSleep is more than reading them in turn can be wrong by, and less than the
	// host can sleep.
	minSleep = time.Millisecond
)

func newBootClock() (bootClock, error) {
	var c bootClock
	shortest := time.Hour
	for range 16 { // one of them is not interrupted
		base := time.Now()
		reading, err := readClock(unix.CLOCK_MONOTONIC)
		if err != nil {
			return c, err
		}
		if took := time.Since(base); took < shortest {
			shortest, c.base, c.reading = took, base, reading-took/2
		}
	}
	for {
		if ok, err := c.measure(); ok || err != nil {
			c.aheadBefore, c.changed = c.ahead, 0
			return c, err
		}
	}
}

// monotonic is the clock that events have.
func (c *bootClock) monotonic() time.Duration { return c.reading + time.Since(c.base) }

// measure looks at both clocks and reports whether it could compare them: it can be
// interrupted.
func (c *bootClock) measure() (bool, error) {
	before := c.monotonic()
	boot, err := readClock(unix.CLOCK_BOOTTIME)
	if err != nil {
		return false, err
	}
	return c.note(before, boot, c.monotonic()), nil
}

func (c *bootClock) note(before, boot, after time.Duration) bool {
	if after-before > maxMeasuring {
		return false
	}
	if ahead := boot - (before+after)/2; max(ahead-c.ahead, c.ahead-ahead) >= minSleep {
		c.aheadBefore, c.changed, c.ahead = c.ahead, c.measured, ahead
	}
	c.measured = after
	return true
}

// boot is a time of CLOCK_MONOTONIC on the boot clock.
func (c *bootClock) boot(monotonic uint64) time.Duration {
	t := time.Duration(monotonic)
	if t <= c.changed {
		return t + c.aheadBefore
	}
	return t + c.ahead
}

func readClock(id int32) (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		return 0, fmt.Errorf("read clock %d: %w", id, err)
	}
	return time.Duration(now.Nano()), nil
}

// bootNow is the time on the clock that start times are on.
func bootNow() (time.Duration, error) { return readClock(unix.CLOCK_BOOTTIME) }
