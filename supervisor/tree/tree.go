package tree

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/thejerf/suture/v4"
)

var (
	// ErrDone is returned by a service, wrapped or not, that has ended for good.
	ErrDone = errors.New("service is done")
	// ErrUnstopped reports a service that did not end in time. It runs on.
	ErrUnstopped = errors.New("service did not stop")
	// ErrUnknown reports a path that no service has.
	ErrUnknown = errors.New("no such service")
)

// Suture waits this long for what Close could not stop; inner before outer, so
// that no supervisor takes another for hung.
const (
	serviceGrace = 100 * time.Millisecond
	groupGrace   = 200 * time.Millisecond
	rootGrace    = 300 * time.Millisecond
)

// Service is something that runs until its context ends; see the package's
// documentation for what it may return. String names it within its group; it
// is called once, by [Tree.Add].
type Service interface {
	Serve(ctx context.Context) error
	String() string
}

// Tree runs services. Its methods are safe for concurrent use, except that all
// calls of Add come before Start. Every Tree must be closed.
type Tree struct {
	config   Config
	root     *suture.Supervisor
	reporter *reporter

	closing sync.Mutex // serialises Close

	mu       sync.Mutex // guards everything below; never held while suture is called on a running tree
	groups   map[string]*suture.Supervisor
	children []*child // in the order of Add
	started  bool
	closed   bool
	cancel   context.CancelFunc // ends the supervisors; nil before Start
	served   <-chan error       // sent to once by suture when the root has ended; nil before Start and after Close
}

// New makes an empty tree. The error names every fault of c.
func New(c Config) (*Tree, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure tree: %w", err)
	}
	t := &Tree{config: c.withDefaults(), groups: map[string]*suture.Supervisor{}}
	t.reporter = newReporter(t.config.Log)
	t.root = suture.New("root", suture.Spec{EventHook: t.hook, Timeout: rootGrace, DontPropagateTermination: true})
	t.root.Add(t.reporter)
	return t, nil
}

// Add puts s into a group, which is made at its first service. The path of the
// service is "group/name". It is started by Start, and stays with the tree. Add
// panics on what only a mistake in the program can cause: a name that is empty,
// taken or holds a slash, a Progress that belongs to another service, a tree
// that was started.
func (t *Tree) Add(group string, s Service, o Options) *Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.child(group, s, o)
	sub := suture.New(c.path, suture.Spec{
		FailureThreshold:         float64(t.config.FailureThreshold),
		FailureDecay:             t.config.FailureDecay.Seconds(),
		FailureBackoff:           t.config.FailureBackoff,
		BackoffJitter:            c,
		Timeout:                  serviceGrace,
		DontPropagateTermination: true,
	})
	parent := t.group(group)
	parent.Add(sub) // this gives sub the event hook of its parent: ours
	sub.Add(c)
	t.children = append(t.children, c)
	return c.progress
}

// child makes the child for s; it needs t.mu.
func (t *Tree) child(group string, s Service, o Options) *child {
	path := group + "/" + s.String()
	switch {
	case t.started || t.closed:
		panic("tree: add " + path + " after the start")
	case group == "" || s.String() == "" || strings.Count(path, "/") != 1:
		panic("tree: add " + path + ": a name is empty or holds a slash")
	case t.find(path) != nil:
		panic("tree: add " + path + " twice")
	}
	c := &child{
		path:     path,
		service:  s,
		progress: o.Progress,
		deadline: t.config.Deadline,
		timeout:  t.config.StopTimeout,
		log:      t.config.Log.WithField(keyService, path),
		notify:   t.reporter.post,
	}
	if o.Deadline != 0 {
		c.deadline = max(o.Deadline, 0)
	}
	if o.Timeout > 0 {
		c.timeout = o.Timeout
	}
	if c.progress == nil {
		c.progress = new(Progress)
	}
	now := time.Now()
	if !c.progress.attach(now) {
		panic("tree: add " + path + ": its progress belongs to another service")
	}
	c.status = Status{Path: path, State: StateStopped, Since: now, Deadline: c.deadline}
	return c
}

// group needs t.mu.
func (t *Tree) group(name string) *suture.Supervisor {
	g := t.groups[name]
	if g == nil {
		g = suture.New(name, suture.Spec{Timeout: groupGrace, DontPropagateTermination: true})
		t.root.Add(g)
		t.groups[name] = g
	}
	return g
}

func (t *Tree) lookup(path string) *child {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(path)
}

// find needs t.mu.
func (t *Tree) find(path string) *child {
	for _, c := range t.children {
		if c.path == path {
			return c
		}
	}
	return nil
}

