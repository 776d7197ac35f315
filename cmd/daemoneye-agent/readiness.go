package main

import (
	"context"
	"time"

	"daemoneye.dev/procmond/supervisor/tree"
)

// readyEvery is the time between two looks while the agent starts.
const readyEvery = 50 * time.Millisecond

// readiness is the service that tells the service manager once clients find the agent.
type readiness struct {
	open     func() bool
	tell     func()
	progress *tree.Progress
}

func (*readiness) String() string { return "readiness" }

// Serve tells once, and is there until ctx ends.
func (r *readiness) Serve(ctx context.Context) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for told := false; ; {
		if r.progress.Beat("watch the broker"); !told && r.open() {
			told = true
			r.tell()
			tick.Reset(time.Second)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
