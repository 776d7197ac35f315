package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
)

// LinkConfig is what a [Link] is made from.
type LinkConfig struct {
	Socket string // path of the broker's Unix socket
	ID     string // of this collector, see [rpc.ValidID]
	// Secret is asked for the secret before each attempt to connect. Nil reads the
	// file [rpc.SecretPath]. Its error becomes that of the attempt.
	Secret func() (string, error)
	Log    *logrus.Entry
}

// Validate names every fault.
func (c *LinkConfig) Validate() error {
	var faults []error
	if c.Socket == "" {
		faults = append(faults, errors.New("path of the broker's socket is missing"))
	}
	if err := rpc.ValidID(c.ID); err != nil {
		faults = append(faults, err)
	}
	if c.Log == nil {
		faults = append(faults, errors.New("log is missing"))
	}
	return errors.Join(faults...)
}

// Link is the two connections to the agent. It outlives the services that use it,
// and must be closed after them. Safe for concurrent use.
type Link struct {
	cfg     LinkConfig
	control *connection
	events  *connection

	mu      sync.Mutex // guards changed
	changed signal
}

// LinkStatus is how a [Link] stands.
type LinkStatus struct {
	Control ConnectionStatus
	Events  ConnectionStatus
}

// NewLink returns a link that is not opened yet. Services may be started before it
// is: they wait.
func NewLink(cfg LinkConfig) (*Link, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure link to the agent: %w", err)
	}
	if cfg.Secret == nil {
		cfg.Secret = secretFile(cfg.Socket, cfg.ID)
	}
	l := &Link{cfg: cfg}
	l.control = newConnection("control", &cfg, l.raise)
	l.events = newConnection("events", &cfg, l.raise)
	return l, nil
}

// ID is the collector's.
func (l *Link) ID() string { return l.cfg.ID }

// Open starts to connect, and to connect again for ever. It waits for nothing and
// fails only if the library refuses its options. Call it once.
func (l *Link) Open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("open link: %w", err)
	}
	if err := l.control.open(l.cfg.ID); err != nil {
		return err
	}
	return l.events.open(l.cfg.ID)
}

// Close sends what is buffered and ends both connections, for at most as long as
// ctx lives. There is no way to open a link again.
func (l *Link) Close(ctx context.Context) error {
	return errors.Join(l.events.close(ctx), l.control.close(ctx))
}

// Status never blocks, whatever the library is busy with.
func (l *Link) Status() LinkStatus {
	return LinkStatus{Control: l.control.snapshot(), Events: l.events.snapshot()}
}

// Changed is closed when one of the connections changes its state after the call.
func (l *Link) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed.wait()
}

func (l *Link) raise() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.raise()
}

// Connection is the link in the form of a heartbeat.
func (s *LinkStatus) Connection() rpc.Connection {
	short := func(state string) string {
		if state == StateConnected {
			return state
		}
		return StateReconnecting
	}
	return rpc.Connection{
		Control:    short(s.Control.State),
		Events:     short(s.Events.State),
		Reconnects: s.Control.Reconnects + s.Events.Reconnects,
	}
}
