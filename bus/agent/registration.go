package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/supervisor/tree"
)

// registration is the service that answers who registers, leaves, or asks for its
// position.
type registration struct {
	agent    *Agent
	progress *tree.Progress
}

func (s *registration) String() string { return "registration" }

// Serve listens until ctx ends.
func (s *registration) Serve(ctx context.Context) error {
	l := listener{
		broker: s.agent.cfg.Broker, progress: s.progress, subject: rpc.SubjectRegistrations,
		refused: &s.agent.refused, handle: s.handle,
	}
	return l.serve(ctx)
}

// handle answers one message, and returns an error only if the answer can not be
// sent.
func (s *registration) handle(ctx context.Context, nc *nats.Conn, msg *nats.Msg) error {
	received := time.Now()
	id := lastToken(msg.Subject)
	if !inboxOf(id, msg.Reply) {
		s.agent.refuse(reasonInbox, id, msg.Reply)
		return nil
	}
	q, refused := readRequest(msg.Data, received)
	if refused != nil {
		s.agent.refuse("registration "+string(refused.Code), id, refused.Message)
		return answer(nc, msg.Reply, q, received, nil, refused)
	}
	ctx, cancel := context.WithDeadline(ctx, earliest(q.Deadline, received.Add(s.agent.cfg.Timing.Ask)))
	defer cancel()
	result, err := s.do(ctx, id, q)
	if err != nil {
		s.agent.refuse("registration "+string(asError(err).Code), id, err.Error())
	}
	return answer(nc, msg.Reply, q, received, result, err)
}

func (s *registration) do(ctx context.Context, id string, q rpc.Request) (any, error) {
	switch q.Operation {
	case rpc.OpRegister:
		return s.register(ctx, id, q)
	case rpc.OpDeregister:
		return nil, s.deregister(id, q)
	case rpc.OpLast:
		return s.last(ctx, id)
	}
	return nil, unknownOperation(q.Operation)
}

func unknownOperation(op rpc.Operation) *rpc.Error {
	return &rpc.Error{Code: rpc.CodeUnknownOperation, Message: fmt.Sprintf("there is no operation %s here", quote(string(op)))}
}

func (s *registration) register(ctx context.Context, id string, q rpc.Request) (any, error) {
	var r rpc.Registration
	if err := readPayload(q, &r); err != nil {
		return nil, err
	}
	if err := checkRegistration(id, &r); err != nil {
		return nil, err
	}
	// First, so that a collector is not known as registered without an answer.
	last, err := s.last(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.agent.collectors.register(&r, s.agent.cfg.Broker.Connected(id), time.Now()); err != nil {
		return nil, err
	}
	s.agent.log.WithFields(logrus.Fields{"id": id, "pid": r.PID, "version": quote(r.Version), "state": quote(r.State)}).Info("Collector registered")
	return rpc.Accepted{
		AgentID: s.agent.id, AgentVersion: s.agent.cfg.Version,
		HeartbeatIntervalMS: s.agent.cfg.Timing.Heartbeat.Milliseconds(), Last: *last,
	}, nil
}

// checkRegistration says what is wrong with a registration by itself.
func checkRegistration(id string, r *rpc.Registration) error {
	if err := rpc.ValidID(id); err != nil {
		return rejection("%v", err)
	}
	switch {
	case r.Protocol > rpc.Protocol:
		return rejection("protocol %d is newer than this agent's %d: update daemoneye-agent first", r.Protocol, rpc.Protocol)
	case r.Protocol < 1:
		return malformed("protocol %d: there is none below 1", r.Protocol)
	case r.ID != id:
		return &rpc.Error{Code: rpc.CodeUnauthorized, Message: fmt.Sprintf("the subject is of collector %s, the registration of %s", id, quote(r.ID))}
	case r.Instance == "":
		return malformed("instance is required")
	}
	for _, text := range []string{r.Instance, r.Version, r.HostID, r.BootID, r.State, r.Epoch} {
		if len(text) > maxID {
			return malformed("no field of a registration has more than %d bytes", maxID)
		}
	}
	return nil
}

func (s *registration) deregister(id string, q rpc.Request) error {
	var f rpc.Farewell
	if err := readPayload(q, &f); err != nil {
		return err
	}
	if !s.agent.collectors.deregister(id, &f) {
		return &rpc.Error{Code: rpc.CodeNotFound, Message: fmt.Sprintf("this instance of %s is not registered", id)}
	}
	s.agent.log.WithFields(logrus.Fields{"id": id, "reason": quote(f.Reason), "undelivered": f.Undelivered}).Info("Collector left")
	return nil
}

// last is the position of a collector.
func (s *registration) last(ctx context.Context, id string) (*rpc.Position, error) {
	position, err := s.agent.cfg.Broker.Last(ctx, id)
	if err != nil {
		return nil, &rpc.Error{Code: rpc.CodeUnavailable, Message: fmt.Sprintf("the stream can not say now what it has of %s: %v", id, err)}
	}
	return &position, nil
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
