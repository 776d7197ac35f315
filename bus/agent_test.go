package bus

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
)

// testAgent answers what a collector asks, from the broker's stream.
type testAgent struct {
	b *testBroker

	mu         sync.Mutex // guards everything below
	registered []rpc.Registration
	farewells  []rpc.Farewell
	beats      []rpc.Heartbeat
	asked      int // times that the position was
	// answer, if not nil, takes the place of the usual answer where it is true.
	answer func(*rpc.Request) (payload any, failure *rpc.Error, instead bool)
	// silent: nobody is answered.
	silent     bool
	intervalMS int64
}

// newTestAgent listens on a broker that runs; call listen again after a restart.
func newTestAgent(b *testBroker) *testAgent {
	a := &testAgent{b: b}
	a.listen()
	return a
}

func (a *testAgent) listen() {
	nc := a.b.nc()
	_, err := nc.Subscribe(rpc.SubjectRegistrations, a.take)
	must(a.b.tb, err)
	_, err = nc.Subscribe(rpc.SubjectHeartbeats, func(m *nats.Msg) {
		var beat rpc.Heartbeat
		if json.Unmarshal(m.Data, &beat) == nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.beats = append(a.beats, beat)
		}
	})
	must(a.b.tb, err)
	must(a.b.tb, nc.Flush())
}

func (a *testAgent) take(m *nats.Msg) {
	var request rpc.Request
	if json.Unmarshal(m.Data, &request) != nil || request.Deadline.IsZero() || m.Subject != rpc.RegistrationSubject(testID) {
		return
	}
	payload, failure, silent := a.decide(&request)
	if silent {
		return
	}
	response := rpc.Response{RequestID: request.RequestID, Operation: request.Operation, Status: rpc.StatusOK, Error: failure}
	if failure != nil {
		response.Status = rpc.StatusError
	} else if payload != nil {
		response.Payload, _ = json.Marshal(payload)
	}
	data, _ := json.Marshal(&response)
	_ = m.Respond(data)
}

func (a *testAgent) decide(request *rpc.Request) (payload any, failure *rpc.Error, silent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if request.Operation == rpc.OpLast {
		a.asked++
	}
	if a.silent {
		return nil, nil, true
	}
	if a.answer != nil {
		if payload, failure, instead := a.answer(request); instead {
			return payload, failure, false
		}
	}
	switch request.Operation {
	case rpc.OpRegister:
		var r rpc.Registration
		_ = json.Unmarshal(request.Payload, &r)
		a.registered = append(a.registered, r)
		return rpc.Accepted{AgentID: "agent-1", HeartbeatIntervalMS: a.intervalMS}, nil, false
	case rpc.OpDeregister:
		var f rpc.Farewell
		_ = json.Unmarshal(request.Payload, &f)
		a.farewells = append(a.farewells, f)
		return nil, nil, false
	case rpc.OpLast:
		return a.position(), nil, false
	}
	return nil, &rpc.Error{Code: rpc.CodeUnknownOperation, Message: "?"}, false
}

// position is the last event in the stream. A real agent remembers it.
func (a *testAgent) position() rpc.Position {
	js := a.b.js()
	s, err := js.Stream(context.Background(), rpc.Stream)
	must(a.b.tb, err)
	p := rpc.Position{StreamCreated: s.CachedInfo().Created}
	msg, err := s.GetLastMsgForSubject(context.Background(), rpc.EventSubjectsOf(testID))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return p
	}
	must(a.b.tb, err)
	epoch, seq, err := rpc.ParseMsgID(msg.Header.Get(nats.MsgIdHdr))
	must(a.b.tb, err)
	p.Epoch, p.Seq = epoch.String(), seq
	return p
}

func (a *testAgent) set(f func(*testAgent)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func get[T any](a *testAgent, f func(*testAgent) T) T {
	a.mu.Lock()
	defer a.mu.Unlock()
	return f(a)
}

// with starts broker and agent.
func with(tb testing.TB) (*testBroker, *testAgent) {
	tb.Helper()
	b := newTestBroker(tb)
	b.start()
	return b, newTestAgent(b)
}
