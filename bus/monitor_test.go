package bus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pressed is a collector, and what is behind it, under a monitor.
type pressed struct {
	bytes, budget uint64
	delivery      PublisherStatus
	inForce       bool
	orders        []bool
	err           error
	beats         int
}

func (p *pressed) Beat(string) { p.beats++ }

func (p *pressed) monitor(t *testing.T) *Monitor {
	m, err := NewMonitor(MonitorConfig{
		Backlog:  func() (uint64, uint64) { return p.bytes, p.budget },
		Delivery: func() PublisherStatus { return p.delivery },
		InForce:  func() bool { return p.inForce },
		Set: func(_ context.Context, on bool) error {
			p.orders = append(p.orders, on)
			if p.err == nil {
				p.inForce = on
			}
			return p.err
		},
		Progress: p, Log: quiet(),
	})
	must(t, err)
	return m
}

// watch calls f in a bubble, with a function that makes the monitor look a second
// later.
func watch(t *testing.T, p *pressed, f func(m *Monitor, look func())) {
	synctest.Test(t, func(t *testing.T) {
		m := p.monitor(t)
		f(m, func() {
			<-time.After(monitorEvery)
			m.look(t.Context())
		})
	})
}

func TestMonitorLooksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pressed{bytes: 90, budget: 100}
		m := p.monitor(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*monitorEvery+1)
		defer cancel()
		if err := m.Serve(ctx); !errors.Is(err, context.DeadlineExceeded) || p.beats != 11 || len(p.orders) != 1 {
			t.Errorf("%d beats, %v: %v", p.beats, p.orders, err)
		}
	})
}

func TestMonitorHasHysteresis(t *testing.T) {
	p := &pressed{budget: 1000}
	watch(t, p, func(m *Monitor, look func()) {
		for i, step := range []struct {
			bytes uint64
			want  bool
		}{{0, false}, {699, false}, {700, true}, {600, true}, {500, true}, {499, false}, {600, false}, {2000, true}, {0, false}} {
			p.bytes = step.bytes
			look()
			if s := m.Status(); s.On != step.want || p.inForce != step.want {
				t.Errorf("%d: %d bytes: %+v", i, step.bytes, s)
			}
		}
		if s := m.Status(); s.Switches != 4 || s.Failures != 0 || s.Cause != "The backlog and the stream have room again." {
			t.Errorf("%+v", s)
		}
	})
}

func TestMonitorSeesAFullStream(t *testing.T) {
	p := &pressed{}
	watch(t, p, func(m *Monitor, look func()) {
		p.delivery.State, p.delivery.Full = DeliveryFull, 1
		look()
		if s := m.Status(); !s.On || s.Cause != "The agent's stream is full." {
			t.Errorf("%+v", s)
		}
		for range 3 { // a little room now and then
			p.delivery.State, p.delivery.Full = DeliverySending, p.delivery.Full+1
			look()
		}
		if s := m.Status(); !s.On || s.Switches != 1 {
			t.Errorf("%+v", s)
		}
		look()
		if s := m.Status(); s.On {
			t.Errorf("%+v", s)
		}
	})
}

func TestMonitorSeesAStall(t *testing.T) {
	p := &pressed{}
	watch(t, p, func(m *Monitor, look func()) {
		p.delivery = PublisherStatus{State: DeliverySending, InFlightSince: time.Now()}
		for i := range 8 {
			look()
			if want := time.Since(p.delivery.InFlightSince) > PressureStall+monitorEvery; want && !m.Status().On {
				t.Errorf("%d: %+v", i, m.Status())
			}
			if early := time.Since(p.delivery.InFlightSince) < PressureStall; early && m.Status().On {
				t.Errorf("%d: %+v", i, m.Status())
			}
		}
		if s := m.Status(); !strings.Contains(s.Cause, "more than 5s") {
			t.Errorf("%+v", s)
		}
		p.delivery.State = DeliveryDisconnected
		look()
		if m.Status().On {
			t.Error("without a connection nothing is outstanding")
		}
	})
}

func TestMonitorAssertsAgain(t *testing.T) {
	p := &pressed{bytes: 90, budget: 100}
	watch(t, p, func(m *Monitor, look func()) {
		look()
		p.inForce = false // the collector was restarted
		p.err = errors.New("mailbox full")
		look()
		look()
		if s := m.Status(); s.Failures != 2 || s.LastError != "mailbox full" || s.InForce || !s.On {
			t.Errorf("%+v", s)
		}
		p.err = nil
		look()
		look()
		if s := m.Status(); !p.inForce || !s.InForce || s.Switches != 1 {
			t.Errorf("%+v", s)
		}
	})
	if p.orders[0] != true || len(p.orders) != 4 {
		t.Errorf("%v", p.orders)
	}
}
