//go:build !linux

package store

import "time"

// uptimeSince returns Go's monotonic clock.
func uptimeSince(start time.Time) func() time.Duration {
	return func() time.Duration { return time.Since(start) }
}
