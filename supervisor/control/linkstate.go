package control

import "time"

// Link is how a coordinated daemon is connected with its agent.
type Link struct {
	Socket  string     `json:"socket"`
	ID      string     `json:"id"`
	Control Connection `json:"control"` // registration, heartbeats and requests
	Events  Connection `json:"events"`  // delivery
	// Refused counts what the broker did not permit.
	Refused uint64 `json:"refused"`
}

// Connection is one of the two connections to the broker.
type Connection struct {
	State      string     `json:"state"` // connecting, connected, reconnecting or closed
	Since      *time.Time `json:"since"`
	Reconnects uint64     `json:"reconnects"`
	LastError  string     `json:"last_error"`
}

// Delivery is the publisher's account.
type Delivery struct {
	State      string     `json:"state"` // disconnected, resuming, idle, sending, full, failing or draining
	Since      *time.Time `json:"since"`
	Window     int        `json:"window"`       // events in a batch, at most
	LastSeq    uint64     `json:"last_seq"`     // last event that the stream acknowledged
	Delivered  uint64     `json:"delivered"`    // acknowledged since the daemon started
	Batches    uint64     `json:"batches"`      //
	Duplicates uint64     `json:"duplicates"`   // that the stream had already
	Resumes    uint64     `json:"resumes"`      // times that the agent was asked what it has
	Full       uint64     `json:"full"`         // times that the stream had no room
	Unknown    uint64     `json:"unknown"`      // batches of which it was not known whether they arrived
	InFlightMS int64      `json:"in_flight_ms"` // how long the batch under way has been
	LastAckMS  float64    `json:"last_ack_ms"`  // how long the last batch took
	// FailingSince is when delivery began to fail without a success since; nil: it does
	// not.
	FailingSince *time.Time `json:"failing_since"`
	LastError    string     `json:"last_error"`
	LastErrorAt  *time.Time `json:"last_error_at"`
}

// Pressure is whether the collector is slowed down, and why.
type Pressure struct {
	On       bool       `json:"on"`
	Since    *time.Time `json:"since"`
	Cause    string     `json:"cause"`
	Switches uint64     `json:"switches"` // on and off
}

// Operation counts the agent's requests for one operation; those that could not be
// read stand under the empty one.
type Operation struct {
	Operation string `json:"operation"`
	Count     uint64 `json:"count"`
	Errors    uint64 `json:"errors"`
	Timeouts  uint64 `json:"timeouts"` // among the errors
}
