package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/supervisor/tree"
)

// Values of rpc.Heartbeat.Health.
const (
	healthHealthy   = "healthy"
	healthDegraded  = "degraded"
	healthUnhealthy = "unhealthy"
)

// heartbeats is the service that takes heartbeats.
type heartbeats struct {
	agent    *Agent
	progress *tree.Progress
}

func (s *heartbeats) String() string { return "heartbeats" }

// Serve listens until ctx ends.
func (s *heartbeats) Serve(ctx context.Context) error {
	l := listener{
		broker: s.agent.cfg.Broker, progress: s.progress, subject: rpc.SubjectHeartbeats,
		refused: &s.agent.refused, handle: s.handle,
	}
	return l.serve(ctx)
}

// handle takes one heartbeat. Nobody answers it, so what is wrong is counted.
func (s *heartbeats) handle(_ context.Context, _ *nats.Conn, msg *nats.Msg) error {
	id := lastToken(msg.Subject)
	h, err := readHeartbeat(msg.Data)
	switch {
	case err != nil:
		s.agent.refuse(reasonHeartbeat, id, err.Error())
		return nil
	case h.ID != id:
		s.agent.refuse(reasonImpostor, id, "it says that it is of "+quote(h.ID))
		return nil
	}
	known, back := s.agent.collectors.heard(h, time.Now())
	if !known {
		s.agent.refuse(reasonUnregistered, id, "instance "+quote(h.Instance))
		return nil
	}
	if back {
		s.agent.log.WithField("id", id).Info("Collector is heard of again")
	}
	return nil
}

// mostReasons is how many reasons of a heartbeat are kept.
const mostReasons = 32

// readHeartbeat reads a heartbeat and bounds what is kept of it.
func readHeartbeat(data []byte) (*rpc.Heartbeat, error) {
	if len(data) > rpc.MaxRequest {
		return nil, fmt.Errorf("%d bytes are too many", len(data))
	}
	h := new(rpc.Heartbeat)
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("decode heartbeat: %w", err)
	}
	switch {
	case h.Health != healthHealthy && h.Health != healthDegraded && h.Health != healthUnhealthy:
		return nil, fmt.Errorf("health is %s", quote(h.Health))
	case h.Instance == "" || h.Sequence == 0 || h.Collector == "":
		return nil, errors.New("instance, sequence and collector are required")
	}
	h.Reasons = h.Reasons[:min(len(h.Reasons), mostReasons)]
	for i := range h.Reasons {
		h.Reasons[i] = clip(h.Reasons[i])
	}
	for _, text := range []*string{&h.Collector, &h.Registration, &h.Epoch, &h.PressureCause, &h.Connection.Control, &h.Connection.Events} {
		*text = clip(*text)
	}
	return h, nil
}
