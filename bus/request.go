package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"daemoneye.dev/procmond/bus/rpc"
)

// maxRequestID bounds request_id and correlation_id, in bytes: they are given back.
const maxRequestID = 128

// decodeRequest reads a control message, and checks all of it but its payload. The
// request that comes with an error holds what can be given back of it.
func decodeRequest(data []byte) (rpc.Request, *rpc.Error) {
	var r rpc.Request
	switch {
	case len(data) > rpc.MaxRequest:
		return r, &rpc.Error{Code: rpc.CodeTooLarge, Message: fmt.Sprintf("the request has %d bytes, %d are allowed", len(data), rpc.MaxRequest)}
	case !utf8.Valid(data):
		return r, malformed("the request is not UTF-8")
	case !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")):
		return r, malformed("the request is not a JSON object")
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return rpc.Request{}, malformed("the request can not be read: " + describe(err))
	}
	if len(r.RequestID) > maxRequestID || len(r.CorrelationID) > maxRequestID {
		return rpc.Request{}, malformed(fmt.Sprintf("request_id or correlation_id has more than %d bytes", maxRequestID))
	}
	switch {
	case r.RequestID == "":
		return r, malformed("request_id is missing")
	case r.Operation == "":
		return r, malformed("operation is missing")
	}
	return r, nil
}

// checkDeadline refuses a request that comes too late. Where a deadline is not
// required, an absent one is none.
func checkDeadline(r *rpc.Request, required bool, now time.Time) *rpc.Error {
	switch {
	case r.Deadline.IsZero() && required:
		return malformed("deadline is missing")
	case !r.Deadline.IsZero() && !r.Deadline.After(now):
		return &rpc.Error{Code: rpc.CodeDeadline, Message: fmt.Sprintf("the deadline passed %v ago", now.Sub(r.Deadline).Round(time.Millisecond))}
	}
	return nil
}

func malformed(why string) *rpc.Error { return &rpc.Error{Code: rpc.CodeMalformed, Message: why} }
