package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/supervisor/tree"
)

const (
	// mostRequests of the operator are carried out at once.
	mostRequests = 10
	// wayBack is how long before its deadline a request is given up.
	wayBack = 250 * time.Millisecond
)

// requests is the service that answers the operator.
type requests struct {
	agent    *Agent
	progress *tree.Progress
}

func (s *requests) String() string { return "requests" }

// Serve listens until ctx ends, which also ends what is in work.
func (s *requests) Serve(ctx context.Context) error {
	var running sync.WaitGroup
	// Holds one value for each request in work; never closed.
	slots := make(chan struct{}, mostRequests)
	l := listener{
		broker: s.agent.cfg.Broker, progress: s.progress, subject: rpc.SubjectAgent, refused: &s.agent.refused,
		handle: func(ctx context.Context, nc *nats.Conn, msg *nats.Msg) error {
			return s.handle(ctx, nc, msg, slots, &running)
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer running.Wait()
	defer cancel()
	return l.serve(ctx)
}

// handle refuses a message, or has it answered beside the next ones.
func (s *requests) handle(ctx context.Context, nc *nats.Conn, msg *nats.Msg, slots chan struct{}, running *sync.WaitGroup) error {
	received := time.Now()
	if !inboxOf(rpc.UserOperator, msg.Reply) {
		s.agent.refuse(reasonInbox, rpc.UserOperator, msg.Reply)
		return nil
	}
	q, refused := readRequest(msg.Data, received)
	if refused != nil {
		s.agent.refuse("request "+string(refused.Code), rpc.UserOperator, refused.Message)
		return answer(nc, msg.Reply, q, received, nil, refused)
	}
	select {
	case slots <- struct{}{}:
	default:
		refused = &rpc.Error{Code: rpc.CodeBusy, Message: fmt.Sprintf("%d requests are in work already: ask again later", mostRequests)}
		s.agent.refuse("request "+string(refused.Code), rpc.UserOperator, string(q.Operation))
		return answer(nc, msg.Reply, q, received, nil, refused)
	}
	running.Go(func() {
		defer func() { <-slots }()
		s.respond(ctx, nc, msg.Reply, q, received)
	})
	return nil
}

// respond carries out one request. A panic is that request's alone.
func (s *requests) respond(ctx context.Context, nc *nats.Conn, reply string, q rpc.Request, received time.Time) {
	// A part of the time is for the answer's way back.
	ctx, cancel := context.WithDeadline(ctx, q.Deadline.Add(-min(q.Deadline.Sub(received)/10, wayBack)))
	defer cancel()
	result, err := func() (result any, err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
				s.agent.log.WithField("operation", quote(string(q.Operation))).WithError(err).Error("A request of the operator failed")
			}
		}()
		return s.do(ctx, nc, q)
	}()
	if err != nil {
		s.agent.refuse("request "+string(asError(err).Code), rpc.UserOperator, string(q.Operation)+": "+err.Error())
	}
	if err := answer(nc, reply, q, received, result, err); err != nil {
		s.agent.log.WithError(err).Warn("The operator can not be answered")
	}
}

func (s *requests) do(ctx context.Context, nc *nats.Conn, q rpc.Request) (any, error) {
	switch q.Operation {
	case rpc.OpCollectors:
		return s.agent.Report(), nil
	case rpc.OpBegin, rpc.OpStop:
		var target rpc.Target
		if err := readPayload(q, &target); err != nil {
			return nil, err
		}
		if err := rpc.ValidID(target.ID); err != nil {
			return nil, &rpc.Error{Code: rpc.CodeInvalid, Message: err.Error()}
		}
		if q.Operation == rpc.OpBegin {
			return s.begin(ctx, nc, q, target)
		}
		return s.stop(ctx, nc, q, target)
	case rpc.OpUpdateConfig, rpc.OpAdjustInterval, rpc.OpHealthCheck:
		return s.wish(ctx, nc, q)
	}
	return nil, unknownOperation(q.Operation)
}

