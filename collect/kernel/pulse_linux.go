package kernel

import (
	"fmt"
	"time"
)

const (
	// maxSilence is how long nothing may be heard before the thread makes an event of its
	// own, and signEvery how often it does that until something is.
	maxSilence = 10 * time.Second
	signEvery  = 500 * time.Millisecond
	// maxSigns is how many of those may be missed. The kernel has put one in the socket
	// before it returns to who made it, but for one that finds no memory.
	maxSigns = 4
)

// pulse tells a quiet host from a socket that is deaf.
type pulse struct {
	silence time.Duration // see maxSilence
	every   time.Duration // see signEvery
	heard   time.Time
	at      uint64 // when it happened what was heard last, monotonic
	signs   int    // that were made since
	refused string // why none can be made
}

// hear says that something was.
func (p *pulse) hear(now time.Time, at uint64) { p.heard, p.at, p.signs = now, at, 0 }

// check is called when there is nothing to hear. It makes an event with sign if it is
// time for one, and returns how long to wait for the next. It reports deaf when that
// was in vain too often.
func (p *pulse) check(now time.Time, sign func() error) (wait time.Duration, deaf bool) {
	if quiet := now.Sub(p.heard); quiet < p.silence {
		return p.silence - quiet, false
	}
	if p.signs == maxSigns {
		return 0, true
	}
	if err := sign(); err != nil {
		p.refused = fmt.Sprintf("whether it still hears can not be checked while the host is quiet: %v", err)
		p.heard = now // not more often than that
		return p.silence, false
	}
	p.refused = ""
	p.signs++
	return p.every, false
}
