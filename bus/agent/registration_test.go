package agent

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

func TestRegistrationRefused(t *testing.T) {
	r := run(t, nil)
	nc := r.broker.client(t, "a")
	good := rpc.Registration{Protocol: rpc.Protocol, ID: "a", Instance: "1"}
	request := func(change func(*rpc.Request, *rpc.Registration)) []byte {
		q, reg := rpc.Request{RequestID: "r", Operation: rpc.OpRegister, Deadline: time.Now().Add(time.Minute)}, good
		change(&q, &reg)
		if q.Payload == nil {
			q.Payload = encode(t, reg)
		}
		return encode(t, q)
	}
	for name, c := range map[string]struct {
		text []byte
		code rpc.Code
		says string
	}{
		"no JSON":            {[]byte("{"), rpc.CodeMalformed, "JSON"},
		"nothing":            {nil, rpc.CodeMalformed, "JSON"},
		"two objects":        {[]byte("{}{}"), rpc.CodeMalformed, "JSON"},
		"an array":           {[]byte("[1]"), rpc.CodeMalformed, "JSON"},
		"no fields":          {[]byte("{}"), rpc.CodeMalformed, "required"},
		"1 MiB":              {bytes.Repeat([]byte("x"), 1<<20), rpc.CodeTooLarge, "1048576"},
		"no deadline":        {request(func(q *rpc.Request, _ *rpc.Registration) { q.Deadline = time.Time{} }), rpc.CodeMalformed, "deadline"},
		"past deadline":      {request(func(q *rpc.Request, _ *rpc.Registration) { q.Deadline = time.Now() }), rpc.CodeDeadline, "passed"},
		"unknown operation":  {request(func(q *rpc.Request, _ *rpc.Registration) { q.Operation = "Explode\x1b[2J" }), rpc.CodeUnknownOperation, `\x1b`},
		"long id":            {request(func(q *rpc.Request, _ *rpc.Registration) { q.RequestID = strings.Repeat("x", 200) }), rpc.CodeMalformed, "128"},
		"null payload":       {request(func(q *rpc.Request, _ *rpc.Registration) { q.Payload = []byte("[]") }), rpc.CodeMalformed, "payload"},
		"newer protocol":     {request(func(_ *rpc.Request, reg *rpc.Registration) { reg.Protocol = rpc.Protocol + 1 }), rpc.CodeRejected, "update"},
		"no protocol":        {request(func(_ *rpc.Request, reg *rpc.Registration) { reg.Protocol = 0 }), rpc.CodeMalformed, "protocol"},
		"id of another":      {request(func(_ *rpc.Request, reg *rpc.Registration) { reg.ID = "b" }), rpc.CodeUnauthorized, "b"},
		"no instance":        {request(func(_ *rpc.Request, reg *rpc.Registration) { reg.Instance = "" }), rpc.CodeMalformed, "instance"},
		"endless instance":   {request(func(_ *rpc.Request, reg *rpc.Registration) { reg.Instance = strings.Repeat("x", 1000) }), rpc.CodeMalformed, "128"},
		"leave of a nobody":  {request(func(q *rpc.Request, _ *rpc.Registration) { q.Operation = rpc.OpDeregister }), rpc.CodeNotFound, "not registered"},
		"leave, no payload ": {[]byte(`{"request_id":"r","operation":"Deregister","deadline":"2999-01-01T00:00:00Z"}`), rpc.CodeMalformed, "payload"},
	} {
		response := callRaw(t, nc, rpc.RegistrationSubject("a"), c.text)
		if response.Error == nil || response.Error.Code != c.code || !strings.Contains(response.Error.Message, c.says) {
			t.Errorf("%s: %+v, want %s with %q", name, response.Error, c.code, c.says)
		}
		if r.refusedFor("registration "+string(c.code)) == 0 {
			t.Errorf("%s: not counted", name)
		}
	}
	if got := r.Report().Collectors; len(got) != 0 {
		t.Errorf("there are collectors: %+v", got)
	}
}

