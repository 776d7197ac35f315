package bus

import (
	"context"
	"time"
)

// beatEvery is how often a service that has nothing to do says that it lives: well
// within the five seconds that a watchdog allows.
const beatEvery = 2 * time.Second

// Progress hears that a service moves, and what it turns to.
type Progress interface{ Beat(activity string) }

// unwatched is the Progress that nobody looks at.
type unwatched struct{}

func (unwatched) Beat(string) {}

// watched is p, or one that nobody looks at.
func watched(p Progress) Progress {
	if p == nil {
		return unwatched{}
	}
	return p
}

// rest waits until d has passed, wake is closed (nil: never) or ctx ends, and says
// activity all the while. It is false if ctx ended.
func rest(ctx context.Context, p Progress, activity string, d time.Duration, wake <-chan struct{}) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		p.Beat(activity)
		select {
		case <-tick.C:
		case <-over.C:
			return ctx.Err() == nil
		case <-wake:
			return ctx.Err() == nil
		case <-ctx.Done():
			return false
		}
	}
}
