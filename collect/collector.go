package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
)

const (
	// beatEvery bounds the time between two signs of life while nothing happens.
	beatEvery = 5 * time.Second
	// joinPatience is how long Serve waits at its end for a scan that was told
	// to stop.
	joinPatience = time.Second
)

// Collector is the actor; see the package comment.
type Collector struct {
	cfg Config
	run *run // in the mailbox

	// What follows belongs to one Serve.
	table     *table      // nil while it is not loaded
	epoch     event.Epoch // of the store that table, or what comes before it, is of
	snapshot  *Snapshot
	known     []entry // the copy of the table that the job in flight has; kept for its memory
	found     differences
	job       *job      // the one in flight, if this Serve started it
	hashes    bool      // the hasher has called
	full      bool      // the next scan must report everything
	recovered bool      // the next comparison is with a table that this Serve did not make
	watching  time.Time // since when this run watches, for the source of starts
	before    time.Time // begin of the last good scan
	asOf      time.Time // when the table was complete, as the store has it
	scanBegan time.Time // of the scan in flight, or the last one
	nextScan  time.Time
	retryAt   time.Time // when a store out of service is tried again
	untrimmed int       // events made since memory was given back

	hand    *request   // being served
	waiters []*request // for the end of the shutdown
}

// New makes a collector. The error names every fault of cfg.
func New(cfg Config) (*Collector, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure collector: %w", err)
	}
	return &Collector{cfg: cfg, run: &cfg.Mailbox.run}, nil
}

func (c *Collector) String() string { return "collector" }

// Status is what the collector published last. It never waits.
func (c *Collector) Status() Status { return c.cfg.Mailbox.Status() }

// Serve runs the actor until ctx ends, something fails, or the collector has
// shut down, which is Config.Done. After a failure it may be called again, with
// no other Serve on the same mailbox at the same time.
func (c *Collector) Serve(ctx context.Context) error {
	c.reset()
	ctx, cancel := context.WithCancel(ctx)
	defer c.leave()
	defer cancel()
	return c.loop(ctx)
}

// reset makes the state of an actor that knows nothing.
func (c *Collector) reset() {
	now := time.Now()
	c.run.enter(&c.cfg, now)
	c.table, c.snapshot, c.known, c.job = nil, nil, nil, nil
	c.watching = c.run.began
	c.retryAt, c.nextScan = now, now
	c.hand, c.waiters = nil, nil
	c.applyPending()
}

// leave runs at the end of Serve, also when it panics.
func (c *Collector) leave() {
	if c.hand != nil {
		c.hand.reply(nil, ErrRestarted)
	}
	for _, r := range c.waiters {
		r.reply(nil, ErrRestarted)
	}
	c.hand, c.waiters = nil, nil
	c.join()
	if c.cfg.Machine.State() == fsm.CollectorStopped {
		c.publish(activityStopped)
		c.cfg.Mailbox.Close()
		return
	}
	c.publish(activityDown)
}

// join waits for the job in flight. One that hangs is left behind: the next
// Serve does not scan until it has returned.
func (c *Collector) join() {
	j := c.run.inflight
	if j == nil {
		return
	}
	j.cancel()
	patience := time.NewTimer(joinPatience)
	defer patience.Stop()
	select {
	case <-j.done:
		c.run.endJob()
	case <-patience.C:
		c.cfg.Log.WithField("running_for", time.Since(j.began).String()).Error("Scan hangs and is left behind")
	}
}

// loop is the actor.
func (c *Collector) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := c.step(ctx); err != nil && !errors.Is(err, errOutage) {
			return err
		}
		c.publish(c.doing())
		c.beat()
		if err := c.wait(ctx, timer); err != nil && !errors.Is(err, errOutage) {
			return err
		}
	}
}

