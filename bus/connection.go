package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// States of a connection, in [ConnectionStatus].
const (
	StateConnected    = "connected"
	StateReconnecting = "reconnecting" // also before the first time
	StateClosed       = "closed"       // also before Open
)

const (
	reconnectFirst = 50 * time.Millisecond
	reconnectMost  = 2 * time.Second
	// A socket whose other end does not answer is given up when two pings are
	// unanswered and the third is due: after nine seconds.
	pingEvery = 3 * time.Second
	pingsOut  = 2
	// writeTimeout bounds a write to an agent that does not read. The library holds
	// its lock meanwhile, so nothing else of this connection works.
	writeTimeout = 4 * time.Second
	// handshakeTimeout bounds the exchange after connect(2).
	handshakeTimeout = 2 * time.Second
	drainTimeout     = 2 * time.Second
	maxText          = 512 // bytes of an error that are kept
)

// ConnectionStatus is how one connection stands.
type ConnectionStatus struct {
	State      string
	Since      time.Time // in this state; zero if never opened
	Reconnects uint64    // times that it was connected again
	Attempts   uint64    // to connect, successful or not
	// LastError is the last thing that went wrong, printable; it is kept when the
	// connection is up again. Empty: nothing yet.
	LastError   string
	LastErrorAt time.Time
	// Violations counts what the broker's permissions refused.
	Violations uint64
	// Overflows counts how often messages came faster than they were taken and the
	// library dropped some.
	Overflows uint64
}

// connection is one NATS connection that is kept for ever. The library's callbacks
// only change what is guarded by mu; services look at that and wait for changes.
type connection struct {
	name   string
	dialer *dialer
	log    *logrus.Entry
	closed chan struct{} // closed by the library's last callback
	// leaving says that close was called.
	leaving atomic.Bool
	ping    time.Duration // pingEvery, but in tests
	write   time.Duration // writeTimeout, but in tests

	mu       sync.Mutex // guards everything below; never held over a call into the library
	nc       *nats.Conn // nil before open
	session  *session   // nil while not connected
	sessions uint64
	status   ConnectionStatus
	changed  signal
	onChange func() // of the link; must not block
}

// session is one connection from the handshake to its end.
type session struct {
	nc   *nats.Conn
	down chan struct{} // closed by the connection when it is lost
}

// bind returns a context that ends with ctx or with the session, whichever is
// first. The caller must call release.
func (s *session) bind(ctx context.Context) (bound context.Context, release func()) {
	bound, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.down:
			cancel()
		case <-bound.Done():
		}
	})
	return bound, func() { cancel(); watch.Wait() }
}

func (s *session) over() bool {
	select {
	case <-s.down:
		return true
	default:
		return false
	}
}

func newConnection(name string, cfg *LinkConfig, onChange func()) *connection {
	return &connection{
		name:     name,
		dialer:   &dialer{socket: cfg.Socket, secret: cfg.Secret},
		log:      cfg.Log.WithField("connection", name),
		closed:   make(chan struct{}),
		ping:     pingEvery,
		write:    writeTimeout,
		status:   ConnectionStatus{State: StateClosed},
		onChange: onChange,
	}
}

