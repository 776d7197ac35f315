package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/fsm"
)

const (
	// CauseRestarted is the cause of the disconnect that a restarted service fires.
	CauseRestarted = "service_restarted"

	registrationAttempts = 3               // in a series
	registrationFirst    = 2 * time.Second // most before the second attempt
	registrationMost     = 8 * time.Second
	registrationRetry    = time.Minute // between two series
	forEver              = time.Duration(1<<63 - 1)
)

// ErrNotRegistered reports that there is nothing to take leave of.
var ErrNotRegistered = errors.New("not registered with an agent")

// RegistrationMachine is the machine of a registration, from fsm.NewRegistration.
type RegistrationMachine = fsm.Machine[fsm.RegistrationState, fsm.RegistrationEvent]

// RegistrationConfig is what a [Registration] is made from.
type RegistrationConfig struct {
	Link    *Link
	Machine *RegistrationMachine // nobody else fires at it
	// Describe says who registers, at each attempt. It must not block.
	Describe func() rpc.Registration
	// OnTransition hears of each change of the machine, in order, in the goroutine
	// of Serve. It must not block. May be nil.
	OnTransition func(fsm.Transition)
	Progress     Progress // may be nil
	Log          *logrus.Entry
}

// Validate names every fault.
func (c *RegistrationConfig) Validate() error {
	return missing("link", c.Link == nil, "machine", c.Machine == nil, "description", c.Describe == nil, "log", c.Log == nil)
}

// missing makes one error for each name that is followed by true.
func missing(pairs ...any) error {
	var faults []error
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] == true {
			faults = append(faults, fmt.Errorf("%s is missing", pair[0]))
		}
	}
	return errors.Join(faults...)
}

// RegistrationStatus is how a [Registration] stands.
type RegistrationStatus struct {
	Machine     fsm.Snapshot
	Attempts    uint64 // requests to be registered
	Successes   uint64
	Failures    uint64 // rejections and attempts without an answer
	LastError   string // printable; empty: none yet
	LastErrorAt time.Time
	Accepted    *rpc.Accepted // of the last success, nil before the first
	AcceptedAt  time.Time
	Left        bool // took its leave and will not register again
}

// Lease is what a registration entitles to.
type Lease struct {
	Registered bool
	Number     uint64        // of the registration, from 1 in this process
	Interval   time.Duration // between heartbeats that the agent wants; 0: it does not mind
}

// Registration keeps the collector registered with its agent. It is a service: see
// the package's documentation. What it knows outlives Serve.
type Registration struct {
	cfg     RegistrationConfig
	timing  registrationTiming
	leaving chan leave // unbuffered: Serve takes over or the caller gives up; never closed

	mu        sync.Mutex // guards everything below
	status    RegistrationStatus
	lease     Lease
	changed   signal             // of lease
	interrupt context.CancelFunc // ends the attempt under way; nil if there is none
	left      atomic.Bool        // set under mu, read without
}

// registrationTiming is what tests shorten.
type registrationTiming struct{ first, most, retry time.Duration }

// leave is an order to deregister.
type leave struct {
	farewell rpc.Farewell
	deadline time.Time
	done     chan<- error // takes one value, without blocking
}

// NewRegistration returns a service that is not started.
func NewRegistration(cfg RegistrationConfig) (*Registration, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure registration: %w", err)
	}
	cfg.Progress = watched(cfg.Progress)
	return &Registration{
		cfg:     cfg,
		timing:  registrationTiming{first: registrationFirst, most: registrationMost, retry: registrationRetry},
		leaving: make(chan leave),
	}, nil
}

func (r *Registration) String() string { return "registration" }

// Status does not block.
func (r *Registration) Status() RegistrationStatus {
	machine := r.cfg.Machine.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Machine, s.Left = machine, r.left.Load()
	return s
}

// Lease returns what the registration entitles to now, and a channel that is closed
// when that changes.
func (r *Registration) Lease() (Lease, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease, r.changed.wait()
}

// Registered says whether the agent has accepted the collector, and the interval
// between heartbeats that it wants (0: it does not mind).
func (r *Registration) Registered() (interval time.Duration, ok bool) {
	lease, _ := r.Lease()
	return lease.Interval, lease.Registered
}

// Serve registers whenever there is a connection, until ctx ends.
func (r *Registration) Serve(ctx context.Context) error {
	r.disconnect(CauseRestarted)
	for ctx.Err() == nil {
		s, changed := r.cfg.Link.control.look()
		if s == nil {
			r.rest(ctx, "waiting for the agent", forEver, changed, nil)
			continue
		}
		r.hold(ctx, s)
		if ctx.Err() == nil {
			r.disconnect("lost the connection to the agent")
		}
	}
	return ctx.Err()
}

// hold stays registered for as long as the session lives.
func (r *Registration) hold(ctx context.Context, s *session) {
	ctx, release := s.bind(ctx)
	defer release()
	for ctx.Err() == nil {
		wait := forEver
		if !r.left.Load() {
			wait = r.series(ctx, s)
		}
		r.rest(ctx, "holding the registration", wait, nil, s)
	}
}

// series tries to register a few times and returns how long to rest afterwards.
func (r *Registration) series(ctx context.Context, s *session) time.Duration {
	r.fire(fsm.RegistrationRegister, "connected to the agent")
	delays := backoff{first: r.timing.first, most: r.timing.most}
	var why string
	for n := 1; ; n++ {
		accepted, err := r.attempt(ctx, s)
		switch {
		case err == nil:
			r.accept(accepted)
			return forEver
		case ctx.Err() != nil || r.left.Load():
			return 0
		case isRejection(err, &why):
			r.fire(fsm.RegistrationReject, clip(why))
			return r.timing.retry
		case n == registrationAttempts:
			r.fire(fsm.RegistrationExhaust, fmt.Sprintf("%d attempts failed, the last one: %s", n, describe(err)))
			return r.timing.retry
		}
		r.rest(ctx, "between two attempts to register", delays.next(), nil, s)
		if ctx.Err() != nil || r.left.Load() {
			return 0
		}
	}
}

