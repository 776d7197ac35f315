package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// maxID bounds the ids that requests bring along, in bytes.
const maxID = 128

// maxDeadline is as far off as a deadline may lie; a later one is taken for this.
const maxDeadline = 2 * time.Minute

// readRequest reads one request and checks all of it but the payload. What could be
// read is returned with the error too, for the answer.
func readRequest(data []byte, now time.Time) (rpc.Request, *rpc.Error) {
	var q rpc.Request
	if len(data) > rpc.MaxRequest {
		return q, &rpc.Error{Code: rpc.CodeTooLarge, Message: fmt.Sprintf("the request has %d bytes: at most %d are read", len(data), rpc.MaxRequest)}
	}
	if err := json.Unmarshal(data, &q); err != nil {
		return rpc.Request{}, malformed("the request is not the JSON of one: %v", err)
	}
	switch {
	case q.RequestID == "" || q.Operation == "":
		return q, malformed("request_id and operation are required")
	case len(q.RequestID) > maxID || len(q.CorrelationID) > maxID || len(q.Operation) > maxID:
		return rpc.Request{}, malformed("request_id, correlation_id and operation have at most %d bytes", maxID)
	case q.Deadline.IsZero():
		return q, malformed("deadline is required")
	case !now.Before(q.Deadline):
		return q, &rpc.Error{Code: rpc.CodeDeadline, Message: "the deadline had passed when the request arrived"}
	}
	if last := now.Add(maxDeadline); q.Deadline.After(last) {
		q.Deadline = last
	}
	return q, nil
}

// readPayload reads the payload of a request.
func readPayload(q rpc.Request, into any) *rpc.Error {
	if len(q.Payload) == 0 {
		return malformed("%s needs a payload", q.Operation)
	}
	if err := json.Unmarshal(q.Payload, into); err != nil {
		return malformed("the payload of %s can not be read: %v", q.Operation, err)
	}
	return nil
}

func malformed(format string, args ...any) *rpc.Error {
	return &rpc.Error{Code: rpc.CodeMalformed, Message: fmt.Sprintf(format, args...)}
}

func rejection(format string, args ...any) *rpc.Error {
	return &rpc.Error{Code: rpc.CodeRejected, Message: fmt.Sprintf(format, args...)}
}

// asError is err as it crosses the wire. Only what an rpc.Error says is told.
func asError(err error) *rpc.Error {
	var known *rpc.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.DeadlineExceeded):
		return &rpc.Error{Code: rpc.CodeTimeout, Message: "there was no answer within the deadline"}
	case errors.Is(err, context.Canceled):
		return &rpc.Error{Code: rpc.CodeShuttingDown, Message: "the agent shuts down"}
	}
	return &rpc.Error{Code: rpc.CodeInternal, Message: err.Error()}
}

// inboxOf reports whether an answer may go to a subject: an inbox of the user who
// asks, and not a pattern.
func inboxOf(user, reply string) bool {
	rest, ok := strings.CutPrefix(reply, rpc.InboxPrefix(user)+".")
	return ok && rest != "" && !strings.ContainsAny(rest, "*> \t\r\n")
}

// answer sends the response to a request. err is what refuses it, else payload is
// the result.
func answer(nc *nats.Conn, reply string, q rpc.Request, received time.Time, payload any, err error) error {
	response := rpc.Response{
		RequestID: q.RequestID, Operation: q.Operation, CorrelationID: q.CorrelationID, Status: rpc.StatusOK,
		ExecutionTimeMS: float64(time.Since(received).Microseconds()) / 1000,
	}
	if err == nil && payload != nil {
		response.Payload, err = json.Marshal(payload)
	}
	if err != nil {
		response.Status, response.Error = rpc.StatusError, asError(err)
	}
	text, err := json.Marshal(response)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	err = nc.Publish(reply, text)
	if errors.Is(err, nats.ErrMaxPayload) && response.Error == nil { // whoever asked must not wait in vain
		too := &rpc.Error{Code: rpc.CodeInternal, Message: fmt.Sprintf("the answer has %d bytes, more than the broker carries", len(text))}
		return answer(nc, reply, q, received, nil, too)
	}
	if err != nil {
		return fmt.Errorf("send response: %w", err)
	}
	return nil
}

// mostText bounds a text of a collector that is kept, in bytes.
const mostText = 512

// clip bounds a text that is kept: a report with all of them must still fit into a
// message.
func clip(s string) string {
	if len(s) <= mostText {
		return s
	}
	return strings.ToValidUTF8(s[:mostText], "") + "..."
}

// quote is text of others on one line that does nothing to a terminal.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "..."
	}
	if quoted := strconv.QuoteToASCII(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}