// An answer goes to nobody's inbox but the asker's: the agent may publish where the
// asker may not.
func TestAnswerToAnotherIsRefused(t *testing.T) {
	r := run(t, nil)
	spy := r.broker.client(t, "spy")
	caught, err := spy.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	nc := r.broker.client(t, "a")
	q := encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpLast, Deadline: time.Now().Add(time.Minute)})
	replies := []string{"", rpc.CollectorSubject("b"), rpc.SubjectLifecycle, "_INBOX.b.x", "_INBOX.a", "_INBOX.ab.x", rpc.InboxPrefix(rpc.UserOperator) + ".x"}
	for _, reply := range replies {
		if err := nc.PublishMsg(&nats.Msg{Subject: rpc.RegistrationSubject("a"), Reply: reply, Data: q}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are counted", func() bool { return r.refusedFor(reasonInbox) == uint64(len(replies)) })
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for range replies { // the requests themselves
		if _, err := caught.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
	if msg, err := caught.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("answered to %s: %s", msg.Subject, msg.Data)
	}
}

func TestAnotherLiveInstance(t *testing.T) {
	r := run(t, func(c *Config) { c.Timing.Heartbeat = 100 * time.Millisecond })
	r.broker.connect("a", 1, 2)
	first, second := newCollector(t, r.broker, "a", "1"), newCollector(t, r.broker, "a", "2")
	first.join()
	first.beat("healthy", collectorRunning)
	eventually(t, "heard", func() bool { return r.collector("a").Heartbeat != nil })
	r.broker.connect("a", 1, 2, 3, 4)
	response := second.register()
	if response.Error == nil || response.Error.Code != rpc.CodeRejected || !strings.Contains(response.Error.Message, "4711") {
		t.Fatalf("%+v", response)
	}
	if c := r.collector("a"); c.Registration.Instance != "1" || !strings.Contains(c.LastError, "rejected") {
		t.Errorf("%+v", c)
	}
	first.join() // the same one again is welcome

	t.Run("its connections came back one after the other", func(t *testing.T) {
		r.broker.connect("a", 2, 5) // control, which registers again
		first.t = t
		first.join()
		first.beat("healthy", collectorRunning)
		r.broker.connect("a", 5, 6, 7) // events, which does not; and the second one's
		if response := second.register(); response.Error == nil || response.Error.Code != rpc.CodeRejected {
			t.Errorf("%+v", response)
		}
	})
	t.Run("its connections are gone", func(t *testing.T) {
		r.broker.connect("a", 3, 4)
		second.t = t
		second.join()
	})
	t.Run("it is silent", func(t *testing.T) {
		eventually(t, "the second is stale", func() bool { return r.collector("a").Liveness == rpc.LivenessStale })
		first.t = t
		first.join()
	})
	t.Run("it has left", func(t *testing.T) {
		response := call(t, first.nc, rpc.RegistrationSubject("a"), rpc.OpDeregister, rpc.Farewell{Instance: "1", Reason: "stop"})
		if response.Status != rpc.StatusOK || r.collector("a").Liveness != rpc.LivenessGone {
			t.Errorf("%+v %+v", response, r.collector("a"))
		}
		second.t = t
		second.join()
		response = call(t, first.nc, rpc.RegistrationSubject("a"), rpc.OpDeregister, rpc.Farewell{Instance: "1"})
		if response.Error == nil || response.Error.Code != rpc.CodeNotFound {
			t.Errorf("the first takes the second's leave: %+v", response)
		}
	})
}

func TestLast(t *testing.T) {
	r := run(t, nil)
	nc := r.broker.client(t, "a")
	response := call(t, nc, rpc.RegistrationSubject("a"), rpc.OpLast, nil)
	if diff := cmp.Diff(rpc.Position{Epoch: "e", Seq: 7}, decode[rpc.Position](t, response.Payload)); diff != "" {
		t.Error(diff)
	}
	if response.CorrelationID != "c1" || response.RequestID != "r1" || response.Operation != rpc.OpLast {
		t.Errorf("%+v", response)
	}
	r.broker.setLast(func() (rpc.Position, error) { return rpc.Position{}, errors.New("stream is out of service") })
	for _, op := range []rpc.Operation{rpc.OpLast, rpc.OpRegister} {
		response = call(t, nc, rpc.RegistrationSubject("a"), op, rpc.Registration{Protocol: 1, ID: "a", Instance: "1"})
		if response.Error == nil || response.Error.Code != rpc.CodeUnavailable {
			t.Errorf("%s: %+v", op, response)
		}
	}
	if r.collector("a").Registration != nil {
		t.Error("registered without an answer that says so")
	}
}

// A panic ends that one service, which is started again.
func TestPanicInRegistration(t *testing.T) {
	r := run(t, expect("a"))
	a := newCollector(t, r.broker, "a", "1")
	a.join()
	a.beat("healthy", collectorWaiting)
	r.state("steady")
	r.broker.setLast(func() (rpc.Position, error) { panic("broken") })
	if err := a.nc.PublishRequest(rpc.RegistrationSubject("a"), "_INBOX.a.x", encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpLast, Deadline: time.Now().Add(time.Minute)})); err != nil {
		t.Fatal(err)
	}
	panics := func(path string) uint64 {
		for _, s := range r.Report().Services {
			if s.Path == path {
				return s.Panics
			}
		}
		return 0
	}
	eventually(t, "it panicked", func() bool { return panics("agent/registration") == 1 })
	r.broker.setLast(func() (rpc.Position, error) { return rpc.Position{Seq: 8}, nil })
	r.awaitListening()
	if a.join().Last.Seq != 8 {
		t.Error("it does not answer again")
	}
	for _, path := range []string{"agent/heartbeats", "agent/coordination", "agent/requests"} {
		if panics(path) != 0 {
			t.Errorf("%s noticed", path)
		}
	}
}