func notFound(id string) *rpc.Error {
	return &rpc.Error{Code: rpc.CodeNotFound, Message: fmt.Sprintf("no collector %s is registered", quote(id))}
}

// begin has a collector begin now, and from now on after each of its registrations.
func (s *requests) begin(ctx context.Context, nc *nats.Conn, q rpc.Request, target rpc.Target) (any, error) {
	if s.agent.machine.State() == fsm.AgentShuttingDown {
		return nil, &rpc.Error{Code: rpc.CodeShuttingDown, Message: "the agent shuts down"}
	}
	if !s.agent.collectors.isRegistered(target.ID) {
		return nil, notFound(target.ID)
	}
	result, err := ask(ctx, nc, target.ID, rpc.OpBeginMonitoring, rpc.Begin{AgentID: s.agent.id}, q.CorrelationID)
	if err == nil {
		s.agent.collectors.begun(target.ID)
	}
	return result, err
}

// stop asks a collector to shut down. If it is a child, it is not started again, and
// is stopped by a signal if it can not be asked.
func (s *requests) stop(ctx context.Context, nc *nats.Conn, q rpc.Request, target rpc.Target) (any, error) {
	child := s.agent.child(target.ID)
	if child != nil {
		child.hold()
	}
	if child == nil && !s.agent.collectors.isRegistered(target.ID) {
		return nil, notFound(target.ID)
	}
	reason := target.Reason
	if reason == "" {
		reason = "asked for by the operator"
	}
	result, err := ask(ctx, nc, target.ID, rpc.OpGracefulShutdown, rpc.Shutdown{Reason: reason}, q.CorrelationID)
	if unavailable := new(rpc.Error); child != nil && errors.As(err, &unavailable) && unavailable.Code == rpc.CodeUnavailable {
		child.terminate()
		return rpc.ShutdownResult{Detail: "it was not connected, so it was stopped by a signal, if it ran: what it has not delivered waits for its next run"}, nil
	}
	return result, err
}

// wish passes a request on, and remembers the values that the collector took.
func (s *requests) wish(ctx context.Context, nc *nats.Conn, q rpc.Request) (any, error) {
	var wish rpc.Wish
	if err := readPayload(q, &wish); err != nil {
		return nil, err
	}
	if !s.agent.collectors.isRegistered(wish.ID) {
		return nil, notFound(wish.ID)
	}
	var remember func(result json.RawMessage) error
	switch q.Operation {
	case rpc.OpUpdateConfig:
		var update rpc.UpdateConfig
		if err := readPayload(rpc.Request{Operation: q.Operation, Payload: wish.Payload}, &update); err != nil {
			return nil, err
		}
		remember = func(result json.RawMessage) error { return s.rememberConfig(wish.ID, update, result) }
	case rpc.OpAdjustInterval:
		var adjust rpc.AdjustInterval
		if err := readPayload(rpc.Request{Operation: q.Operation, Payload: wish.Payload}, &adjust); err != nil {
			return nil, err
		}
		remember = func(json.RawMessage) error {
			s.agent.collectors.wishInterval(wish.ID, adjust.IntervalMS)
			return nil
		}
	}
	result, err := ask(ctx, nc, wish.ID, q.Operation, wish.Payload, q.CorrelationID)
	if err == nil && remember != nil {
		err = remember(result)
	}
	return result, err
}

func (s *requests) rememberConfig(id string, update rpc.UpdateConfig, text json.RawMessage) error {
	if update.ValidateOnly {
		return nil
	}
	var result rpc.ConfigResult
	if err := json.Unmarshal(text, &result); err != nil {
		return fmt.Errorf("read what collector %s took: %w", id, err)
	}
	s.agent.collectors.wishConfig(id, update.Values, append(result.Applied, result.Pending...))
	return nil
}
