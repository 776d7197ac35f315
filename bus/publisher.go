package bus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

const (
	backoffFirst = 250 * time.Millisecond
	backoffMost  = 5 * time.Second
	// ackTimeout is how long the stream may take over a batch. After ten seconds
	// without a message the server abandons one that is not committed.
	ackTimeout = 10 * time.Second
	// persistEvery is how often the cursor is made durable while events flow.
	persistEvery = 200 * time.Millisecond
	// finalTimeout bounds the last write of the cursor.
	finalTimeout = 2 * time.Second
	// probeTimeout is for asking the store whether there is anything left.
	probeTimeout = 50 * time.Millisecond
)

// EventLog is the events of a store in their order. All of it may be called at any
// time; errors other than those of the context send the publisher back to Resume.
type EventLog interface {
	// Resume moves the cursor to where the receiver of events stands and returns
	// it with the epoch that it belongs to.
	Resume(ctx context.Context, r event.Receipt) (event.Epoch, uint64, error)
	// Wait blocks until the durable head is above after, and returns it, at once if
	// it is, even if ctx has ended.
	Wait(ctx context.Context, epoch event.Epoch, after uint64) (uint64, error)
	// Read calls fn with at most limit durable events from a sequence on, in order.
	// encoded is valid only during the call. It ends with fn's error, wrapped or not.
	Read(ctx context.Context, epoch event.Epoch, from uint64, limit int, fn func(seq uint64, encoded []byte) error) error
	// Ack makes the cursor durable: everything up to seq is delivered.
	Ack(ctx context.Context, epoch event.Epoch, seq uint64) error
}

// PublisherConfig is what a [Publisher] is made from.
type PublisherConfig struct {
	Link     *Link
	Log      EventLog
	HostID   string   // a token of the subjects
	Window   int      // events in a batch, 1 to [MaxWindow]; 0 is MaxWindow
	Progress Progress // may be nil
	Logger   *logrus.Entry
}

// Validate names every fault.
func (c *PublisherConfig) Validate() error {
	faults := []error{
		missing("link", c.Link == nil, "log of events", c.Log == nil, "logger", c.Logger == nil),
		event.ValidHostID(c.HostID),
	}
	if c.Window != 0 {
		faults = append(faults, validWindow(c.Window))
	}
	return errors.Join(faults...)
}

func validWindow(n int) error {
	if n < 1 || n > MaxWindow {
		return fmt.Errorf("window of %d events: want 1 to %d", n, MaxWindow)
	}
	return nil
}

// Publisher delivers the events of a store to the agent's stream, in order. It is a
// service; what it counts outlives Serve, where it stands does not: it asks.
type Publisher struct {
	cfg     PublisherConfig
	timing  publisherTiming
	window  atomic.Int64
	waiters drainers
	state   publisherState
}

// publisherTiming is what tests shorten.
type publisherTiming struct{ first, most, ack time.Duration }

// NewPublisher returns a service that is not started.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure publisher: %w", err)
	}
	cfg.Progress = watched(cfg.Progress)
	p := &Publisher{cfg: cfg, timing: publisherTiming{first: backoffFirst, most: backoffMost, ack: ackTimeout}}
	p.window.Store(int64(cfg.Window))
	if cfg.Window == 0 {
		p.window.Store(MaxWindow)
	}
	p.state.enter(DeliveryDisconnected)
	return p, nil
}

func (p *Publisher) String() string { return "publisher" }

// SetWindow changes the size of batches from the next one on.
func (p *Publisher) SetWindow(n int) error {
	if err := validWindow(n); err != nil {
		return err
	}
	p.window.Store(int64(n))
	return nil
}

// Status does not block.
func (p *Publisher) Status() PublisherStatus {
	s := p.state.snapshot()
	s.Window = int(p.window.Load())
	s.Draining = p.waiters.any()
	if s.Draining && (s.State == DeliveryIdle || s.State == DeliverySending) {
		s.State = DeliveryDraining
	}
	return s
}

// Serve delivers until ctx ends.
func (p *Publisher) Serve(ctx context.Context) error {
	d := &delivery{p: p, cur: new(batch), next: new(batch), limit: MaxWindow, delays: backoff{first: p.timing.first, most: p.timing.most}}
	defer p.state.enter(DeliveryDisconnected)
	for ctx.Err() == nil {
		p.state.enter(DeliveryDisconnected)
		s, err := p.cfg.Link.events.await(ctx, p.cfg.Progress)
		if err != nil {
			return err
		}
		if err := d.during(ctx, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Drain delivers what is there, until all of it is and the cursor is durable, or
// ctx ends; Serve does the work. It returns how many events the next run will have
// to deliver, as far as is known, and an error that says why there are any. Events
// that come meanwhile are delivered too; delivery goes on afterwards.
func (p *Publisher) Drain(ctx context.Context) (undelivered uint64, err error) {
	done := make(chan struct{}) // closed by Serve
	p.waiters.add(done)
	defer p.waiters.remove(done)
	select {
	case <-done:
		return 0, nil
	case <-ctx.Done():
	}
	s := p.state.snapshot()
	if s.Epoch.IsZero() {
		return 0, fmt.Errorf("drain: where delivery stands is not known: %w", p.whyNot(&s, ctx.Err()))
	}
	probe, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	head, err := p.cfg.Log.Wait(probe, s.Epoch, s.Delivered)
	switch {
	case isContext(err): // nothing came: there is nothing above
	case err != nil:
		return 0, fmt.Errorf("drain: how many events are left is not known (%w): %w", err, p.whyNot(&s, ctx.Err()))
	default:
		undelivered = head - min(s.Delivered, head)
	}
	return undelivered, fmt.Errorf("drain: %d events are left: %w", undelivered, p.whyNot(&s, ctx.Err()))
}

func (p *Publisher) whyNot(s *PublisherStatus, err error) error {
	if s.LastError == "" {
		return fmt.Errorf("delivery is %s: %w", s.State, err)
	}
	return fmt.Errorf("delivery is %s (last error: %s): %w", s.State, s.LastError, err)
}

// receipt turns the agent's word into one for the store. It refuses what can't be
// true whatever the store holds.
func receipt(last *rpc.Position) (event.Receipt, error) {
	if last.StreamCreated.IsZero() {
		return event.Receipt{}, fmt.Errorf("%w: the stream has no time of creation", errAnswer)
	}
	r := event.Receipt{Stream: last.StreamCreated.UTC().Format(time.RFC3339Nano), Seq: last.Seq}
	if last.Epoch == "" {
		if last.Seq != 0 {
			return event.Receipt{}, fmt.Errorf("%w: sequence %d of no epoch", errAnswer, last.Seq)
		}
		return r, nil
	}
	epoch, err := event.ParseEpoch(last.Epoch)
	if err != nil {
		return event.Receipt{}, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if last.Seq == 0 {
		return event.Receipt{}, fmt.Errorf("%w: epoch %s without a sequence", errAnswer, epoch)
	}
	r.Epoch = epoch
	return r, nil
}
