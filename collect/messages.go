package collect

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What a [Handle] answers when the actor does not.
var (
	// ErrMailboxFull: too many requests wait already. Nothing was done.
	ErrMailboxFull = errors.New("collector mailbox is full")
	// ErrStopped: the collector has ended for good. Nothing was done.
	ErrStopped = errors.New("collector has stopped")
	// ErrRestarted: the collector crashed with the request in hand, which may
	// have taken effect or not.
	ErrRestarted = errors.New("collector was restarted while it handled the request")
	// ErrShuttingDown: the collector takes no new orders. Nothing was done.
	ErrShuttingDown = errors.New("collector is shutting down")
)

// Begin asks a waiting collector to begin monitoring.
type Begin struct {
	Coordinated bool   // an agent has said so
	Cause       string // for the transition, such as "agent" or "standalone"
}

// BeginResult answers [Begin].
type BeginResult struct {
	Changed     bool // monitoring began with this request
	Coordinated bool
}

// Adjust changes the interval in force without touching the configuration. The
// fields are independent; those that are not given stay as they are.
type Adjust struct {
	Value    *time.Duration // takes the place of the configured interval
	Clear    bool           // back to the configured interval; not with Value
	Pressure *bool          // stretch the interval while true
}

// Validate names every fault.
func (a *Adjust) Validate() error {
	var faults []error
	if a.Value != nil {
		faults = append(faults, inBounds("interval", *a.Value, MinInterval, MaxInterval))
		if a.Clear {
			faults = append(faults, errors.New("an interval can't be set and cleared at once"))
		}
	}
	return errors.Join(faults...)
}

// Update sets hot settings, all of them or none.
type Update struct {
	Values       map[string]string
	ValidateOnly bool // say what would happen
}

// UpdateResult answers [Update].
type UpdateResult struct {
	Version         uint64   // of the configuration, once what is pending is in force
	Applied         []string // keys that are in force now
	Pending         []string // keys that will be at the end of the running scan
	RestartRequired []string // keys that were not touched: they need a restart
}

// Fault is what is wrong with one key of an [Update].
type Fault struct {
	Key    string
	Reason string
}

// UpdateError names every fault of an [Update]; none of its values was taken.
type UpdateError struct {
	Faults []Fault // ordered by key
}

func (e *UpdateError) Error() string {
	text := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		text[i] = fmt.Sprintf("%s: %s", f.Key, f.Reason)
	}
	return "configuration refused: " + strings.Join(text, "; ")
}

// Shutdown asks the collector to complete its cycle and end.
type Shutdown struct {
	Deadline time.Time // a scan that still runs then is abandoned; zero is never
	Reason   string    // for the transition and the last event
}

// ShutdownResult answers [Shutdown].
type ShutdownResult struct {
	// Complete says that nothing was abandoned and the last event is durable;
	// else Detail says what is not.
	Complete bool
	Detail   string
}
