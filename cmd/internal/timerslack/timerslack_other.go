//go:build !linux

package timerslack

import "time"

// Allow does nothing here: only Linux has this.
func Allow(time.Duration) error { return nil }
