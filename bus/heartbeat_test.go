package bus

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/fsm"
)

func newTestHeartbeat(tb testing.TB, l *Link, lease func() (Lease, <-chan struct{}), events *atomic.Uint64) *Heartbeat {
	tb.Helper()
	h, err := NewHeartbeat(HeartbeatConfig{
		Link: l, Instance: "i", Lease: lease, Log: quiet(),
		Beat:   func() rpc.Heartbeat { return rpc.Heartbeat{Health: "healthy", Sequence: 99} },
		Totals: func() rpc.Counters { return rpc.Counters{Events: events.Add(10), Cycles: 5} },
	})
	must(tb, err)
	return h
}

func beats(a *testAgent) []rpc.Heartbeat {
	return get(a, func(a *testAgent) []rpc.Heartbeat { return slices.Clone(a.beats) })
}

func TestHeartbeatsOfARegistration(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) { a.intervalMS = 1 }) // too short: taken for 100 ms
	l := b.link()
	g := newRegistrant(t, l)
	var events atomic.Uint64
	h := newTestHeartbeat(t, l, g.Lease, &events)
	service := run(t, h)
	eventually(t, "connections", func() bool { return connected(l) })
	if n := len(beats(a)); n != 0 {
		t.Fatalf("%d heartbeats before the registration", n)
	}
	run(t, g)
	eventually(t, "heartbeats", func() bool { return len(beats(a)) >= 3 })
	all := beats(a)
	for i, beat := range all {
		want := rpc.Heartbeat{
			ID: testID, Instance: "i", Sequence: uint64(i + 1), At: beat.At, Health: "healthy", Reasons: []string{},
			HeartbeatsSent: uint64(i), Since: rpc.Counters{Events: 10},
		}
		if i == 0 {
			want.Since.Cycles = 5
		}
		if diff := cmp.Diff(want, beat); diff != "" {
			t.Error(diff)
		}
	}
	if d := all[2].At.Sub(all[0].At); d < 190*time.Millisecond {
		t.Errorf("two intervals took %v", d)
	}
	service.stop() // a restarted service goes on counting
	before := h.Status()
	run(t, h)
	eventually(t, "more", func() bool { return h.Status().Sent > before.Sent })
	if last := beats(a)[len(beats(a))-1]; last.Sequence != before.Sequence+1 {
		t.Errorf("%+v", last)
	}
	b.stop()
	eventually(t, "unregistered", g.is(fsm.RegistrationUnregistered))
	eventually(t, "no interval", func() bool { return h.Status().Interval == 0 })
	a.set(func(a *testAgent) { a.beats = nil })
	b.start()
	a.listen()
	eventually(t, "heartbeats again", func() bool { return len(beats(a)) > 0 })
	if first := beats(a)[0]; first.Sequence != 1 || first.HeartbeatsSent < before.Sent {
		t.Errorf("%+v", first)
	}
}

func TestHeartbeatCountsFailures(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	var events atomic.Uint64
	never := make(chan struct{})
	h := newTestHeartbeat(t, b.link(), func() (Lease, <-chan struct{}) {
		return Lease{Registered: true, Number: 1, Interval: time.Nanosecond}, never
	}, &events)
	run(t, h)
	eventually(t, "failures", func() bool { return h.Status().Failed >= 2 })
	if s := h.Status(); s.Sent != 0 || s.LastError != "send heartbeat: not connected" || s.Interval != minHeartbeat {
		t.Errorf("%+v", s)
	}
	b.start()
	a := newTestAgent(b)
	eventually(t, "a heartbeat", func() bool { return len(beats(a)) > 0 })
	if first := beats(a)[0]; first.HeartbeatsFailed == 0 || first.Sequence != 1 {
		t.Errorf("%+v", first)
	}
}

func TestHeartbeatBounds(t *testing.T) {
	t.Parallel()
	h := newTestHeartbeat(t, &Link{}, func() (Lease, <-chan struct{}) { return Lease{}, nil }, new(atomic.Uint64))
	for interval, want := range map[time.Duration]time.Duration{
		0: DefaultHeartbeat, time.Millisecond: minHeartbeat, time.Second: time.Second, time.Hour: maxHeartbeat,
	} {
		if got := h.begin(Lease{Registered: true, Interval: interval}); got != want {
			t.Errorf("%v: %v", interval, got)
		}
	}
}