// open starts to connect and does not wait for it.
func (c *connection) open(id string) error {
	c.set(StateReconnecting, nil)
	nc, err := nats.Connect("nats://broker", c.options(id)...)
	if err != nil {
		return fmt.Errorf("open %s connection: %w", c.name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = nc
	c.changed.raise()
	return nil
}

func (c *connection) options(id string) []nats.Option {
	return []nats.Option{
		nats.Name("procmond " + id + " " + c.name),
		nats.SetCustomDialer(c.dialer), nats.SkipHostLookup(), nats.Timeout(handshakeTimeout),
		nats.IgnoreDiscoveredServers(), // there is one way to the agent
		nats.UserInfoHandler(func() (string, string) { return c.dialer.user(id) }),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(c.delay), nats.ReconnectBufSize(-1),
		nats.PingInterval(c.ping), nats.MaxPingsOutstanding(pingsOut),
		nats.FlusherTimeout(c.write), nats.ReconnectOnFlusherError(),
		nats.CustomInboxPrefix(rpc.InboxPrefix(id)), nats.NoEcho(), nats.DrainTimeout(drainTimeout),
		nats.ConnectHandler(c.up), nats.ReconnectHandler(c.up),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.lost(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.failed(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.failed(err) }),
		nats.ClosedHandler(func(*nats.Conn) { c.set(StateClosed, nil); close(c.closed) }),
	}
}

// delay is how long the library waits before its n-th attempt in a row. It asks
// in its own goroutine and without its lock, which makes this the place to learn
// why the attempt before failed: refused credentials reach no callback before the
// first success.
func (c *connection) delay(n int) time.Duration {
	c.mu.Lock()
	nc := c.nc
	c.mu.Unlock()
	if nc != nil {
		if err := nc.LastError(); err != nil {
			c.failed(err)
		}
	}
	if c.dialer.attempts.Load() == 1 {
		return 0 // after the postponed attempt
	}
	b := backoff{first: reconnectFirst, most: reconnectMost}
	return b.after(n)
}

// up is called by the library when a handshake is complete.
func (c *connection) up(nc *nats.Conn) {
	s := &session{nc: nc, down: make(chan struct{})}
	c.set(StateConnected, s)
	c.log.Info("Connected to the agent")
}

// lost is called by the library when a connection that was up has ended.
func (c *connection) lost(err error) {
	if err == nil {
		err = errors.New("the agent closed the connection")
	}
	if c.leaving.Load() { // it is we who end it
		return
	}
	c.failed(err)
	c.set(StateReconnecting, nil)
	c.log.WithField("cause", describe(err)).Warn("Lost the connection to the agent")
}

// set changes the state: s is its session, nil in all but StateConnected.
func (c *connection) set(state string, s *session) {
	c.mu.Lock()
	if c.session != nil {
		close(c.session.down)
	}
	c.session = s
	if s != nil {
		c.sessions++
	}
	if c.status.State != state || s != nil {
		c.status.State, c.status.Since = state, time.Now()
	}
	c.changed.raise()
	c.mu.Unlock()
	c.onChange()
}

// failed records an error that changes no state.
func (c *connection) failed(err error) {
	if errors.Is(err, errPostponed) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.LastError, c.status.LastErrorAt = describe(err), time.Now()
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		c.status.Violations++
	case errors.Is(err, nats.ErrSlowConsumer):
		c.status.Overflows++
	}
}

// look returns the session, nil while there is none, and a channel that is closed
// at the next change.
func (c *connection) look() (*session, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session, c.changed.wait()
}

// await blocks until there is a session.
func (c *connection) await(ctx context.Context, p Progress) (*session, error) {
	for {
		s, changed := c.look()
		if s != nil {
			return s, nil
		}
		if !rest(ctx, p, "waiting for the agent", beatEvery, changed) {
			return nil, ctx.Err()
		}
	}
}

// client is the library's connection, in whatever state; it blocks until there is
// one.
func (c *connection) client(ctx context.Context, p Progress) (*nats.Conn, error) {
	for {
		c.mu.Lock()
		nc, changed := c.nc, c.changed.wait()
		c.mu.Unlock()
		if nc != nil {
			return nc, nil
		}
		if !rest(ctx, p, "waiting for the link", beatEvery, changed) {
			return nil, ctx.Err()
		}
	}
}

func (c *connection) snapshot() ConnectionStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Reconnects = max(c.sessions, 1) - 1
	s.Attempts = max(c.dialer.attempts.Load(), 1) - 1
	return s
}

// close sends what is buffered and ends the connection; it waits until no callback
// runs any more, or ctx ends.
func (c *connection) close(ctx context.Context) error {
	c.mu.Lock()
	nc := c.nc
	c.mu.Unlock()
	if nc == nil {
		return nil
	}
	c.leaving.Store(true)
	if err := nc.Drain(); err != nil {
		nc.Close() // it is reconnecting, or closed
	}
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		nc.Close()
		return fmt.Errorf("close %s connection: %w", c.name, ctx.Err())
	}
}

var errNotConnected = errors.New("not connected")

// plain says in our words what the library says of a buffer that is not there.
func plain(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		return errNotConnected
	}
	return err
}

// describe is an error's text, printable and bounded.
func describe(err error) string { return clip(err.Error()) }

// clip is text that others chose, printable and bounded. What is clipped twice has
// its backslashes doubled, so errors carry it [cut] and are described at the end.
func clip(text string) string { return event.Text(cut(text)) }

func cut(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return text
}
