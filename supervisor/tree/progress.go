package tree

import (
	"sync/atomic"
	"time"
)

// Progress is how a service shows that it moves. The zero value is ready: make
// it with new, give it to the service and then, in Options, to [Tree.Add]. Beats
// before Add are ignored.
type Progress struct {
	origin   atomic.Pointer[time.Time] // set once by attach; beats are measured from it, by the monotonic clock
	beat     atomic.Int64              // time of the last beat after origin, in nanoseconds
	activity atomic.Pointer[string]    // said with the last beat; what it points to never changes
}

// Beat says that the service is alive and what it turns to now. It takes no
// lock, never blocks, and allocates only when the activity is another one than
// before; activities should be constants.
func (p *Progress) Beat(activity string) {
	origin := p.origin.Load()
	if origin == nil {
		return
	}
	if last := p.activity.Load(); last == nil || *last != activity {
		said := activity // a copy, so that only this branch allocates
		p.activity.Store(&said)
	}
	p.beat.Store(int64(time.Since(*origin)))
}

// attach makes p count; it is false if p belongs to a service already.
func (p *Progress) attach(now time.Time) bool { return p.origin.CompareAndSwap(nil, &now) }

// last returns the time and the activity of the last beat.
func (p *Progress) last() (at time.Time, activity string) {
	at = p.origin.Load().Add(time.Duration(p.beat.Load()))
	if a := p.activity.Load(); a != nil {
		activity = *a
	}
	return at, activity
}
