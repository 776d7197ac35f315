package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/fsm"
)

const (
	// lookEvery is how often is looked for what nobody tells of.
	lookEvery = 200 * time.Millisecond
	// serviceStop bounds the stop of each service but the collector's last cycle.
	serviceStop = 5 * time.Second
)

// Run starts the tree and returns after it has stopped it in order: when ctx
// ends, the agent asks for it, or the collector was shut down. The error names what
// did not stop in time; the store must then not be marked clean.
func (s *Supervisor) Run(ctx context.Context) error {
	if s.link != nil {
		if err := s.link.bus.Open(ctx); err != nil {
			return fmt.Errorf("open link to the agent: %w", err)
		}
	}
	s.tree.Start(ctx)
	begun := s.begin(ctx)
	s.awaitEnd(ctx)
	return errors.Join(begun, s.stop())
}

// begin starts monitoring in standalone mode, where nobody else would.
func (s *Supervisor) begin(ctx context.Context) error {
	if s.link != nil {
		return nil
	}
	_, err := s.mailbox.Handle().BeginMonitoring(ctx, collect.Begin{Cause: modeStandalone})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("begin monitoring: %w", err)
	}
	return nil
}

// awaitEnd returns when the daemon is to stop. Until then it watches whether the
// collector has to begin without an agent.
func (s *Supervisor) awaitEnd(ctx context.Context) {
	for s.machine.State() != fsm.CollectorStopped {
		s.beginAlone(ctx)
		select {
		case <-s.moves:
		case <-s.soon():
		case <-s.end.asked:
			return
		case <-ctx.Done():
			return
		}
	}
}

// soon is when to look again whether to begin without an agent; never if that is
// not in question, so that an idle daemon sleeps.
func (s *Supervisor) soon() <-chan time.Time {
	if s.link == nil || s.machine.State() != fsm.CollectorWaitingForAgent {
		return nil
	}
	return time.After(lookEvery)
}

// moved is told of each transition of the collector.
func (s *Supervisor) moved(t fsm.Transition) {
	s.journal.record(t)
	select {
	case s.moves <- struct{}{}:
	default: // Run will look anyway
	}
}

// stop ends the services in the order of data flow.
func (s *Supervisor) stop() error {
	s.stopping.Store(true)
	s.notify(Notice{Stopping: true, Status: "stopping: completing the last cycle"})
	var faults []error
	if s.link != nil {
		faults = append(faults, s.tree.Stop(s.link.monitorPath(), serviceStop))
	}
	collected := s.stopCollector()
	faults = append(faults, collected, s.leave(collected))
	for _, path := range s.paths {
		if err := s.tree.Stop(path, serviceStop); err != nil {
			faults = append(faults, fmt.Errorf("stop %s: %w", path, err))
		}
	}
	unstopped := s.tree.Close(serviceStop)
	faults = append(faults, unstopped)
	if s.cfg.Events != nil && unstopped == nil { // who has not stopped may still read it
		faults = append(faults, s.cfg.Events.Close())
	}
	if s.link != nil {
		faults = append(faults, s.link.close())
	}
	return errors.Join(faults...)
}

// stopCollector lets the collector complete its cycle and write its last event.
func (s *Supervisor) stopCollector() error {
	if s.machine.State() == fsm.CollectorStopped {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.StopTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	result, err := s.askToShutDown(ctx, collect.Shutdown{
		Deadline: deadline.Add(-s.cfg.StopTimeout / 4), // what is left is for the last append
		Reason:   s.end.why(),
	})
	switch {
	case errors.Is(err, collect.ErrStopped) && s.machine.State() == fsm.CollectorStopped:
		// It crashed over the order, came back, and carried it out all the same.
	case err != nil:
		s.abort(err)
		return fmt.Errorf("shut down collector: %w", err)
	case !result.Complete:
		s.cfg.Log.WithField("detail", result.Detail).Warn("The collector stopped before it was done")
	}
	return nil
}

// askToShutDown asks until the collector has heard it or ctx ends: a full mailbox
// empties, and a collector that crashes comes back.
func (s *Supervisor) askToShutDown(ctx context.Context, order collect.Shutdown) (collect.ShutdownResult, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		result, err := s.mailbox.Handle().GracefulShutdown(ctx, order)
		if !errors.Is(err, collect.ErrMailboxFull) && !errors.Is(err, collect.ErrRestarted) {
			return result, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return result, err
		}
	}
}

// abort takes a collector that does not answer to its last state, so that its
// report does not say that it runs.
func (s *Supervisor) abort(cause error) {
	s.mailbox.Close()
	if t, err := s.machine.Fire(fsm.CollectorAbort, cause.Error()); err == nil && t.Changed() {
		s.journal.record(t)
	}
}

// Reload applies what the operator has written into the configuration; see
// [collect.Handle.UpdateConfig].
func (s *Supervisor) Reload(ctx context.Context, u collect.Update) (collect.UpdateResult, error) {
	return s.mailbox.Handle().UpdateConfig(ctx, u)
}
