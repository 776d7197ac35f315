package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"daemoneye.dev/procmond/bus/rpc"
)

// askTimeout bounds a request to the agent.
const askTimeout = 2 * time.Second

// errAnswer reports an answer of the agent that can not be one.
var errAnswer = errors.New("the agent's answer makes no sense")

// ask sends a request to the agent and decodes the payload of its answer into the
// value that answer points to (nil: there is none). It gives up with ctx, at the
// latest after [askTimeout]. A failure that the agent reports is an [*rpc.Error].
func ask(ctx context.Context, nc *nats.Conn, subject string, op rpc.Operation, payload, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	request := rpc.Request{RequestID: nuid.Next(), Operation: op, Deadline: deadline}
	if payload != nil {
		encoded, err := json.Marshal(payload)
		if err != nil {
			return fmt.Errorf("encode %s: %w", op, err)
		}
		request.Payload = encoded
	}
	encoded, err := json.Marshal(&request)
	if err != nil {
		return fmt.Errorf("encode request %s: %w", op, err)
	}
	msg, err := nc.RequestWithContext(ctx, subject, encoded)
	if err != nil {
		return fmt.Errorf("ask the agent (%s): %w", op, plain(err))
	}
	return decodeAnswer(msg.Data, &request, answer)
}

func decodeAnswer(data []byte, request *rpc.Request, answer any) error {
	if len(data) > rpc.MaxRequest {
		return fmt.Errorf("%s: %w: %d bytes", request.Operation, errAnswer, len(data))
	}
	var response rpc.Response
	if err := json.Unmarshal(data, &response); err != nil {
		return fmt.Errorf("%s: %w: %w", request.Operation, errAnswer, err)
	}
	switch {
	case response.Status == rpc.StatusError && response.Error != nil:
		response.Error.Message = cut(response.Error.Message)
		return response.Error
	case response.RequestID != request.RequestID:
		return fmt.Errorf("%s: %w: it is for another request", request.Operation, errAnswer)
	case response.Status != rpc.StatusOK:
		return fmt.Errorf("%s: %w: status %q", request.Operation, errAnswer, cut(string(response.Status)))
	case answer == nil:
		return nil
	case len(response.Payload) == 0:
		return fmt.Errorf("%s: %w: it has no payload", request.Operation, errAnswer)
	}
	if err := json.Unmarshal(response.Payload, answer); err != nil {
		return fmt.Errorf("%s: %w: %w", request.Operation, errAnswer, err)
	}
	return nil
}