// wait returns when there is something to do. It reads events meanwhile, and goes on
// if there are none: that is nearly always so, and must cost nothing. In a storm both
// requests and events always wait: each round takes one request and reads once.
func (c *Collector) wait(ctx context.Context, timer *time.Timer) error {
	due := time.Now().Add(c.untilDue())
	select {
	case r := <-c.cfg.Mailbox.requests:
		c.take(r)
		due = time.Time{}
	default:
	}
	for {
		timer.Reset(time.Until(c.sooner(due)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-c.cfg.Mailbox.requests:
			c.take(r)
			return nil
		case result := <-c.results():
			return c.endJob(ctx, result)
		case <-c.hashesReady():
			c.hashes = true
			return nil
		case <-c.cfg.Available:
			c.retryAt = time.Now()
			return nil
		case <-c.filling():
			c.called()
		case <-timer.C:
		}
		now := time.Now()
		if c.listens() && !c.run.heard.next.After(now) && c.hear(now) || !due.After(now) {
			return nil
		}
	}
}

// sooner is when to read events, if that is before due.
func (c *Collector) sooner(due time.Time) time.Time {
	if next := c.run.heard.next; c.listens() && next.Before(due) {
		return next
	}
	return due
}

// step does what is due.
func (c *Collector) step(ctx context.Context) error {
	state := c.cfg.Machine.State()
	if state == fsm.CollectorStopped {
		return c.cfg.Done
	}
	now := time.Now()
	if c.table == nil && c.job == nil && !c.retryAt.After(now) {
		err := c.load(ctx)
		if err != nil && !errors.Is(err, errOutage) && state != fsm.CollectorShuttingDown {
			return err // at the end it would only be in the way
		}
	}
	if state == fsm.CollectorShuttingDown {
		return c.shutDown(ctx, now)
	}
	if err := c.flushNotes(ctx); err != nil {
		return err
	}
	if err := c.listen(ctx, now); err != nil {
		return err
	}
	if c.table == nil || c.run.inflight != nil || state != fsm.CollectorRunning {
		return nil
	}
	if c.hashes {
		if err := c.takeHashes(ctx, nil); err != nil {
			return err
		}
	}
	if due, _ := c.table.dueHeld(now); len(due) > 0 {
		c.startJob(ctx, due)
	} else if !c.nextScan.After(now) {
		c.closeLosses(now)
		if err := c.flushNotes(ctx); err != nil {
			return err
		}
		c.startScan(ctx)
	}
	return nil
}

// untilDue is how long the actor may sleep.
func (c *Collector) untilDue() time.Duration {
	now := time.Now()
	until := beatEvery
	sooner := func(at time.Time) { until = min(until, max(0, at.Sub(now))) }
	if c.table == nil {
		if c.job == nil {
			sooner(c.retryAt)
		}
	} else if c.run.inflight == nil && c.cfg.Machine.State() == fsm.CollectorRunning {
		sooner(c.nextScan)
		if _, next := c.table.dueHeld(now); !next.IsZero() {
			sooner(next)
		}
	}
	if s := c.run.shutdown; s != nil && !s.Deadline.IsZero() {
		sooner(s.Deadline)
	}
	return until
}

// results is where the job in flight reports, or nil. A job that an earlier
// actor left behind reports there too.
func (c *Collector) results() <-chan jobResult {
	if c.run.inflight == nil {
		return nil
	}
	return c.run.inflight.done
}

// doing names what the actor waits for.
func (c *Collector) doing() string {
	switch {
	case c.run.inflight == nil:
		return activityIdle
	case c.run.inflight.probes != nil:
		return activityProbe
	default:
		return activityScan
	}
}

// stuck reports whether a job is past its deadline and has not returned.
func (c *Collector) stuck(now time.Time) bool {
	return c.run.inflight != nil && now.Sub(c.run.inflight.began) > c.cfg.ScanDeadline
}

// beat shows that the actor moves, unless its scan hangs.
func (c *Collector) beat() {
	if !c.stuck(time.Now()) {
		c.cfg.Progress.Beat(c.doing())
	}
}

// turnTo publishes what the actor does now, before it does it.
func (c *Collector) turnTo(what string) {
	if last := c.cfg.Mailbox.activity.Load(); last.name != what {
		c.cfg.Mailbox.activity.Store(&activity{name: what, since: time.Now()})
	}
	if !c.stuck(time.Now()) { // what else it does must not hide that
		c.cfg.Progress.Beat(what)
	}
}

// fire moves the machine and tells.
func (c *Collector) fire(e fsm.CollectorEvent, cause string) error {
	t, err := c.cfg.Machine.Fire(e, cause)
	if err != nil {
		return err
	}
	c.cfg.Log.WithField("cause", cause).Infof("Collector is %s", t.To)
	c.turnTo(activityJournal)
	c.cfg.OnTransition(t)
	return nil
}
