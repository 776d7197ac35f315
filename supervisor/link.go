package supervisor

import (
	"context"
	"os"
	"time"

	"daemoneye.dev/procmond/bus"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/tree"
)

// Groups of the tree that only a coordinated daemon has.
const (
	groupLink     = "link"
	groupPressure = "pressure"
)

// link is the daemon's side of coordinated mode: the services of bus, and what they
// need to know of the rest.
type link struct {
	s        *Supervisor
	instance string // of this process

	bus          *bus.Link
	registration *bus.Registration
	heartbeat    *bus.Heartbeat
	server       *bus.Server
	publisher    *bus.Publisher
	monitor      *bus.Monitor

	told news // watchdog alone
}

// news is what the agent should not have to wait for until the next heartbeat.
type news struct {
	level       Level
	state       string
	coordinated bool
	pressure    bool
}

// tell makes a heartbeat of what has changed since the last call.
func (l *link) tell(h Health) {
	if l == nil {
		return
	}
	status := l.s.mailbox.Status()
	now := news{h.Level, string(l.s.machine.State()), status.Coordinated, status.Interval.Pressure}
	if now != l.told {
		l.told = now
		l.heartbeat.Soon()
	}
}

// newLink makes the connections; nothing is connected yet.
func newLink(s *Supervisor) (*link, error) {
	b, err := bus.NewLink(bus.LinkConfig{Socket: s.cfg.Broker.Socket, ID: s.cfg.Broker.ID, Log: s.cfg.Log.WithField("service", "link")})
	return &link{s: s, instance: event.NewEpoch().String(), bus: b}, err
}

// addDelivery adds what moves events and what slows their making.
func (l *link) addDelivery() error {
	s, progress := l.s, new(tree.Progress)
	var err error
	l.publisher, err = bus.NewPublisher(bus.PublisherConfig{
		Link: l.bus, Log: s.cfg.Store, HostID: s.cfg.Host.HostID, Window: s.cfg.Window,
		Progress: progress, Logger: s.cfg.Log.WithField("service", "publisher"),
	})
	if err != nil {
		return err
	}
	s.add(groupDelivery, l.publisher, tree.Options{Progress: progress})

	progress = new(tree.Progress)
	l.monitor, err = bus.NewMonitor(bus.MonitorConfig{
		Backlog:  l.backlog,
		Delivery: l.publisher.Status,
		InForce:  func() bool { return s.mailbox.Status().Interval.Pressure },
		Set:      l.setPressure,
		Progress: progress, Log: s.cfg.Log.WithField("service", "monitor"),
	})
	if err != nil {
		return err
	}
	s.add(groupPressure, l.monitor, tree.Options{Progress: progress})
	return nil
}

// addControl adds what talks with the agent.
func (l *link) addControl() error {
	s, progress := l.s, new(tree.Progress)
	var err error
	l.registration, err = bus.NewRegistration(bus.RegistrationConfig{
		Link: l.bus, Machine: s.registration, Describe: l.describe, OnTransition: s.journal.record,
		Progress: progress, Log: s.cfg.Log.WithField("service", "registration"),
	})
	if err != nil {
		return err
	}
	s.add(groupLink, l.registration, tree.Options{Progress: progress})

	progress = new(tree.Progress)
	l.heartbeat, err = bus.NewHeartbeat(bus.HeartbeatConfig{
		Link: l.bus, Instance: l.instance, Lease: l.registration.Lease, Beat: l.beat, Totals: l.totals,
		Progress: progress, Log: s.cfg.Log.WithField("service", "heartbeat"),
	})
	if err != nil {
		return err
	}
	s.add(groupLink, l.heartbeat, tree.Options{Progress: progress})

	progress = new(tree.Progress)
	r := requests{s}
	l.server, err = bus.NewServer(bus.ServerConfig{
		Link: l.bus,
		Operations: map[rpc.Operation]bus.Operation{
			rpc.OpHealthCheck:      bus.Handle(r.healthCheck),
			rpc.OpUpdateConfig:     bus.Handle(r.updateConfig),
			rpc.OpGracefulShutdown: bus.Handle(r.gracefulShutdown),
			rpc.OpBeginMonitoring:  bus.Handle(r.beginMonitoring),
			rpc.OpAdjustInterval:   bus.Handle(r.adjustInterval),
		},
		Progress: progress, Log: s.cfg.Log.WithField("service", "rpc"),
	})
	if err != nil {
		return err
	}
	s.add(groupLink, l.server, tree.Options{Progress: progress})
	return nil
}

// describe says who registers.
func (l *link) describe() rpc.Registration {
	st := l.s.cfg.Store.Stats()
	return rpc.Registration{
		Instance: l.instance, Version: l.s.cfg.Version, HostID: l.s.cfg.Host.HostID, BootID: l.s.cfg.Host.BootID,
		PID: os.Getpid(), StartedAt: l.s.started, State: string(l.s.machine.State()), Epoch: epochText(st.Epoch), Head: st.Head,
	}
}

// beat describes the daemon for a heartbeat.
func (l *link) beat() rpc.Heartbeat {
	f := l.s.facts(time.Now())
	health, status, registration := judge(f), l.bus.Status(), l.registration.Status()
	return rpc.Heartbeat{
		Health: health.Level.String(), Reasons: orEmpty(health.Reasons),
		Collector: f.machine.State, Registration: f.registration.State, Coordinated: f.collect.Coordinated,
		Epoch: epochText(f.store.Epoch), Head: f.store.Head, Cursor: f.store.Cursor,
		BacklogEvents: f.store.BacklogEvents, BacklogBytes: f.store.BacklogBytes, BacklogBudget: f.store.BacklogBudget,
		BacklogLevel: level(f.store.BacklogBytes, f.store.BacklogBudget),
		Pressure:     f.pressure.On, PressureCause: f.pressure.Cause, IntervalMS: f.collect.Interval.Current.Milliseconds(),
		Connection:    status.Connection(),
		Registrations: registration.Successes, RegistrationFailures: registration.Failures,
	}
}

// level is how much of the budget is used.
func level(bytes, budget uint64) float64 {
	if budget == 0 {
		return 0
	}
	return float64(bytes) / float64(budget)
}

// totals are what the daemon has done since it started.
func (l *link) totals() rpc.Counters {
	status := l.s.mailbox.Status()
	c := rpc.Counters{Cycles: status.Cycle.Count, Events: status.Totals.Events, Delivered: l.publisher.Status().DeliveredTotal}
	for _, service := range l.s.tree.Services() {
		c.Restarts += service.Restarts
	}
	return c
}

func (l *link) backlog() (bytes, budget uint64) {
	st := l.s.cfg.Store.Stats()
	return st.BacklogBytes, st.BacklogBudget
}

func (l *link) setPressure(ctx context.Context, on bool) error {
	_, err := l.s.mailbox.Handle().AdjustInterval(ctx, collect.Adjust{Pressure: &on})
	return err
}

func (l *link) publisherPath() string { return groupDelivery + "/" + l.publisher.String() }

func (l *link) monitorPath() string { return groupPressure + "/" + l.monitor.String() }
