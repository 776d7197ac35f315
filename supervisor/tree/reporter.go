package tree

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Keys of log fields.
const (
	keyService    = "service"
	keyError      = "error"
	keyPlace      = "place"
	keyStack      = "stack"
	keyRestart    = "restart"
	keyActivity   = "activity"
	keyUntil      = "until"
	keyFailures   = "failures"
	keySupervisor = "supervisor"
	keyDropped    = "dropped"
)

// notice is something to be logged by who must not wait for a log.
type notice struct {
	log     *logrus.Entry
	level   logrus.Level
	message string
}

// reporter logs what supervisors' loops and Stop hand over.
type reporter struct {
	// notices is sent to by post, which never blocks, received from by
	// Serve, and never closed. 64 holds a back-off of every service of a tree.
	notices chan notice
	dropped atomic.Uint64
	log     *logrus.Entry
}

func newReporter(log *logrus.Entry) *reporter {
	return &reporter{notices: make(chan notice, 64), log: log}
}

// String is the name that suture uses.
func (r *reporter) String() string { return "reporter" }

// post hands n over, or counts it as dropped.
func (r *reporter) post(n notice) {
	select {
	case r.notices <- n:
	default:
		r.dropped.Add(1)
	}
}

// Serve logs notices until ctx ends, and then those that are left.
func (r *reporter) Serve(ctx context.Context) error {
	var told uint64
	for {
		select {
		case n := <-r.notices:
			n.log.Log(n.level, n.message)
			told = r.tell(told)
		case <-ctx.Done():
			for {
				select {
				case n := <-r.notices:
					n.log.Log(n.level, n.message)
				default:
					r.tell(told)
					return nil
				}
			}
		}
	}
}

// tell logs how many notices were dropped, if more than told.
func (r *reporter) tell(told uint64) uint64 {
	dropped := r.dropped.Load()
	if dropped > told {
		r.log.WithField(keyDropped, dropped).Warn("log lines about services were dropped")
	}
	return dropped
}

// backoff is the notice that a service rests.
func backoff(log *logrus.Entry, failures uint64, until time.Time) notice {
	return notice{
		log:     log.WithField(keyFailures, failures).WithField(keyUntil, until.Format(time.RFC3339Nano)),
		level:   logrus.WarnLevel,
		message: "service failed too often and rests",
	}
}
