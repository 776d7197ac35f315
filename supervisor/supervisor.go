package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

// Defaults of [Config].
const (
	DefaultWatchdog    = 60 * time.Second
	DefaultStopTimeout = 20 * time.Second
	// MinWatchdog leaves every service time for two beats, which they give every
	// five seconds while there is nothing to do.
	MinWatchdog = 15 * time.Second
)

// Config is what a [Supervisor] is made from.
type Config struct {
	// Store is open; the caller closes it after Run has returned.
	Store *store.Store
	// Scanner takes the snapshots, Sources is what state says of it.
	Scanner collect.Scanner
	// Groups is nil if control groups are not wanted of what Events tells.
	Groups  collect.Groups
	Sources control.Sources
	// Events tells of processes between two snapshots. Run closes it. Nil: nobody does.
	Events   *kernel.Listener
	Host     collect.Host
	Settings collect.Settings
	// Hashes says how executables are digested; nil: they are not. Its Progress and
	// Log are the supervisor's.
	Hashes *hash.Config
	// Broker is the agent's, for which monitoring waits; nil is standalone mode.
	Broker *Broker
	// Window is how many events are sent to it at once, 1 to 1000; it can change
	// while the daemon runs.
	Window int
	// SocketPath is the control socket's, see [control.SocketPath].
	SocketPath string
	// MetricsListen is a TCP address for /metrics and /healthz, or empty.
	MetricsListen string
	Version       string
	// Watchdog is how long a service may show no progress before Abort is
	// called; half of it names the service in state. 0 is never.
	Watchdog time.Duration
	// Abort must end the process, with all goroutines on the log.
	Abort func(reason string)
	// Notify tells the service manager; it must not block. Nil tells nobody.
	Notify func(Notice)
	// StopTimeout bounds the collector's last cycle.
	StopTimeout time.Duration
	// Trim is called when memory can be given back; see [collect.Config]. Nil: nobody is
	// told.
	Trim func()
	// Services are the caller's own, run in the group admin.
	Services []tree.Service
	// Hot are the hot keys that are not the collector's, Restart the names of
	// the settings that need a restart; see [collect.Config].
	Hot     map[string]collect.HotKey
	Restart []string
	Log     *logrus.Entry
	// LogLinesLost counts the lines of the log that were thrown away; may be nil.
	LogLinesLost func() uint64

	// wrap, if a test gives it, is asked for what runs in a service's place.
	wrap func(path string, service tree.Service) tree.Service
}

// Broker is an agent's broker, and how to deal with it.
type Broker struct {
	Socket string // path of its Unix socket
	ID     string // of this collector, see [rpc.ValidID]
	// BeginTimeout is how long monitoring waits for an agent to accept this
	// collector; 0 begins at once, [BeginNever] waits.
	BeginTimeout time.Duration
}

// Notice is news for the service manager.
type Notice struct {
	Ready    bool
	Stopping bool
	Alive    bool // progress was proven
	Status   string
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults []error
	need := func(ok bool, what string) {
		if !ok {
			faults = append(faults, errors.New(what+" is missing"))
		}
	}
	need(c.Store != nil, "store")
	need(c.Scanner != nil, "scanner")
	need(c.SocketPath != "", "path of the control socket")
	need(c.Log != nil, "log")
	if c.Broker != nil {
		need(c.Broker.Socket != "", "socket of the broker")
		if err := rpc.ValidID(c.Broker.ID); err != nil {
			faults = append(faults, err)
		}
	}
	need(c.Watchdog == 0 || c.Abort != nil, "abort, which the watchdog needs,")
	if c.Watchdog != 0 && c.Watchdog < MinWatchdog {
		faults = append(faults, fmt.Errorf("watchdog %v: want 0 or at least %v", c.Watchdog, MinWatchdog))
	}
	return errors.Join(faults...)
}

// Supervisor is the daemon without its command line. It runs once.
type Supervisor struct {
	cfg     Config
	started time.Time

	machine      *fsm.Machine[fsm.CollectorState, fsm.CollectorEvent]
	registration *fsm.Machine[fsm.RegistrationState, fsm.RegistrationEvent]
	mailbox      *collect.Mailbox
	tree         *tree.Tree
	hasher       *hash.Hasher // nil if there is none; constant
	journal      *journal
	control      *control.Server // set by New
	paths        []string        // of the services, in the order in which they are stopped
	stopping     atomic.Bool

	// moves is sent to by the collector after each of its transitions and received from
	// by Run; it is never closed. One call is as good as many, so it holds one.
	moves    chan struct{}
	end      *end
	link     *link    // nil in standalone mode; constant
	solitude solitude // Run alone
}

// New builds the tree; nothing runs yet.
func New(cfg Config) (*Supervisor, error) {
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = DefaultStopTimeout
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure supervisor: %w", err)
	}
	s := &Supervisor{
		cfg:          cfg,
		started:      time.Now(),
		machine:      fsm.NewCollector(),
		registration: fsm.NewRegistration(),
		mailbox:      collect.NewMailbox(),
		moves:        make(chan struct{}, 1),
		end:          newEnd(),
	}
	s.journal = newJournal(cfg.Store, s.earlierTransitions())
	if err := s.build(); err != nil {
		return nil, fmt.Errorf("build tree: %w", err)
	}
	return s, nil
}

// earlierTransitions are those of the runs before this one. A store that can
// not say is no reason not to start.
func (s *Supervisor) earlierTransitions() []store.Transition {
	ctx, cancel := context.WithTimeout(context.Background(), journalDeadline)
	defer cancel()
	earlier, err := s.cfg.Store.Transitions(ctx, remembered)
	if err != nil {
		s.cfg.Log.WithError(err).Warn("Transitions of earlier runs can not be read")
	}
	return earlier
}