// isRejection reports whether the agent refuses the collector, and why in its words.
func isRejection(err error, why *string) bool {
	var failure *rpc.Error
	if !errors.As(err, &failure) || failure.Code != rpc.CodeRejected {
		return false
	}
	*why = failure.Message
	return true
}

// attempt asks the agent once. [Registration.Deregister] interrupts it.
func (r *Registration) attempt(ctx context.Context, s *session) (*rpc.Accepted, error) {
	r.cfg.Progress.Beat("registering")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	r.status.Attempts++
	r.interrupt = cancel
	r.mu.Unlock()
	if r.left.Load() { // Deregister came before there was something to interrupt
		cancel()
	}
	id := r.cfg.Link.ID()
	who := r.cfg.Describe()
	who.Protocol, who.ID = rpc.Protocol, id
	var accepted rpc.Accepted
	err := ask(ctx, s.nc, rpc.RegistrationSubject(id), rpc.OpRegister, &who, &accepted)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interrupt = nil
	if err != nil {
		r.status.Failures++
		r.status.LastError, r.status.LastErrorAt = describe(err), time.Now()
		return nil, err
	}
	accepted.AgentID, accepted.AgentVersion = clip(accepted.AgentID), clip(accepted.AgentVersion)
	r.status.Successes++
	r.status.Accepted, r.status.AcceptedAt = &accepted, time.Now()
	return &accepted, nil
}

func (r *Registration) accept(a *rpc.Accepted) {
	if !r.fire(fsm.RegistrationAccept, "accepted by agent "+a.AgentID) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	interval := time.Duration(0)
	if a.HeartbeatIntervalMS > 0 {
		interval = time.Duration(min(a.HeartbeatIntervalMS, maxHeartbeat.Milliseconds())) * time.Millisecond
	}
	r.lease = Lease{Registered: true, Number: r.lease.Number + 1, Interval: interval}
	r.changed.raise()
}

// Deregister takes leave of the agent and ends registering for good, also in later
// calls of Serve. Serve does it; Deregister waits for that while ctx lives. The
// error wraps [ErrNotRegistered] if there was no agent to tell.
func (r *Registration) Deregister(ctx context.Context, f rpc.Farewell) error {
	r.mu.Lock()
	r.left.Store(true)
	if r.interrupt != nil {
		r.interrupt()
	}
	r.mu.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(askTimeout)
	}
	done := make(chan error, 1)
	select {
	case r.leaving <- leave{farewell: f, deadline: deadline, done: done}:
	case <-ctx.Done():
		return fmt.Errorf("deregister: %w", ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("deregister: %w", ctx.Err())
	}
}

// leaveAgent carries out an order to deregister.
func (r *Registration) leaveAgent(ctx context.Context, l leave, s *session) {
	if s == nil || r.cfg.Machine.State() != fsm.RegistrationRegistered {
		r.disconnect("deregistered before it was accepted")
		l.done <- fmt.Errorf("deregister: %w", ErrNotRegistered)
		return
	}
	r.fire(fsm.RegistrationDeregister, clip(l.farewell.Reason))
	ctx, cancel := context.WithDeadline(ctx, l.deadline)
	defer cancel()
	err := ask(ctx, s.nc, rpc.RegistrationSubject(r.cfg.Link.ID()), rpc.OpDeregister, &l.farewell, nil)
	cause := "the agent took note"
	if err != nil {
		cause = "the agent did not take note: " + describe(err)
		err = fmt.Errorf("deregister: %w", err)
	}
	r.fire(fsm.RegistrationDone, cause)
	l.done <- err
}

// rest waits until d has passed, wake is closed or ctx ends, and carries out an
// order to deregister, which ends the rest too. s is nil while not connected.
func (r *Registration) rest(ctx context.Context, activity string, d time.Duration, wake <-chan struct{}, s *session) {
	over := time.NewTimer(d)
	defer over.Stop()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		r.cfg.Progress.Beat(activity)
		select {
		case <-tick.C:
		case <-over.C:
			return
		case <-wake:
			return
		case <-ctx.Done():
			return
		case l := <-r.leaving:
			r.leaveAgent(ctx, l, s)
			return
		}
	}
}

// disconnect fires at the machine if it stands in a state that needs a connection.
func (r *Registration) disconnect(cause string) {
	if slices.Contains(r.cfg.Machine.Allowed(), fsm.RegistrationDisconnect) {
		r.fire(fsm.RegistrationDisconnect, cause)
	}
}

// fire moves the machine, tells of it, and takes back the lease if the state is no
// longer registered. It is false if the machine does not accept the event, which is
// a fault of this package.
func (r *Registration) fire(e fsm.RegistrationEvent, cause string) bool {
	t, err := r.cfg.Machine.Fire(e, cause)
	if err != nil {
		r.cfg.Log.WithError(err).Error("Registration is in an unexpected state")
		return false
	}
	if t.To != string(fsm.RegistrationRegistered) {
		r.mu.Lock()
		if r.lease.Registered {
			r.lease.Registered = false
			r.changed.raise()
		}
		r.mu.Unlock()
	}
	if r.cfg.OnTransition != nil {
		r.cfg.OnTransition(t)
	}
	return true
}
