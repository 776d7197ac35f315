package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// ErrDown says that no server runs at the moment.
var ErrDown = errors.New("broker is not running")

// agentUser is the agent itself. It is no user that can be enrolled; its password is
// made anew in each process and never leaves it.
const agentUser = "agent.self"

// agentInbox begins the agent's own inboxes, which no other user may subscribe to.
const agentInbox = "_INBOX_AGENT"

// Broker is the NATS server of an agent with all that surrounds it. Its methods are
// safe for concurrent use.
type Broker struct {
	cfg      Config
	password string // of agentUser
	services []*Service
	refusals *refusals
	// slots holds one value for each connection over the socket, tcpSlots for each
	// over TCP; never closed.
	slots, tcpSlots chan struct{}
	// turnedAway holds one value for each connection that is told why it may not
	// come in; never closed.
	turnedAway chan struct{}
	// running is the present server, nil while there is none. The server service
	// sets it.
	running atomic.Pointer[run]
	// started wakes the stream service: the server service puts a value there when a
	// server runs. One is enough, as it looks at running itself; never closed.
	started chan struct{}
	purged  atomic.Uint64 // events
	// listening is whether the Unix socket is there and accepts; the socket service
	// sets it.
	listening atomic.Bool

	positions sync.Mutex // held while positions are recorded, so that an older one never follows a newer one

	reporting sync.Mutex // guards what follows
	report    rpc.StreamReport
	unread    bool // nobody consumes, and that will be felt
}

// New returns a broker whose services are yet to be run.
func New(cfg Config) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure broker: %w", err)
	}
	cfg = cfg.withDefaults()
	b := &Broker{
		cfg: cfg, password: rand.Text(),
		refusals:   newRefusals(cfg.Log),
		slots:      make(chan struct{}, MaxConnections),
		tcpSlots:   make(chan struct{}, MaxListenerConnections),
		started:    make(chan struct{}, 1),
		turnedAway: make(chan struct{}, maxTurnedAway),
		report:     rpc.StreamReport{Name: rpc.Stream, MaxBytes: uint64(cfg.MaxBytes), MaxAgeS: cfg.MaxAge.Seconds()},
	}
	b.services = []*Service{{name: "server", serve: b.serveServer}, {name: "socket", serve: b.serveSocket}}
	if cfg.Listen != "" {
		b.services = append(b.services, &Service{name: "listener", serve: b.serveListener})
	}
	b.services = append(b.services, &Service{name: "stream", serve: b.serveStream})
	return b, nil
}

// Services are the parts of the broker, in the order in which they are best started
// and reverse to the order in which they are best stopped. They are the same at each
// call.
func (b *Broker) Services() []*Service { return b.services }

// Ready says whether a server runs, with its streams.
func (b *Broker) Ready() bool { return b.running.Load() != nil }

// Open says whether clients find a server behind the socket.
func (b *Broker) Open() bool { return b.listening.Load() && b.Ready() }

// InProcessConn opens a connection to the present server, for [nats.InProcessServer].
// It does not wait for one: without it is [ErrDown].
func (b *Broker) InProcessConn() (net.Conn, error) {
	r := b.running.Load()
	if r == nil {
		return nil, ErrDown
	}
	return r.srv.InProcessConn()
}

// Connect returns a connection of the agent, who may do everything. It lives through
// restarts of the server: while there is none it is reconnecting, even at first, and
// so Connect never waits. The caller closes it, best before the server stops.
func (b *Broker) Connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append([]nats.Option{
		nats.InProcessServer(b),
		nats.UserInfo(agentUser, b.password),
		nats.CustomInboxPrefix(agentInbox),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.IgnoreAuthErrorAbort(),
	}, opts...)...)
}

// reconnectWait is short because asking costs nothing: no network is involved.
const reconnectWait = 50 * time.Millisecond

// Refusals are the connections and messages that were turned away since New, by
// reason.
func (b *Broker) Refusals() []rpc.Refusal { return b.refusals.list() }

// Connected returns the server's numbers of a user's live connections.
func (b *Broker) Connected(user string) []uint64 {
	r := b.running.Load()
	if r == nil {
		return nil
	}
	all, err := r.srv.Connz(&server.ConnzOptions{Username: true, User: user, Limit: 2 * MaxConnections})
	if err != nil {
		return nil
	}
	var ids []uint64
	for _, c := range all.Conns {
		ids = append(ids, c.Cid)
	}
	return ids
}