// Start starts all services, in no order, and returns at once. They get the
// values of ctx; its end does not touch them. Start panics when called twice;
// on a closed tree it does nothing.
func (t *Tree) Start(ctx context.Context) {
	t.closing.Lock()
	defer t.closing.Unlock()
	t.mu.Lock()
	again, closed := t.started, t.closed
	t.started = true
	t.mu.Unlock()
	if again {
		panic("tree: started twice")
	}
	if closed {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := t.root.ServeBackground(ctx)
	t.mu.Lock()
	t.cancel, t.served = cancel, served
	t.mu.Unlock()
}

// Stop ends the service at path for good and waits for it. A service that
// rests in back-off, is done or stopped is stopped at once. A timeout of 0 or
// less stands for that of the service's options.
//
// The error wraps [ErrUnknown], or [ErrUnstopped] if the service is still in
// Serve after timeout; then Stop may be called again to wait longer. A service
// must not stop itself by Stop, which would wait for its own end.
func (t *Tree) Stop(path string, timeout time.Duration) error {
	c := t.lookup(path)
	if c == nil {
		return fmt.Errorf("stop %s: %w", path, ErrUnknown)
	}
	if timeout <= 0 {
		timeout = c.timeout
	}
	return c.await(c.stop(), timeout)
}

// Close ends the tree: all services that are left are stopped at the same
// moment and waited for, timeout (0 or less: Config.StopTimeout) for all of
// them. The error wraps [ErrUnstopped] and names those that are still in Serve.
// Close may be called again.
func (t *Tree) Close(timeout time.Duration) error {
	t.closing.Lock()
	defer t.closing.Unlock()
	if timeout <= 0 {
		timeout = t.config.StopTimeout
	}
	t.mu.Lock()
	t.closed = true
	children, cancel, served := t.children, t.cancel, t.served
	t.served = nil
	t.mu.Unlock()

	err := stopAll(children, timeout)
	if served != nil {
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) { // within rootGrace
			t.config.Log.WithError(err).Warn("supervisors ended unexpectedly")
		}
	}
	return err
}

func stopAll(children []*child, timeout time.Duration) error {
	until := time.Now().Add(timeout)
	idle := make([]<-chan struct{}, len(children))
	for i, c := range children {
		idle[i] = c.stop()
	}
	var left []error
	for i, c := range children {
		if err := c.await(idle[i], max(time.Until(until), 0)); err != nil {
			left = append(left, err)
		}
	}
	return joined(left)
}

// joined is one line for several services that did not stop.
func joined(errs []error) error {
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	text := make([]string, len(errs))
	for i, err := range errs {
		text[i] = err.Error()
	}
	return &closeError{text: strings.Join(text, "; "), errs: errs}
}

// closeError is errors.Join on one line.
type closeError struct {
	text string
	errs []error
}

func (e *closeError) Error() string   { return e.text }
func (e *closeError) Unwrap() []error { return e.errs }

// Services tells of all services, in the order of Add. It does not wait for
// any of them.
func (t *Tree) Services() []Status {
	t.mu.Lock()
	children := t.children
	t.mu.Unlock()
	all := make([]Status, len(children))
	for i, c := range children {
		all[i], _ = c.read()
	}
	return all
}

// Hung tells of the services that are running and have not beaten for longer
// than their deadline. One that is being stopped is not among them: its end
// has a deadline of its own, that of Stop.
func (t *Tree) Hung() []Status {
	t.mu.Lock()
	children := t.children
	t.mu.Unlock()
	var hung []Status
	for _, c := range children {
		if s, late := c.read(); late {
			hung = append(hung, s)
		}
	}
	return hung
}

// Dropped counts log lines about back-offs and hung stops that were dropped because the log
// was too slow. The counts in Status are complete all the same.
func (t *Tree) Dropped() uint64 { return t.reporter.dropped.Load() }

// hook gets the events of every supervisor of the tree, on their loops: it
// must not call suture, and only hands over. Failures of services are recorded
// by their child already, and back-offs by its Jitter, which knows how long.
func (t *Tree) hook(e suture.Event) {
	switch e := e.(type) {
	case suture.EventResume: // the supervisor of one service has that service's path as its name
		if c := t.lookup(e.SupervisorName); c != nil && c.resting() {
			t.reporter.post(notice{log: c.log, level: logrus.InfoLevel, message: "service is started again after its rest"})
		}
	case suture.EventServicePanic: // a service never panics into suture: see child.Serve
		t.reporter.post(notice{
			log:     t.config.Log.WithField(keySupervisor, e.ServiceName).WithField(keyError, e.PanicMsg),
			level:   logrus.ErrorLevel,
			message: "supervisor panicked",
		})
	}
}
