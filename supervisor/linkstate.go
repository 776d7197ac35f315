package supervisor

import (
	"time"

	"daemoneye.dev/procmond/bus"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/supervisor/control"
)

// connected is the word of the contract that health is judged by.
const connected = bus.StateConnected

func (s *Supervisor) registrationState(r fsm.Snapshot) control.Registration {
	state := control.Registration{State: r.State, Since: control.At(r.Since), Cause: r.Cause}
	if s.link == nil {
		return state
	}
	status, beats := s.link.registration.Status(), s.link.heartbeat.Status()
	state.Attempts, state.Failures, state.LastError = status.Attempts, status.Failures, status.LastError
	state.Heartbeats = control.Heartbeats{Sent: beats.Sent, Failed: beats.Failed}
	if a := status.Accepted; a != nil {
		state.AgentID, state.AgentVersion = a.AgentID, a.AgentVersion
	}
	state.HeartbeatIntervalMS = beats.Interval.Milliseconds()
	return state
}

// state is how the connections stand.
func (l *link) state() *control.Link {
	if l == nil {
		return nil
	}
	status := l.bus.Status()
	return &control.Link{
		Socket: l.s.cfg.Broker.Socket, ID: l.s.cfg.Broker.ID,
		Control: connectionState(status.Control), Events: connectionState(status.Events),
		Refused: status.Control.Violations + status.Events.Violations,
	}
}

func connectionState(c bus.ConnectionStatus) control.Connection {
	return control.Connection{State: c.State, Since: control.At(c.Since), Reconnects: c.Reconnects, LastError: c.LastError}
}

func (l *link) deliveryState(now time.Time) *control.Delivery {
	if l == nil {
		return nil
	}
	p := l.publisher.Status()
	return &control.Delivery{
		State: string(p.State), Since: control.At(p.Since), Window: p.Window, LastSeq: p.Delivered, Delivered: p.DeliveredTotal, Batches: p.Batches,
		Duplicates: p.Duplicates, Resumes: p.Resumes, Full: p.Full, Unknown: p.Unknown,
		InFlightMS: since(now, p.InFlightSince).Milliseconds(), LastAckMS: float64(p.LastAck) / float64(time.Millisecond),
		FailingSince: control.At(p.FailingSince), LastError: p.LastError, LastErrorAt: control.At(p.LastErrorAt),
	}
}

func (l *link) pressureState() control.Pressure {
	if l == nil {
		return control.Pressure{}
	}
	m := l.monitor.Status()
	return control.Pressure{On: m.On, Since: control.At(m.Since), Cause: m.Cause, Switches: m.Switches}
}

func (l *link) operations() []control.Operation {
	ops := []control.Operation{}
	if l == nil {
		return ops
	}
	for _, o := range l.server.Stats() {
		ops = append(ops, control.Operation{Operation: string(o.Operation), Count: o.Count, Errors: o.Errors, Timeouts: o.Timeouts})
	}
	return ops
}
