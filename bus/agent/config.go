package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
)

// Connector makes connections to the broker with the rights of the agent: every call
// a new one, which the caller closes. The options come after its own.
type Connector interface {
	Connect(options ...nats.Option) (*nats.Conn, error)
	Ready() bool // whether there is a server to connect to
}

// Ledger knows what the stream has taken of a collector. The error says that it can
// not be known now.
type Ledger interface {
	Last(ctx context.Context, id string) (rpc.Position, error)
}

// Presence knows the connections of a user, by numbers that are never used again.
type Presence interface {
	Connected(id string) []uint64
}

// Facts is what the broker tells about itself. None of it blocks.
type Facts interface {
	Report() rpc.StreamReport
	Refusals() []rpc.Refusal
	Warnings() []string // sentences about what somebody should do something about
}

// Broker is what the agent needs of its broker.
type Broker interface {
	Connector
	Ledger
	Presence
	Facts
}

// Timing is when things happen. All are positive.
type Timing struct {
	Ready     time.Duration // how long the expected collectors may take, from the start
	Heartbeat time.Duration // the interval that is assigned to collectors
	Tick      time.Duration // between two looks at what changes by itself
	Ask       time.Duration // how long a collector may take to answer
	Retry     time.Duration // before the second try to begin a collector; doubles, up to ten times this

	Adopt       time.Duration // how long a surviving collector may take to register before another is started
	RestartMin  time.Duration // after the first end of a child; doubles
	RestartMax  time.Duration
	RestartCalm time.Duration // a child that lived this long begins anew at RestartMin
	Hopeless    time.Duration // after an end that another start alone does not mend
	Stop        time.Duration // how long a child may take to stop before it is killed
	Watchdog    time.Duration // longest time without progress of a service
}

// DefaultTiming returns the timing of a real agent. Five seconds for an answer are
// many times what a collector takes; Stop leaves it the time to deliver what it has,
// below the 30 s after which service managers lose patience.
func DefaultTiming() Timing {
	return Timing{
		Ready: 30 * time.Second, Heartbeat: 10 * time.Second, Tick: 250 * time.Millisecond,
		Ask: 5 * time.Second, Retry: time.Second,
		Adopt: 3 * time.Second, RestartMin: time.Second, RestartMax: time.Minute, RestartCalm: time.Minute,
		Hopeless: time.Minute, Stop: 25 * time.Second, Watchdog: time.Minute,
	}
}

func (t *Timing) faults() []error {
	var faults []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"ready timeout", t.Ready},
		{"heartbeat interval", t.Heartbeat},
		{"tick", t.Tick},
		{"time for an answer", t.Ask},
		{"time between tries", t.Retry},
		{"time to adopt", t.Adopt},
		{"least time to restart", t.RestartMin},
		{"greatest time to restart", t.RestartMax},
		{"time of calm", t.RestartCalm},
		{"time after a hopeless end", t.Hopeless},
		{"time to stop", t.Stop},
		{"watchdog", t.Watchdog},
	} {
		if d.value <= 0 {
			faults = append(faults, fmt.Errorf("%s is not positive: %s", d.name, d.value))
		}
	}
	return faults
}

// Config is what an [Agent] is made from.
type Config struct {
	Broker   Broker
	Expected []string  // ids of collectors that others start
	Children []Command // collectors that the agent runs; they are expected too
	Starter  Starter   // starts Children by their place in the slice; nil if there are none
	// Survivors says that an earlier agent may have left collectors running: they get
	// Timing.Adopt to register before Children are started.
	Survivors bool
	Version   string // of this program
	Timing    Timing
	Log       *logrus.Entry
	// Abort ends the process because a service hangs. It is called at most once.
	Abort func(reason string)
}

// Validate names every fault.
func (c *Config) Validate() error {
	faults := c.Timing.faults()
	fault := func(bad bool, what string) {
		if bad {
			faults = append(faults, errors.New(what))
		}
	}
	fault(c.Broker == nil, "broker is missing")
	fault(c.Log == nil, "log is missing")
	fault(c.Abort == nil, "what ends a process that hangs is missing")
	fault(len(c.Children) > 0 && c.Starter == nil, "who starts the children is missing")
	for _, id := range c.Expected {
		if err := rpc.ValidID(id); err != nil {
			faults = append(faults, fmt.Errorf("expected collector: %w", err))
		}
	}
	var ids []string
	for i := range c.Children {
		child := &c.Children[i]
		if err := rpc.ValidID(child.ID); err != nil {
			faults = append(faults, fmt.Errorf("child: %w", err))
		}
		fault(child.Path == "", fmt.Sprintf("child %q has no program", child.ID))
		fault(slices.Contains(ids, child.ID), fmt.Sprintf("two children have the id %q", child.ID))
		ids = append(ids, child.ID)
	}
	return errors.Join(faults...)
}

// expected are the ids of all collectors that the agent waits for, sorted.
func (c *Config) expected() []string {
	ids := slices.Clone(c.Expected)
	for i := range c.Children {
		ids = append(ids, c.Children[i].ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
