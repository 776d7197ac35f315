package tree

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/thejerf/suture/v4"
)

// errFailed is all that suture learns of a failure. The service's own error
// stays out of its reach: wrapped in it could be an error that suture obeys.
var errFailed = errors.New("service failed")

// child stands between suture and one service. It records every start and end
// before suture sees it, and is what suture starts.
type child struct {
	path     string
	service  Service
	progress *Progress
	deadline time.Duration // 0: not watched
	timeout  time.Duration // of a Stop that names none
	log      *logrus.Entry
	notify   func(notice) // hands over to the reporter; never blocks

	mu       sync.Mutex         // guards everything below; held for moments only
	status   Status             // its State is never "hung" for a late beat: that is found on reading
	stopping bool               // Serve is never entered again
	cancel   context.CancelFunc // ends the context of the call in progress
	idle     chan struct{}      // nil unless a call is in progress; closed by that call when it is over
}

// String is the name that suture uses.
func (c *child) String() string { return c.path }

// Serve calls the service once. It is called by suture only.
func (c *child) Serve(ctx context.Context) (err error) {
	ctx, ok := c.enter(ctx)
	if !ok {
		return suture.ErrDoNotRestart
	}
	c.log.Debug("service started")
	result := outcome{end: endExited}
	defer func() {
		if v := recover(); v != nil {
			result = panicked(v)
		}
		err = c.leave(ctx, result)
	}()
	result = judge(ctx, c.service.Serve(ctx))
	return nil // leave says what
}

// enter records a start. It is false if the service was stopped while suture
// was about to start it.
func (c *child) enter(ctx context.Context) (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return ctx, false
	}
	ctx, c.cancel = context.WithCancel(ctx)
	c.idle = make(chan struct{})
	if c.status.Starts > 0 {
		c.status.Restarts++
	}
	c.status.Starts++
	c.status.BackoffUntil = time.Time{}
	c.progress.Beat("starting") // a fresh deadline
	c.set(StateRunning)
	return ctx, true
}

// leave records an end and says to suture what follows.
func (c *child) leave(ctx context.Context, o outcome) error {
	defer c.release()
	starts := c.record(ctx, o)
	c.report(o, starts)
	if starts {
		return errFailed
	}
	return suture.ErrDoNotRestart
}

// record is false if the service is not to be started again.
func (c *child) record(ctx context.Context, o outcome) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if text := o.text(); text != "" {
		c.status.LastError, c.status.LastErrorAt = text, now
	}
	if o.failure() {
		c.status.Failures++
	}
	if o.end == endPanicked {
		c.status.Panics++
		c.status.LastPanic = o.panicText()
	}
	switch {
	case o.end == endDone:
		c.set(StateDone)
	case c.stopping || ctx.Err() != nil:
		c.set(StateStopped)
	default:
		c.set(StateRestarting)
		return true
	}
	return false
}

// report logs an end. No lock is held: a log may block.
func (c *child) report(o outcome, again bool) {
	log := c.log
	if text := o.text(); text != "" {
		log = log.WithField(keyError, text)
	}
	switch {
	case o.end == endPanicked:
		log.WithField(keyPlace, o.place).WithField(keyRestart, again).Error("service panicked")
		log.WithField(keyStack, o.stack).Debug("stack of the panic")
	case o.end == endDone:
		log.Info("service is done")
	case again:
		log.Warn("service failed and is started again")
	case o.text() != "":
		log.Warn("service stopped with an error")
	default:
		log.Debug("service stopped")
	}
}

// release lets go of the context and of those who wait for the end.
func (c *child) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.State == StateHung { // given up in the service's log, not in the service
		c.set(StateStopped)
	}
	c.cancel()
	close(c.idle)
	c.idle = nil
}

// stop tells the service to end and never to be started again. The channel is
// closed when the call in progress is over; it is nil if there is none.
func (c *child) stop() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	c.status.BackoffUntil = time.Time{}
	if c.idle == nil {
		if c.status.State != StateDone {
			c.set(StateStopped)
		}
		return nil
	}
	switch c.status.State {
	case StateRunning:
		c.set(StateStopping)
	case StateRestarting: // out of the service, about to leave Serve
		c.set(StateStopped)
	}
	c.cancel()
	return c.idle
}

// await waits for a channel of stop, for timeout at most.
func (c *child) await(idle <-chan struct{}, timeout time.Duration) error {
	if idle == nil {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-idle:
		return nil
	case <-timer.C:
	}
	if !c.giveUp() {
		return nil
	}
	_, activity := c.progress.last()
	c.notify(notice{ // not logged here: a log that stands still must not make Stop late
		log:     c.log.WithField(keyActivity, activity),
		level:   logrus.ErrorLevel,
		message: "service did not stop in time",
	})
	return fmt.Errorf("stop %s (last activity: %s): %w", c.path, activity, ErrUnstopped)
}

// giveUp is false if the call in progress is over after all.
func (c *child) giveUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		return false
	}
	c.set(StateHung)
	return true
}

// Jitter implements suture.Jitter: the one place where suture tells how long a
// service rests. It runs on the loop of the service's supervisor.
func (c *child) Jitter(least time.Duration) time.Duration {
	rest := least + rand.N(least/2+1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Backoffs++
	if c.status.State == StateRestarting {
		c.set(StateBackoff)
		c.status.BackoffUntil = c.status.Since.Add(rest)
		c.notify(backoff(c.log, c.status.Failures, c.status.BackoffUntil))
	}
	return rest
}

// set needs c.mu.
func (c *child) set(s State) {
	if c.status.State != s {
		c.status.State, c.status.Since = s, time.Now()
	}
}

// resting reports whether the service is in back-off.
func (c *child) resting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.State == StateBackoff
}

// read is the status with what beats say. late means hung for want of a beat,
// as against not stopped in time.
func (c *child) read() (s Status, late bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s = c.status
	if s.State != StateRunning && s.State != StateStopping && s.State != StateHung {
		return s, false
	}
	at, activity := c.progress.last()
	s.Activity, s.BeatAge = activity, time.Since(at)
	if s.State == StateRunning && c.deadline > 0 && s.BeatAge > c.deadline {
		s.State, s.Since = StateHung, at.Add(c.deadline)
		return s, true
	}
	return s, false
}
