package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/fsm"
)

// registrant is a registration with what it told its owner.
type registrant struct {
	*Registration
	mu    sync.Mutex // guards moves
	moves []string
}

func newRegistrant(tb testing.TB, l *Link) *registrant {
	tb.Helper()
	g := &registrant{}
	r, err := NewRegistration(RegistrationConfig{
		Link: l, Machine: fsm.NewRegistration(), Log: quiet(),
		Describe: func() rpc.Registration { return rpc.Registration{Instance: "i", ID: "somebody else"} },
		OnTransition: func(t fsm.Transition) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.moves = append(g.moves, fmt.Sprintf("%s: %s -> %s", t.Event, t.From, t.To))
		},
	})
	must(tb, err)
	r.timing = registrationTiming{first: 10 * time.Millisecond, most: 20 * time.Millisecond, retry: 50 * time.Millisecond}
	g.Registration = r
	return g
}

func (g *registrant) told() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.moves...)
}

func (g *registrant) is(state fsm.RegistrationState) func() bool {
	return func() bool { return g.Status().Machine.State == string(state) }
}

const (
	moveRegister   = "register: unregistered -> registering"
	moveAgain      = "register: failed -> registering"
	moveAccept     = "accept: registering -> registered"
	moveDisconnect = "disconnect: registered -> unregistered"
)

func TestRegistrationLives(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) { a.intervalMS = 1500 })
	g := newRegistrant(t, b.link())
	run(t, g)
	eventually(t, "registered", g.is(fsm.RegistrationRegistered))
	eventually(t, "the lease", func() bool { interval, ok := g.Registered(); return ok && interval == 1500*time.Millisecond })
	lease, changed := g.Lease()
	b.stop()
	<-changed
	eventually(t, "unregistered", g.is(fsm.RegistrationUnregistered))
	if _, ok := g.Registered(); ok {
		t.Error("the lease outlives the connection")
	}
	b.start()
	a.listen()
	eventually(t, "registered again", func() bool { l, _ := g.Lease(); return l.Registered && l.Number == lease.Number+1 })
	if diff := cmp.Diff([]string{moveRegister, moveAccept, moveDisconnect, moveRegister, moveAccept}, g.told()); diff != "" {
		t.Error(diff)
	}
	r := get(a, func(a *testAgent) rpc.Registration { return a.registered[0] })
	if r.ID != testID || r.Protocol != rpc.Protocol || r.Instance != "i" {
		t.Errorf("%+v", r)
	}
	if s := g.Status(); s.Successes != 2 || s.Failures != 0 || s.Accepted.AgentID != "agent-1" || s.Machine.Cause != "accepted by agent agent-1" {
		t.Errorf("%+v", s)
	}
}

func TestRegistrationIsRejected(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) {
		a.answer = func(r *rpc.Request) (any, *rpc.Error, bool) {
			return nil, &rpc.Error{Code: rpc.CodeRejected, Message: "protocol 7 is too new\x1b[2J"}, r.Operation == rpc.OpRegister
		}
	})
	g := newRegistrant(t, b.link())
	run(t, g)
	eventually(t, "rejected", g.is(fsm.RegistrationFailed))
	if s := g.Status(); s.Machine.Cause != `protocol 7 is too new\x1b[2J` {
		t.Errorf("cause %q", s.Machine.Cause)
	}
	eventually(t, "tried again", func() bool { return g.Status().Attempts >= 3 })
	a.set(func(a *testAgent) { a.answer = nil })
	eventually(t, "registered", g.is(fsm.RegistrationRegistered))
	for i, move := range g.told()[1:] {
		if want := []string{"reject: registering -> failed", moveAgain}[i%2]; move != want && move != moveAccept {
			t.Errorf("%d: %s", i, move)
		}
	}
}

func TestRegistrationRunsOutOfAttempts(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) {
		a.answer = func(*rpc.Request) (any, *rpc.Error, bool) {
			return nil, &rpc.Error{Code: rpc.CodeBusy, Message: "later"}, true
		}
	})
	g := newRegistrant(t, b.link())
	g.timing.retry = time.Hour
	run(t, g)
	eventually(t, "failed", g.is(fsm.RegistrationFailed))
	if s := g.Status(); s.Attempts != 3 || s.Failures != 3 || s.Machine.Cause != "3 attempts failed, the last one: later (busy)" {
		t.Errorf("%+v", s)
	}
	a.set(func(a *testAgent) { a.answer = nil })
	b.cut() // at once after a reconnect, not in an hour
	eventually(t, "registered", g.is(fsm.RegistrationRegistered))
	if diff := cmp.Diff([]string{moveRegister, "exhaust: registering -> failed", moveAgain, moveAccept}, g.told()); diff != "" {
		t.Error(diff)
	}
}

