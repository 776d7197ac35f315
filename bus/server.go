package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
)

const (
	maxRequests   = 10              // carried out at once
	maxPending    = 256             // arrived and not looked at; more are dropped and counted as overflows of the connection
	longestHandle = 5 * time.Minute // of any request, whatever its deadline
	stopGrace     = 5 * time.Second // for what is carried out when the server is stopped
	crashGrace    = time.Second     // and when a handler panicked
	replyTimeout  = 2 * time.Second // for the last answers to be sent
)

// Why a handler's context ends before its deadline.
var (
	errStopping = errors.New("the collector stops answering")
	errCrashed  = errors.New("another request has crashed the service")
)

// ServerConfig is what a [Server] is made from.
type ServerConfig struct {
	Link *Link
	// Operations answer requests on [rpc.CollectorSubject]. OpBeginMonitoring, if
	// there is one, is also carried out when it comes on [rpc.SubjectLifecycle].
	Operations map[rpc.Operation]Operation
	Progress   Progress // may be nil
	Log        *logrus.Entry
}

// Validate names every fault.
func (c *ServerConfig) Validate() error {
	return missing("link", c.Link == nil, "operations", len(c.Operations) == 0, "log", c.Log == nil,
		"name of an operation", c.Operations[""] != nil)
}

// Server answers requests. It is a service; its statistics outlive Serve.
type Server struct {
	cfg    ServerConfig
	grace  time.Duration // stopGrace, but in tests
	stats  *tally
	silent atomic.Uint64
	// dropped counts what earlier calls of Serve, and this one so far, have dropped.
	dropped atomic.Uint64
}

// NewServer returns a service that is not started.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure RPC server: %w", err)
	}
	cfg.Progress = watched(cfg.Progress)
	cfg.Operations = maps.Clone(cfg.Operations)
	return &Server{cfg: cfg, grace: stopGrace, stats: newTally(slices.Collect(maps.Keys(cfg.Operations)))}, nil
}

func (s *Server) String() string { return "RPC server" }

// Stats counts requests by operation, ordered; those that could not be read, or for
// operations that are not offered, stand under "".
func (s *Server) Stats() []rpc.OperationStats { return s.stats.stats() }

// Unanswerable counts requests that were ignored because they named no inbox for
// the answer, or none of those that the broker grants to whoever asks. They count
// as errors of "" too.
func (s *Server) Unanswerable() uint64 { return s.silent.Load() }

// Dropped counts messages that came faster than they could be refused. It is up to
// date within some seconds.
func (s *Server) Dropped() uint64 { return s.dropped.Load() }

