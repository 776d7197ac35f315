package supervisor

import (
	"context"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/fsm"
)

// BeginNever is a [Broker.BeginTimeout] that does not come.
const BeginNever = time.Duration(-1)

// beginDeadline bounds how long a collector may take to hear that it is to begin;
// then it is told again.
const beginDeadline = 5 * time.Second

// solitude is how long a collector waits for an agent to accept it.
type solitude struct {
	timeout time.Duration // negative: for ever
	since   time.Time     // when it was last accepted, or began to wait
}

// over reports whether the wait is over at now: a sensor that sees nothing is worse
// than one that is not yet coordinated. An agent that accepts the collector makes the
// wait begin anew, and as long as it is registered it waits for its agent's word.
func (p *solitude) over(now time.Time, registered bool) bool {
	if registered {
		p.since = now
	}
	return !registered && p.timeout >= 0 && now.Sub(p.since) >= p.timeout
}

// beginAlone begins monitoring without an agent when it is time.
func (s *Supervisor) beginAlone(ctx context.Context) {
	if s.link == nil || s.machine.State() != fsm.CollectorWaitingForAgent {
		return
	}
	if !s.solitude.over(time.Now(), s.registration.State() == fsm.RegistrationRegistered) {
		return
	}
	cause := fmt.Sprintf("no agent within %v", s.solitude.timeout)
	ctx, cancel := context.WithTimeout(ctx, beginDeadline)
	defer cancel()
	if _, err := s.mailbox.Handle().BeginMonitoring(ctx, collect.Begin{Cause: cause}); err != nil {
		s.cfg.Log.WithError(err).Warn("Monitoring could not begin without an agent; it is tried again")
		return
	}
	s.cfg.Log.WithField("socket", s.cfg.Broker.Socket).
		Warnf("Monitoring begins without an agent: none has accepted this collector within %v", s.solitude.timeout)
}
