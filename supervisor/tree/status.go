package tree

import "time"

// State is what a service is doing.
type State string

// The states of a service.
const (
	StateRunning    State = "running"    // in Serve, and beating if it has a deadline
	StateRestarting State = "restarting" // failed a moment ago, about to be started again
	StateBackoff    State = "backoff"    // failed too often, rests until BackoffUntil
	StateStopping   State = "stopping"   // told to stop, not yet back from Serve
	StateStopped    State = "stopped"    // not started yet, or stopped
	StateDone       State = "done"       // ended itself for good
	StateHung       State = "hung"       // running without a beat for longer than its deadline, or not stopped in time
)

// Status is what is known of one service at one moment.
type Status struct {
	Path  string    // group/service
	State State     // see the constants
	Since time.Time // when it came to that state; for a service without beats, when its deadline passed

	Starts   uint64 // calls of Serve
	Restarts uint64 // those after a failure
	Failures uint64 // returns and panics that were not meant to be
	Panics   uint64 // failures that were panics
	Backoffs uint64 // times it was made to rest

	LastError    string    // text of the last failure, or why it is done; a panic's with its place
	LastErrorAt  time.Time // zero if there was none
	LastPanic    string    // message and place ("collect/collector.go:123") of the last panic
	BackoffUntil time.Time // when it is started again; zero unless in back-off

	Activity string        // what it said that it is doing, at its last beat
	BeatAge  time.Duration // since its last beat; zero unless it is in Serve
	Deadline time.Duration // longest time between beats; 0: not watched
}
