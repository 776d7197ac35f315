package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/bus"
	"daemoneye.dev/procmond/bus/rpc"
)

const (
	// drainTime bounds the last delivery of a run, goodbyeTime the leave-taking.
	drainTime   = 10 * time.Second
	goodbyeTime = 2 * time.Second
	// offlineDrainTime is the same while nobody listens: enough for a broker that is
	// just being restarted, and nobody waits long for one that is not.
	offlineDrainTime = time.Second
)

// leave delivers what can be delivered, takes leave of the agent, and lets the one
// who asked for the end answer. collected is what went wrong with the collector. What
// remains undelivered is no error: the store keeps it for the next run.
func (s *Supervisor) leave(collected error) error {
	if s.link == nil {
		return nil
	}
	drained := s.link.drain()
	stopped := s.tree.Stop(s.link.publisherPath(), serviceStop)
	st := s.cfg.Store.Stats()
	if st.BacklogEvents > 0 {
		s.cfg.Log.WithError(drained).WithField("events", st.BacklogEvents).Warn("Events are not delivered yet; they wait in the store for the next run")
	}
	s.link.farewell(st.BacklogEvents)
	s.end.tell(rpc.ShutdownResult{
		Complete:  collected == nil && stopped == nil && st.BacklogEvents == 0,
		Detail:    detail(collected, stopped, drained),
		Delivered: st.Cursor, Undelivered: st.BacklogEvents,
	})
	if stopped != nil {
		return fmt.Errorf("stop delivery: %w", stopped)
	}
	return nil
}

// detail is what kept an end from being complete.
func detail(faults ...error) string {
	if err := errors.Join(faults...); err != nil {
		return err.Error()
	}
	return ""
}

// drain delivers what is there.
func (l *link) drain() error {
	patience := drainTime
	if status := l.bus.Status(); status.Events.State != bus.StateConnected {
		patience = offlineDrainTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := l.publisher.Drain(ctx)
	return err
}

// farewell tells the agent, if there is one.
func (l *link) farewell(undelivered uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	err := l.registration.Deregister(ctx, rpc.Farewell{Instance: l.instance, Reason: l.s.end.why(), Undelivered: undelivered})
	if err != nil && !errors.Is(err, bus.ErrNotRegistered) {
		l.s.cfg.Log.WithError(err).Warn("The agent could not be told of the end; it will see that the heartbeats stop")
	}
}

// close ends the connections, after the services that use them.
func (l *link) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	if err := l.bus.Close(ctx); err != nil {
		return fmt.Errorf("close link: %w", err)
	}
	return nil
}
