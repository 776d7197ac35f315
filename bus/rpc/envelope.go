package rpc

import (
	"encoding/json"
	"fmt"
	"time"
)

// MaxRequest bounds a control message, in bytes. A bigger one is refused unread.
const MaxRequest = 64 << 10

// Operation is what a request asks for.
type Operation string

// What an agent, or its operator, asks a collector. OpBeginMonitoring is also what
// the agent says to all on [SubjectLifecycle].
const (
	OpHealthCheck      Operation = "HealthCheck"      // payload none; answer HealthReport
	OpUpdateConfig     Operation = "UpdateConfig"     // payload UpdateConfig; answer ConfigResult
	OpGracefulShutdown Operation = "GracefulShutdown" // payload Shutdown; answer ShutdownResult
	OpBeginMonitoring  Operation = "BeginMonitoring"  // payload Begin, or none; answer BeginResult
	OpAdjustInterval   Operation = "AdjustInterval"   // payload AdjustInterval; answer IntervalResult
)

// What a collector asks its agent, on its [RegistrationSubject].
const (
	OpRegister   Operation = "Register"   // payload Registration; answer Accepted
	OpDeregister Operation = "Deregister" // payload Farewell; answer none
	OpLast       Operation = "Last"       // payload none; answer Position
)

// What the operator asks the agent, on [SubjectAgent]; besides the operations that
// take a [Wish] there.
const (
	OpCollectors Operation = "Collectors" // payload none; answer AgentReport
	OpBegin      Operation = "Begin"      // payload Target; answer BeginResult: now, ready or not
	OpStop       Operation = "Stop"       // payload Target: asks it to shut down and does not start it again; answer ShutdownResult
)

// Request is a question, or on [SubjectLifecycle] an order to all.
type Request struct {
	RequestID     string          `json:"request_id"`
	Operation     Operation       `json:"operation"`
	Deadline      time.Time       `json:"deadline"`                 // no effect after this; required but on SubjectLifecycle
	CorrelationID string          `json:"correlation_id,omitempty"` // given back as it is; for whoever follows a chain of requests
	Payload       json.RawMessage `json:"payload,omitempty"`
}

// Status says how a request ended.
type Status string

// The two ends of a request.
const (
	StatusOK    Status = "ok"
	StatusError Status = "error"
)

// Response is the answer to a request.
type Response struct {
	RequestID       string          `json:"request_id"` // empty if the request could not be read
	Operation       Operation       `json:"operation"`
	CorrelationID   string          `json:"correlation_id,omitempty"`
	Status          Status          `json:"status"`
	Error           *Error          `json:"error,omitempty"` // with StatusError
	ExecutionTimeMS float64         `json:"execution_time_ms"`
	Payload         json.RawMessage `json:"payload,omitempty"`
}

// Code is why a request failed, for programs.
type Code string

// The codes. With all but CodeTimeout and CodeInternal the request had no effect.
const (
	CodeMalformed        Code = "malformed_request" // no JSON, a wrong payload, a missing field
	CodeTooLarge         Code = "request_too_large" // more than MaxRequest
	CodeUnknownOperation Code = "unknown_operation"
	CodeDeadline         Code = "deadline_exceeded" // its deadline had passed when it arrived
	CodeTimeout          Code = "timeout"           // its deadline passed while it was carried out
	CodeBusy             Code = "busy"              // too many requests at once
	CodeInvalid          Code = "invalid_argument"  // understood, and refused; details name each fault
	CodeShuttingDown     Code = "shutting_down"
	CodeUnavailable      Code = "unavailable"  // the part that would have to answer does not run
	CodeRejected         Code = "rejected"     // a registration: the message says why
	CodeNotFound         Code = "not_found"    // no such collector
	CodeUnauthorized     Code = "unauthorized" // not on this subject, or not to this inbox
	CodeInternal         Code = "internal"
)

// Error is a failure that crossed the wire.
type Error struct {
	Code    Code     `json:"code"`
	Message string   `json:"message"`           // one sentence for people
	Details []Detail `json:"details,omitempty"` // CodeInvalid: one for each fault
}

// Detail is one fault of a request.
type Detail struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Code) }
