package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
)

// DefaultScanDeadline is how long a scan may take before it counts as hung.
const DefaultScanDeadline = 60 * time.Second

// Sink makes a batch durable: all of it or nothing, before it returns. It fills
// in the sequence and the epoch of the events. ctx is honoured only while
// nothing has been written.
type Sink interface {
	Append(ctx context.Context, b *event.Batch) error
}

// Loader returns the durable table.
type Loader interface {
	Load(ctx context.Context) (*event.Table, error)
}

// Progress is told that the actor moves, and what it turns to. The collector
// does not beat while a scan is older than its deadline, nor while it waits for
// the sink, so that a hang is noticed from outside.
type Progress interface {
	Beat(activity string)
}

// Machine is the collector's state machine.
type Machine = fsm.Machine[fsm.CollectorState, fsm.CollectorEvent]

// HotKey validates a value of a setting that can change while the daemon runs
// and belongs to another part of it. The function that it returns applies the
// value; it must not fail or block, and is not called if another value of the
// same update is refused.
type HotKey func(value string) (apply func(), err error)

// Host is what the identity of processes is made from.
type Host struct {
	HostID       string
	BootID       string
	PIDNamespace uint64    // inode of the daemon's own PID namespace, 0 where there is none
	BootTime     time.Time // zero if unknown
}

// Config is what a [Collector] is made from.
type Config struct {
	Scanner Scanner
	Sink    Sink
	Loader  Loader
	Machine *Machine
	Mailbox *Mailbox
	Host    Host
	Version string // of procmond, for sensor events
	// Settings are those that the run starts with. After a restart of the actor
	// those in force go on, with what was updated since.
	Settings Settings

	// Events tells of processes between two scans; nil: nobody does. It is read from the
	// time on at which monitoring begins.
	Events Events

	// Groups tells in which control group a process runs that Events tells of. Nil: what
	// is known of its parent stands until the next scan.
	Groups Groups

	// Hasher digests executables; nil: nobody does.
	Hasher Hasher

	// HasLink says that a broker is named: monitoring that begins without its
	// agent is then reported as uncoordinated.
	HasLink bool
	// IsUnavailable recognises errors of Sink and Loader that say that the store
	// is out of service and will come back. Nil: none is.
	IsUnavailable func(error) bool
	// Available is received from when the store may be back in service; the
	// collector also tries by itself, with a back-off up to 5 s. Nil: only that.
	Available <-chan struct{}
	// Done is the error with which Serve ends for good.
	Done error

	// Hot are the hot keys that belong to other parts, by name. Restart are the
	// names of the settings that need a restart; all others are unknown.
	Hot     map[string]HotKey
	Restart []string

	// OnTransition is called by the actor after each transition that it caused,
	// before it goes on. Nil: nobody is told.
	OnTransition func(fsm.Transition)
	// Trim is called by the actor before and after the first cycle, and after a later one
	// when many events were made since: good times to give memory back. Nil: nobody is told.
	Trim         func()
	Progress     Progress      // nil: nobody is told
	ScanDeadline time.Duration // 0: DefaultScanDeadline
	Log          *logrus.Entry
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults []error
	need := func(ok bool, what string) {
		if !ok {
			faults = append(faults, errors.New(what+" is missing"))
		}
	}
	need(c.Scanner != nil, "scanner")
	need(c.Sink != nil, "sink")
	need(c.Loader != nil, "loader")
	need(c.Machine != nil, "machine")
	need(c.Mailbox != nil, "mailbox")
	need(c.Done != nil, "done error")
	need(c.Log != nil, "log")
	need(c.Host.BootID != "", "boot id")
	if err := event.ValidHostID(c.Host.HostID); err != nil {
		faults = append(faults, err)
	}
	if c.ScanDeadline < 0 {
		faults = append(faults, fmt.Errorf("scan deadline %v is negative", c.ScanDeadline))
	}
	if err := c.Settings.Validate(); err != nil {
		faults = append(faults, err)
	}
	for _, key := range hotKeys {
		if c.Hot[key] != nil {
			faults = append(faults, fmt.Errorf("hot key %s belongs to the collector", key))
		}
	}
	return errors.Join(faults...)
}

func (c *Config) setDefaults() {
	if c.ScanDeadline == 0 {
		c.ScanDeadline = DefaultScanDeadline
	}
	if c.IsUnavailable == nil {
		c.IsUnavailable = func(error) bool { return false }
	}
	if c.OnTransition == nil {
		c.OnTransition = func(fsm.Transition) {}
	}
	if c.Trim == nil {
		c.Trim = func() {}
	}
	if c.Progress == nil {
		c.Progress = unwatched{}
	}
}

// unwatched is the Progress that nobody looks at.
type unwatched struct{}

func (unwatched) Beat(string) {}
