package store

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptimeSince returns a clock that goes on while the machine sleeps, as Go's
// monotonic clock does not; start serves where the kernel has none.
func uptimeSince(start time.Time) func() time.Duration {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			return time.Since(start)
		}
		return time.Duration(ts.Nano())
	}
}