// Serve answers until ctx ends, then finishes what it has begun. It panics if a
// handler did, once the answers to the others are sent.
func (s *Server) Serve(ctx context.Context) error {
	nc, err := s.cfg.Link.control.client(ctx, s.cfg.Progress)
	if err != nil {
		return err
	}
	inbox := make(chan *nats.Msg, maxPending) // the library sends and never closes
	run := newServerRun(ctx, s, nc)
	defer run.finish(inbox)
	for _, subject := range []string{rpc.CollectorSubject(s.cfg.Link.ID()), rpc.SubjectLifecycle} {
		sub, err := nc.ChanSubscribe(subject, inbox)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", subject, err)
		}
		run.subs = append(run.subs, sub)
	}
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		s.cfg.Progress.Beat("waiting for requests")
		select {
		case msg := <-inbox:
			run.take(msg, nil)
		case <-tick.C:
			run.countDropped()
		case p := <-run.crashed:
			run.crashed <- p // for finish, which panics
			return errCrashed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serverRun is one call of Serve.
type serverRun struct {
	s       *Server
	nc      *nats.Conn
	subs    []*nats.Subscription
	lost    uint64                                       // dropped messages of subs that are counted
	slots   chan struct{}                                // holds one value for each request that is carried out; never closed
	start   func() (context.Context, context.CancelFunc) // makes the context of a request
	end     context.CancelCauseFunc                      // ends all of them
	crashed chan handlerPanic                            // takes one from each slot and one put back, without blocking; never closed
	all     sync.WaitGroup                               // requests that are carried out
}

func newServerRun(ctx context.Context, s *Server, nc *nats.Conn) *serverRun {
	base, end := context.WithCancelCause(context.WithoutCancel(ctx))
	return &serverRun{
		s: s, nc: nc, end: end,
		start:   func() (context.Context, context.CancelFunc) { return context.WithCancel(base) },
		slots:   make(chan struct{}, maxRequests),
		crashed: make(chan handlerPanic, maxRequests+1),
	}
}

// take begins to carry out a message, or refuses it; a sound one is refused with
// down if that is not nil.
func (r *serverRun) take(msg *nats.Msg, down *rpc.Error) {
	c := &call{run: r, msg: msg, began: time.Now(), order: msg.Subject == rpc.SubjectLifecycle}
	request, refusal := decodeRequest(msg.Data)
	c.request = request
	switch {
	case !c.order && !r.answerable(msg.Reply):
		r.s.silent.Add(1)
		c.request.Operation = ""
		c.msg.Reply = ""
		refusal = malformed("there is no inbox for the answer")
	case refusal != nil:
		c.request.Operation = ""
	case c.order && request.Operation != rpc.OpBeginMonitoring:
		c.request.Operation = ""
		refusal = malformed("only BeginMonitoring is said to all")
	case r.s.cfg.Operations[request.Operation] == nil:
		refusal = &rpc.Error{Code: rpc.CodeUnknownOperation, Message: fmt.Sprintf("there is no operation %q", clip(string(request.Operation)))}
	default:
		refusal = cmp.Or(checkDeadline(&request, !c.order, c.began), down)
	}
	if refusal != nil {
		c.answer(nil, refusal)
		return
	}
	select {
	case r.slots <- struct{}{}:
		r.all.Go(c.carryOut)
	default:
		c.answer(nil, &rpc.Error{Code: rpc.CodeBusy, Message: fmt.Sprintf("%d requests are being carried out", maxRequests)})
	}
}

// answerable reports whether an answer may be sent to subject. Without this, whoever
// may ask could have the collector publish into its own stream, or answer itself.
func (r *serverRun) answerable(subject string) bool {
	return strings.HasPrefix(subject, "_INBOX") && !strings.HasPrefix(subject, rpc.InboxPrefix(r.s.cfg.Link.ID())+".")
}

// finish takes no more requests, waits for those that are carried out, sends what
// is buffered, and passes on the panic of a handler.
func (r *serverRun) finish(inbox <-chan *nats.Msg) {
	grace, cause := r.s.grace, errStopping
	crash, crashed := r.crash()
	if crashed {
		grace, cause = min(crashGrace, grace), errCrashed
	}
	r.s.cfg.Progress.Beat("finishing requests")
	r.countDropped()
	for _, sub := range r.subs {
		_ = sub.Unsubscribe() // fails only if the link is closed
	}
	r.refuse(inbox, cause)
	stop := time.AfterFunc(grace, func() { r.end(cause) })
	r.all.Wait()
	stop.Stop()
	r.end(cause)
	r.flush()
	if !crashed {
		crash, crashed = r.crash() // as it was stopped
	}
	if crashed {
		panic(crash)
	}
}

// countDropped adds what the library has dropped since the last call.
func (r *serverRun) countDropped() {
	lost := uint64(0)
	for _, sub := range r.subs {
		if n, err := sub.Dropped(); err == nil && n > 0 {
			lost += uint64(n)
		}
	}
	if lost > r.lost {
		r.s.dropped.Add(lost - r.lost)
		r.lost = lost
	}
}

// crash is the panic of a handler, if there was one.
func (r *serverRun) crash() (handlerPanic, bool) {
	select {
	case p := <-r.crashed:
		return p, true
	default:
		return handlerPanic{}, false
	}
}

// refuse answers what has arrived and was not looked at.
func (r *serverRun) refuse(inbox <-chan *nats.Msg, cause error) {
	ctx, end := context.WithCancelCause(context.Background())
	end(cause)
	for {
		select {
		case msg := <-inbox:
			r.take(msg, interruption(ctx))
		default:
			return
		}
	}
}

// flush sends the last answers; without a connection there is nobody to send to.
func (r *serverRun) flush() {
	s, _ := r.s.cfg.Link.control.look()
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), replyTimeout)
	defer cancel()
	ctx, release := s.bind(ctx)
	defer release()
	_ = r.nc.FlushWithContext(ctx) // whoever asked sees that there is no answer
}