func TestHeartbeatsRefused(t *testing.T) {
	r := run(t, nil)
	a := newCollector(t, r.broker, "a", "1")
	a.join()
	good := rpc.Heartbeat{ID: "a", Instance: "1", Sequence: 1, Health: "healthy", Collector: collectorRunning}
	change := func(f func(*rpc.Heartbeat)) []byte {
		h := good
		f(&h)
		return encode(t, h)
	}
	for name, c := range map[string]struct {
		text   []byte
		reason string
	}{
		"no JSON":       {[]byte("}"), reasonHeartbeat},
		"wrong type":    {[]byte(`{"id":7}`), reasonHeartbeat},
		"too long":      {bytes.Repeat([]byte(" "), rpc.MaxRequest+1), reasonHeartbeat},
		"health":        {change(func(h *rpc.Heartbeat) { h.Health = "superb" }), reasonHeartbeat},
		"no sequence":   {change(func(h *rpc.Heartbeat) { h.Sequence = 0 }), reasonHeartbeat},
		"another's":     {change(func(h *rpc.Heartbeat) { h.ID = "b" }), reasonImpostor},
		"not of this":   {change(func(h *rpc.Heartbeat) { h.Instance = "0" }), reasonUnregistered},
		"of an unknown": {nil, ""},
	} {
		subject := rpc.HeartbeatSubject("a")
		if c.reason == "" {
			subject, c.text, c.reason = rpc.HeartbeatSubject("b"), change(func(h *rpc.Heartbeat) { h.ID = "b" }), reasonUnregistered
		}
		before := r.refusedFor(c.reason)
		if err := a.nc.Publish(subject, c.text); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" is counted", func() bool { return r.refusedFor(c.reason) == before+1 })
	}
	if got := r.collector("a"); got.Heartbeat != nil || len(r.Report().Collectors) != 1 {
		t.Errorf("they had an effect: %+v", got)
	}
	many := change(func(h *rpc.Heartbeat) { h.Reasons = make([]string, 1000) })
	if err := a.nc.Publish(rpc.HeartbeatSubject("a"), many); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reasons are bounded", func() bool { h := r.collector("a").Heartbeat; return h != nil && len(h.Reasons) == mostReasons })
}
