package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
)

// take serves one request. Requests that nobody waits for are not carried out.
func (c *Collector) take(r *request) {
	if r.abandoned() {
		return
	}
	c.hand = r
	value, err := c.handle(r.body)
	c.hand = nil
	if errors.Is(err, errLater) {
		c.waiters = append(c.waiters, r)
	} else {
		r.reply(value, err)
	}
}

// errLater says that a request is answered at the end of the shutdown.
var errLater = errors.New("answer comes later")

// handle carries out a request.
func (c *Collector) handle(body any) (any, error) {
	if c.cfg.Machine.State() == fsm.CollectorStopped {
		return nil, ErrStopped
	}
	switch body := body.(type) {
	case healthCheck:
		c.publish(c.doing())
		return judge(c.Status()), nil
	case Begin:
		return c.begin(body)
	case Adjust:
		return c.adjust(body)
	case Update:
		return c.update(body)
	case Shutdown:
		return nil, c.beginShutdown(body)
	default:
		return nil, fmt.Errorf("unknown request %T", body)
	}
}

// mayOrder refuses orders to a collector that ends.
func (c *Collector) mayOrder() error {
	if c.cfg.Machine.State() == fsm.CollectorShuttingDown {
		return ErrShuttingDown
	}
	return nil
}

func (c *Collector) begin(b Begin) (BeginResult, error) {
	if err := c.mayOrder(); err != nil {
		return BeginResult{}, err
	}
	changed := c.cfg.Machine.State() == fsm.CollectorWaitingForAgent
	if changed {
		c.run.coordinated = b.Coordinated
		if err := c.fire(fsm.CollectorBegin, b.Cause); err != nil {
			return BeginResult{}, err
		}
		c.nextScan = time.Now()
	}
	c.run.coordinated = c.run.coordinated || b.Coordinated
	return BeginResult{Changed: changed, Coordinated: c.run.coordinated}, nil
}

func (c *Collector) adjust(a Adjust) (Interval, error) {
	if err := c.mayOrder(); err != nil {
		return Interval{}, err
	}
	if err := a.Validate(); err != nil {
		return Interval{}, fmt.Errorf("adjust interval: %w", err)
	}
	c.setInterval(c.run.interval.adjusted(a))
	return c.run.interval, nil
}

// setInterval re-arms the timer: the next scan is due an interval after the
// begin of the last one.
func (c *Collector) setInterval(i Interval) {
	c.run.interval = i
	if !c.scanBegan.IsZero() {
		c.nextScan = c.scanBegan.Add(i.Current)
		c.makeUp()
	}
}

// beginShutdown notes that the collector is to end. A second request joins the
// first, and may bring the deadline forward.
func (c *Collector) beginShutdown(s Shutdown) error {
	if c.cfg.Machine.State() != fsm.CollectorShuttingDown {
		if err := c.fire(fsm.CollectorShutdown, s.Reason); err != nil {
			return err
		}
	}
	if first := c.run.shutdown; first == nil {
		c.run.shutdown = &s
	} else if !s.Deadline.IsZero() && (first.Deadline.IsZero() || s.Deadline.Before(first.Deadline)) {
		first.Deadline = s.Deadline
	}
	return errLater
}

// shutDown ends the collector as soon as nothing is in flight, or the deadline
// has passed. It returns Config.Done when that is done.
func (c *Collector) shutDown(ctx context.Context, now time.Time) error {
	s := c.run.shutdown
	if s == nil { // asked for by whoever owns the machine
		s = &Shutdown{Reason: c.cfg.Machine.Snapshot().Cause}
		c.run.shutdown = s
	}
	late := !s.Deadline.IsZero() && !s.Deadline.After(now)
	if c.job != nil && !late {
		return nil
	}
	result := c.lastWords(ctx, s)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := c.fire(fsm.CollectorFinish, s.Reason); err != nil {
		return fmt.Errorf("finish shutdown: %w", err)
	}
	for _, r := range c.waiters {
		r.reply(result, nil)
	}
	c.waiters = nil
	return c.cfg.Done
}

// lastWords writes what is still to be written. The end does not wait for a
// store that refuses: what is missing is said, and found by the next run.
func (c *Collector) lastWords(ctx context.Context, s *Shutdown) ShutdownResult {
	if c.job != nil {
		c.job.cancel()
	}
	abandoned := c.job != nil
	if c.table == nil {
		return ShutdownResult{Detail: "the last event is not durable: " + c.run.storeError}
	}
	lost, err := c.drain(ctx, s.Deadline)
	if err != nil {
		return ShutdownResult{Detail: "the last events are not durable: " + c.run.storeError}
	}
	c.closeLosses(time.Now())
	c.scanRecovered(time.Now())
	c.run.note(c.sensorEvent(event.Sensor{What: event.SensorStopped, Detail: "procmond stops: " + s.Reason + "."}))
	if err := c.flushNotes(ctx); err != nil {
		return ShutdownResult{Detail: "the last event is not durable: " + c.run.storeError}
	}
	if lost > 0 {
		return ShutdownResult{Detail: fmt.Sprintf("the store was too slow for the last %d kernel events", lost)}
	}
	if abandoned {
		return ShutdownResult{Detail: "a scan did not end in time and was abandoned"}
	}
	return ShutdownResult{Complete: true}
}
