package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/bus/rpc"
)

func expect(ids ...string) func(*Config) {
	return func(c *Config) { c.Expected = ids }
}

func TestAllBeginWhenAllAreReady(t *testing.T) {
	r := run(t, expect("b", "a"))
	a, b := newCollector(t, r.broker, "a", "1"), newCollector(t, r.broker, "b", "1")
	accepted := a.join()
	if accepted.AgentID != r.id || accepted.HeartbeatIntervalMS != time.Minute.Milliseconds() || accepted.Last.Seq != 7 {
		t.Errorf("accepted with %+v", accepted)
	}
	a.beat("degraded", collectorWaiting)
	b.join()
	eventually(t, "a is ready", func() bool { return r.collector("a").Ready })
	if missing := r.Report().Missing; !cmp.Equal(missing, []string{"b"}) {
		t.Errorf("missing %v: a registered collector is not ready before its heartbeat", missing)
	}
	if a.begins() != 0 {
		t.Error("a was begun before b was there")
	}
	b.beat("healthy", collectorWaiting)
	r.state("steady")
	eventually(t, "both hear it", func() bool { return a.begins() > 0 && b.begins() > 0 })

	var states []string
	for _, transition := range r.Report().Transitions {
		states = append(states, transition.From+" "+transition.Event+" "+transition.To)
	}
	want := []string{"loading all_ready ready", "ready begin steady"}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
}

func TestUnhealthyIsNotReady(t *testing.T) {
	r := run(t, expect("a"))
	a := newCollector(t, r.broker, "a", "1")
	a.join()
	a.beat("unhealthy", collectorWaiting)
	eventually(t, "the heartbeat came", func() bool { return r.collector("a").Heartbeat != nil })
	if r.collector("a").Ready {
		t.Error("ready, though unhealthy")
	}
	a.beat("healthy", collectorWaiting)
	r.state("steady")
}

func TestNobodyExpected(t *testing.T) {
	r := run(t, nil)
	r.state("steady")
	late := newCollector(t, r.broker, "late", "1")
	late.join()
	eventually(t, "the late one is begun", func() bool { return r.collector("late").Begun })
}

func TestStartupTimeout(t *testing.T) {
	r := run(t, func(c *Config) {
		c.Expected = []string{"a", "b"}
		c.Timing.Ready = 30 * time.Millisecond
	})
	a, b := newCollector(t, r.broker, "a", "1"), newCollector(t, r.broker, "b", "1")
	a.join()
	a.beat("healthy", collectorWaiting)
	r.state("startup_failed")
	report := r.Report()
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "not ready: ") || !strings.Contains(report.Cause, "b") {
		t.Errorf("warnings %q, cause %q", report.Warnings, report.Cause)
	}
	if a.begins() != 0 {
		t.Error("begun before steady")
	}
	b.join()
	b.beat("healthy", collectorWaiting)
	r.state("steady")
	eventually(t, "both hear it", func() bool { return a.begins() > 0 && b.begins() > 0 })
}

// A collector that does not answer, or answers and does not begin, is asked until its
// heartbeat says that it runs.
func TestBeginIsRetriedUntilItRuns(t *testing.T) {
	r := run(t, nil)
	r.state("steady")
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(rpc.Request) (any, *rpc.Error) {
		return nil, &rpc.Error{Code: rpc.CodeUnavailable, Message: "not yet"}
	})
	a.join()
	eventually(t, "three tries", func() bool { return a.askedFor(rpc.OpBeginMonitoring) >= 3 })
	if c := r.collector("a"); c.Begun || !strings.Contains(c.LastError, "not yet") {
		t.Errorf("%+v", c)
	}
	a.setReply(nil)
	eventually(t, "its answer counts", func() bool { return r.collector("a").Begun })
	asked := a.askedFor(rpc.OpBeginMonitoring)
	a.beat("healthy", collectorWaiting)
	eventually(t, "but it waits still", func() bool { return a.askedFor(rpc.OpBeginMonitoring) > asked })
	a.setReply(func(rpc.Request) (any, *rpc.Error) { return nil, &rpc.Error{Code: "silent"} })
	a.beat("healthy", collectorRunning)
	eventually(t, "its heartbeat counts", func() bool { return r.collector("a").Begun })
}

func TestUncoordinatedIsBegun(t *testing.T) {
	r := run(t, nil)
	r.state("steady")
	a := newCollector(t, r.broker, "a", "1")
	a.join()
	eventually(t, "begun", func() bool { return a.askedFor(rpc.OpBeginMonitoring) > 0 })
}

func TestRestartedCollectorIsBegunAgain(t *testing.T) {
	r := run(t, expect("a"))
	first := newCollector(t, r.broker, "a", "1")
	first.join()
	first.beat("healthy", collectorWaiting)
	r.state("steady")
	first.beat("healthy", collectorRunning)
	eventually(t, "begun", func() bool { return r.collector("a").Begun })
	first.nc.Close()
	second := newCollector(t, r.broker, "a", "2")
	second.join()
	if c := r.collector("a"); c.Ready || c.Heartbeat != nil {
		t.Error("the heartbeat of the first counts for the second")
	}
	eventually(t, "the second is begun", func() bool { return second.askedFor(rpc.OpBeginMonitoring) > 0 })
}

func TestStaleGoneAndBack(t *testing.T) {
	r := run(t, func(c *Config) {
		c.Expected = []string{"a"}
		c.Timing.Heartbeat = 30 * time.Millisecond
	})
	a := newCollector(t, r.broker, "a", "1")
	a.join()
	a.beat("healthy", collectorRunning)
	r.state("steady")
	eventually(t, "stale", func() bool { return r.collector("a").Liveness == rpc.LivenessStale })
	if c := r.collector("a"); c.Missed < 3 || c.Ready {
		t.Errorf("%+v", c)
	}
	eventually(t, "gone", func() bool { return r.collector("a").Liveness == rpc.LivenessGone })
	a.beat("healthy", collectorRunning)
	eventually(t, "back", func() bool { return r.logged("Collector is heard of again") == 1 })
	for _, message := range []string{"Collector is stale: its heartbeats do not come", "Collector is gone: its heartbeats do not come"} {
		if n := r.logged(message); n < 1 || n > 2 { // the second time after the heartbeat
			t.Errorf("%q logged %d times", message, n)
		}
	}
}

func TestServerRestart(t *testing.T) {
	r := run(t, expect("a"))
	a := newCollector(t, r.broker, "a", "1")
	a.join()
	a.beat("healthy", collectorWaiting)
	r.state("steady")
	r.broker.stop()
	r.broker.start(t)
	again := newCollector(t, r.broker, "a", "1")
	eventually(t, "registrations are taken again", func() bool {
		_, err := again.nc.Request(rpc.RegistrationSubject("a"), nil, patience)
		return err == nil
	})
	again.join()
	eventually(t, "begun again", func() bool { return again.begins() > 0 })
}

func TestTransitionsAreBounded(t *testing.T) {
	r := newRegistry(nil, fastTiming())
	now := time.Now()
	for i := range maxCollectors {
		id := strings.Repeat("x", 1+i%60) + string(rune('a'+i/60))
		if err := r.register(&rpc.Registration{ID: id, Instance: "1"}, nil, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.register(&rpc.Registration{ID: "one-more", Instance: "1"}, nil, now); err == nil {
		t.Error("there is no bound")
	}
}
