package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// newRequest makes the bytes of a request to a collector.
func newRequest(op rpc.Operation, payload any, deadline time.Time, correlation string) (id string, text []byte, err error) {
	q := rpc.Request{RequestID: rand.Text(), Operation: op, Deadline: deadline.UTC(), CorrelationID: correlation}
	if raw, ok := payload.(json.RawMessage); ok {
		q.Payload = raw
	} else if payload != nil {
		if q.Payload, err = json.Marshal(payload); err != nil {
			return "", nil, fmt.Errorf("encode payload of %s: %w", op, err)
		}
	}
	text, err = json.Marshal(q)
	if err != nil {
		return "", nil, fmt.Errorf("encode request %s: %w", op, err)
	}
	return q.RequestID, text, nil
}

// ask sends a request to a collector and returns the payload of its answer. ctx
// needs a deadline, which the request carries too. An error of the collector is an
// *rpc.Error as it came.
func ask(ctx context.Context, nc *nats.Conn, id string, op rpc.Operation, payload any, correlation string) (json.RawMessage, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("ask a collector: no deadline")
	}
	requestID, text, err := newRequest(op, payload, deadline, correlation)
	if err != nil {
		return nil, err
	}
	msg, err := nc.RequestWithContext(ctx, rpc.CollectorSubject(id), text)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, noResponder(id)
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return nil, &rpc.Error{Code: rpc.CodeTimeout, Message: fmt.Sprintf("collector %s did not answer %s in time", id, op)}
	case err != nil:
		return nil, fmt.Errorf("ask collector %s for %s: %w", id, op, err)
	}
	return readResponse(id, requestID, msg.Data)
}

func noResponder(id string) *rpc.Error {
	return &rpc.Error{Code: rpc.CodeUnavailable, Message: fmt.Sprintf("collector %s does not listen: it is not connected, or still starting", id)}
}

// readResponse reads the answer of a collector to the request with this id.
func readResponse(id, requestID string, data []byte) (json.RawMessage, error) {
	var response rpc.Response
	if err := json.Unmarshal(data, &response); err != nil {
		return nil, fmt.Errorf("read answer of collector %s: %w", id, err)
	}
	switch {
	case response.Status == rpc.StatusError && response.Error != nil:
		return nil, response.Error
	case response.Status != rpc.StatusOK:
		return nil, fmt.Errorf("read answer of collector %s: status %s", id, quote(string(response.Status)))
	case response.RequestID != requestID:
		return nil, fmt.Errorf("read answer of collector %s: it is one to another request", id)
	}
	return response.Payload, nil
}
