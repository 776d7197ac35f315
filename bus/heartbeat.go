package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
)

// The interval between heartbeats: what is used if the agent does not mind, and
// what it may ask for.
const (
	DefaultHeartbeat = 10 * time.Second
	minHeartbeat     = 100 * time.Millisecond
	maxHeartbeat     = 10 * time.Minute
	heartbeatTimeout = 2 * time.Second // for the agent's server to take one
)

// HeartbeatConfig is what a [Heartbeat] is made from.
type HeartbeatConfig struct {
	Link     *Link
	Instance string // as in the registration
	// Lease is that of the [Registration].
	Lease func() (Lease, <-chan struct{})
	// Beat describes the collector; what the service knows itself is filled in. It
	// must not block.
	Beat func() rpc.Heartbeat
	// Totals are counters since the process started, which never decrease. It must
	// not block.
	Totals   func() rpc.Counters
	Progress Progress // may be nil
	Log      *logrus.Entry
}

// Validate names every fault.
func (c *HeartbeatConfig) Validate() error {
	return missing("link", c.Link == nil, "instance", c.Instance == "", "lease", c.Lease == nil,
		"description", c.Beat == nil, "totals", c.Totals == nil, "log", c.Log == nil)
}

// HeartbeatStatus is what a [Heartbeat] did since the process started.
type HeartbeatStatus struct {
	Sent     uint64
	Failed   uint64
	Sequence uint64        // of the last one in this registration
	Interval time.Duration // in force; 0 while not registered
	// LastError is printable; empty: none yet.
	LastSent, LastErrorAt time.Time
	LastError             string
}

// Heartbeat tells the agent at intervals how a registered collector is. It is a
// service; what it counts outlives Serve.
type Heartbeat struct {
	cfg HeartbeatConfig
	// urge is sent to by Soon, received from by Serve, never closed. Capacity 1: one
	// signal is enough.
	urge chan struct{}

	mu     sync.Mutex // guards everything below
	status HeartbeatStatus
	number uint64       // of the registration that status.Sequence counts in
	told   rpc.Counters // totals of the last heartbeat that was sent
}

// NewHeartbeat returns a service that is not started.
func NewHeartbeat(cfg HeartbeatConfig) (*Heartbeat, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure heartbeat: %w", err)
	}
	cfg.Progress = watched(cfg.Progress)
	return &Heartbeat{cfg: cfg, urge: make(chan struct{}, 1)}, nil
}

func (h *Heartbeat) String() string { return "heartbeat" }

// Status does not block.
func (h *Heartbeat) Status() HeartbeatStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

// Serve sends heartbeats while there is a lease, the first at once, until ctx ends.
func (h *Heartbeat) Serve(ctx context.Context) error {
	for ctx.Err() == nil {
		lease, changed := h.cfg.Lease()
		interval := h.begin(lease)
		if !lease.Registered {
			rest(ctx, h.cfg.Progress, "waiting for a registration", beatEvery, changed)
			continue
		}
		h.during(ctx, interval, changed)
	}
	return ctx.Err()
}

// begin takes note of the lease and returns the interval that it asks for.
func (h *Heartbeat) begin(lease Lease) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status.Interval = 0
	if !lease.Registered {
		return 0
	}
	if lease.Number != h.number {
		h.number, h.status.Sequence = lease.Number, 0
	}
	h.status.Interval = DefaultHeartbeat
	if lease.Interval > 0 {
		h.status.Interval = min(max(lease.Interval, minHeartbeat), maxHeartbeat)
	}
	return h.status.Interval
}

// during sends until the lease changes.
func (h *Heartbeat) during(ctx context.Context, interval time.Duration, changed <-chan struct{}) {
	for {
		h.cfg.Progress.Beat("sending a heartbeat")
		began := time.Now()
		if err := h.send(ctx); err != nil && ctx.Err() == nil {
			h.failed(err)
		}
		if !h.pause(ctx, max(interval-time.Since(began), 0), changed) {
			return
		}
	}
}

// pause waits until the next heartbeat is due or wanted. It is false if the lease has
// changed or ctx has ended.
func (h *Heartbeat) pause(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	due := time.NewTimer(d)
	defer due.Stop()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		h.cfg.Progress.Beat("waiting for the next heartbeat")
		select {
		case <-tick.C:
		case <-due.C:
			return ctx.Err() == nil
		case <-h.urge:
			return ctx.Err() == nil
		case <-changed:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// Soon makes the next heartbeat due now: there is news. It does not block.
func (h *Heartbeat) Soon() {
	select {
	case h.urge <- struct{}{}:
	default:
	}
}

// send publishes one heartbeat and waits until the server has read it.
func (h *Heartbeat) send(ctx context.Context) error {
	s, _ := h.cfg.Link.control.look()
	if s == nil {
		return fmt.Errorf("send heartbeat: %w", errNotConnected)
	}
	totals := h.cfg.Totals()
	beat := h.compose(&totals)
	encoded, err := json.Marshal(beat)
	if err != nil {
		return fmt.Errorf("encode heartbeat: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	if err := s.nc.Publish(rpc.HeartbeatSubject(beat.ID), encoded); err != nil {
		return fmt.Errorf("send heartbeat: %w", plain(err))
	}
	if err := s.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("send heartbeat: %w", plain(err))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status.Sent++
	h.status.LastSent = beat.At
	h.told = totals
	return nil
}

func (h *Heartbeat) compose(totals *rpc.Counters) *rpc.Heartbeat {
	beat := h.cfg.Beat()
	h.mu.Lock()
	defer h.mu.Unlock()
	beat.ID, beat.Instance = h.cfg.Link.ID(), h.cfg.Instance
	h.status.Sequence++ // also if it fails: whether the agent got it is not known then
	beat.Sequence, beat.At = h.status.Sequence, time.Now().UTC()
	beat.HeartbeatsSent, beat.HeartbeatsFailed = h.status.Sent, h.status.Failed
	beat.Since = rpc.Counters{
		Cycles:    totals.Cycles - min(h.told.Cycles, totals.Cycles),
		Events:    totals.Events - min(h.told.Events, totals.Events),
		Delivered: totals.Delivered - min(h.told.Delivered, totals.Delivered),
		Restarts:  totals.Restarts - min(h.told.Restarts, totals.Restarts),
	}
	if beat.Reasons == nil {
		beat.Reasons = []string{}
	}
	return &beat
}

func (h *Heartbeat) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status.Failed++
	h.status.LastError, h.status.LastErrorAt = describe(err), time.Now()
	h.cfg.Log.WithField("cause", h.status.LastError).Debug("A heartbeat was not sent")
}
