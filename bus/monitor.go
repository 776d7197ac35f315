package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// When there is pressure. Between the two levels it stays as it is.
const (
	PressureOn    = 0.70            // of the backlog's budget: on from here
	PressureOff   = 0.50            // off below, if nothing else asks for it
	PressureStall = 5 * time.Second // of an acknowledgement, while connected: on
	// monitorEvery is between two looks, and setTimeout bounds one order.
	monitorEvery = time.Second
	setTimeout   = 2 * time.Second
)

// MonitorConfig is what a [Monitor] is made from. None of its functions but Set may
// block.
type MonitorConfig struct {
	// Backlog is what is not delivered, and what may be at most; no budget is no
	// pressure from it.
	Backlog  func() (bytes, budget uint64)
	Delivery func() PublisherStatus
	// InForce says whether whoever Set orders acts under pressure now.
	InForce  func() bool
	Set      func(ctx context.Context, on bool) error
	Progress Progress // may be nil
	Log      *logrus.Entry
}

// Validate names every fault.
func (c *MonitorConfig) Validate() error {
	return missing("backlog", c.Backlog == nil, "delivery", c.Delivery == nil, "pressure in force", c.InForce == nil,
		"setter of pressure", c.Set == nil, "log", c.Log == nil)
}

// MonitorStatus is how a [Monitor] stands.
type MonitorStatus struct {
	On       bool      // what is wanted
	InForce  bool      // what was found at the last look
	Since    time.Time // of On; zero: never looked
	Cause    string    // a sentence; also why it was released. Empty: never any pressure
	Switches uint64    // changes of On since the process started
	Failures uint64    // orders that were not carried out
	// LastError is printable; empty: none yet.
	LastError   string
	LastErrorAt time.Time
}

// Monitor decides whether there is pressure and sees to it that the collector
// obeys, also after the collector was restarted. It is a service; what it decided
// outlives Serve.
type Monitor struct {
	cfg MonitorConfig

	mu     sync.Mutex // guards everything below
	status MonitorStatus
	full   uint64 // refusals for want of room, at the last look
}

// NewMonitor returns a service that is not started.
func NewMonitor(cfg MonitorConfig) (*Monitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure backpressure monitor: %w", err)
	}
	cfg.Progress = watched(cfg.Progress)
	return &Monitor{cfg: cfg}, nil
}

func (m *Monitor) String() string { return "backpressure monitor" }

// Status does not block.
func (m *Monitor) Status() MonitorStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Serve looks once a second until ctx ends. It leaves the pressure as it is then.
func (m *Monitor) Serve(ctx context.Context) error {
	tick := time.NewTicker(monitorEvery)
	defer tick.Stop()
	for {
		m.cfg.Progress.Beat("watching the backlog")
		m.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look decides once and gives the order if it is not obeyed.
func (m *Monitor) look(ctx context.Context) {
	bytes, budget := m.cfg.Backlog()
	delivery := m.cfg.Delivery()
	on := m.decide(bytes, budget, &delivery)
	inForce := m.cfg.InForce()
	m.mu.Lock()
	m.status.InForce = inForce
	m.mu.Unlock()
	if inForce == on {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	if err := m.cfg.Set(ctx, on); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.status.Failures++
		m.status.LastError, m.status.LastErrorAt = describe(err), time.Now()
	}
}

// decide takes note of whether there is pressure.
func (m *Monitor) decide(bytes, budget uint64, d *PublisherStatus) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.status
	refused := d.State == DeliveryFull || d.Full > m.full // a little room now and then is no relief
	m.full = d.Full
	on, cause := judgePressure(s.On, refused, bytes, budget, stall(d, time.Now()))
	first := s.Since.IsZero()
	if on != s.On || first {
		s.Since = time.Now()
	}
	if on != s.On {
		s.On, s.Switches = on, s.Switches+1
		m.cfg.Log.WithFields(logrus.Fields{"pressure": on, "cause": cause}).Warn("Backpressure changed")
	}
	if cause != "" {
		s.Cause = cause
	}
	return on
}

// stall is for how long an acknowledgement has been outstanding.
func stall(d *PublisherStatus, now time.Time) time.Duration {
	if d.InFlightSince.IsZero() || d.State == DeliveryDisconnected {
		return 0
	}
	return now.Sub(d.InFlightSince)
}

// judgePressure says whether there is pressure, given whether there was, and why.
// The cause is empty if there is nothing to add to the last one.
func judgePressure(was, full bool, bytes, budget uint64, stalled time.Duration) (on bool, cause string) {
	level := 0.0
	if budget > 0 {
		level = float64(bytes) / float64(budget)
	}
	switch {
	case full:
		return true, "The agent's stream is full."
	case stalled > PressureStall:
		return true, fmt.Sprintf("The agent has not acknowledged events for more than %v.", PressureStall)
	case level >= PressureOn:
		return true, fmt.Sprintf("The backlog fills %.0f %% or more of its budget.", 100*PressureOn)
	case !was:
		return false, ""
	case level >= PressureOff:
		return true, fmt.Sprintf("The backlog has not yet fallen below %.0f %% of its budget.", 100*PressureOff)
	}
	return false, "The backlog and the stream have room again."
}