func TestRegistrationServiceRestarts(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	g := newRegistrant(t, b.link())
	r := run(t, g)
	eventually(t, "registered", g.is(fsm.RegistrationRegistered))
	r.stop()
	run(t, g)
	eventually(t, "registered again", func() bool { return len(g.told()) == 5 && g.is(fsm.RegistrationRegistered)() })
	if diff := cmp.Diff([]string{moveRegister, moveAccept, moveDisconnect, moveRegister, moveAccept}, g.told()); diff != "" {
		t.Error(diff)
	}
}

func TestRegistrationTakesLeave(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	g := newRegistrant(t, b.link())
	r := run(t, g)
	eventually(t, "registered", g.is(fsm.RegistrationRegistered))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	must(t, g.Deregister(ctx, rpc.Farewell{Instance: "i", Reason: "stopped", Undelivered: 3}))
	if diff := cmp.Diff([]rpc.Farewell{{Instance: "i", Reason: "stopped", Undelivered: 3}}, get(a, func(a *testAgent) []rpc.Farewell { return a.farewells })); diff != "" {
		t.Error(diff)
	}
	want := []string{moveRegister, moveAccept, "deregister: registered -> deregistering", "done: deregistering -> unregistered"}
	b.cut()
	r.stop()
	run(t, g)
	eventually(t, "connections", func() bool { return connected(g.cfg.Link) })
	if err := g.Deregister(ctx, rpc.Farewell{}); !errors.Is(err, ErrNotRegistered) {
		t.Error("a second time:", err)
	}
	if diff := cmp.Diff(want, g.told()); diff != "" || !g.Status().Left {
		t.Error(diff)
	}
}

func TestRegistrationTakesLeaveWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	g := newRegistrant(t, b.link())
	run(t, g)
	eventually(t, "registered", g.is(fsm.RegistrationRegistered))
	a.set(func(a *testAgent) { a.silent = true })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := g.Deregister(ctx, rpc.Farewell{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	eventually(t, "unregistered", g.is(fsm.RegistrationUnregistered))
	if cause := g.Status().Machine.Cause; !strings.Contains(cause, "did not take note") {
		t.Error(cause)
	}
}

func TestRegistrationTakesLeaveWhileItAsks(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) { a.silent = true })
	g := newRegistrant(t, b.link())
	run(t, g)
	eventually(t, "asking", func() bool { return g.Status().Attempts == 1 })
	began := time.Now()
	if err := g.Deregister(context.Background(), rpc.Farewell{}); !errors.Is(err, ErrNotRegistered) {
		t.Error(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("waited %v for the attempt", d)
	}
	if diff := cmp.Diff([]string{moveRegister, "disconnect: registering -> unregistered"}, g.told()); diff != "" {
		t.Error(diff)
	}
}

func TestRegistrationLosesTheConnectionWhileItAsks(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) { a.silent = true })
	g := newRegistrant(t, b.link())
	run(t, g)
	eventually(t, "asking", func() bool { return g.Status().Attempts == 1 })
	began := time.Now()
	b.stop()
	eventually(t, "unregistered", g.is(fsm.RegistrationUnregistered))
	if d := time.Since(began); d > time.Second {
		t.Errorf("noticed after %v", d)
	}
}

func TestConfigsNameEveryFault(t *testing.T) {
	t.Parallel()
	for name, construct := range map[string]func() error{
		"registration": func() error { _, err := NewRegistration(RegistrationConfig{}); return err },
		"heartbeat":    func() error { _, err := NewHeartbeat(HeartbeatConfig{}); return err },
		"server":       func() error { _, err := NewServer(ServerConfig{}); return err },
		"publisher":    func() error { _, err := NewPublisher(PublisherConfig{Window: 5000}); return err },
		"monitor":      func() error { _, err := NewMonitor(MonitorConfig{}); return err },
	} {
		if err := construct(); err == nil || strings.Count(err.Error(), "\n") < 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
