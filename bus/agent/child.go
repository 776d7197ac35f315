package agent

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/supervisor/tree"
)

// States of a child, see rpc.Child.
const (
	childWaiting = "waiting"
	childRunning = "running"
	childAdopted = "adopted"
	childBackoff = "backoff"
	childStopped = "stopped"
)

// Child is the service that keeps one collector running. The process, the count of
// its ends and the operator's word outlive a restart of the service.
//
// A collector of the id that an earlier agent left running is adopted: it is let run
// until it is gone. The id is known of it, the process is not ours, so that it is
// stopped by a message and never by a signal.
type Child struct {
	command  Command
	place    int // of the command, for the starter
	starter  Starter
	timing   Timing
	survivor bool // one may be there from an earlier agent
	log      *logrus.Entry
	progress *tree.Progress
	// ready reports whether there is a broker to register at.
	ready func() bool
	// present reports whether a collector of the id is registered and connected.
	present func() bool
	// abandoned reports whether the collector is to go on without us.
	abandoned func() bool
	// ask asks the collector of the id to shut down, within ctx.
	ask func(ctx context.Context) error

	// orders wakes Serve when held or killed has changed: sent to by hold and
	// terminate, never closed; one value says it all.
	orders chan struct{}

	mu      sync.Mutex // guards everything below
	report  rpc.Child
	process Process // the one that runs, or whose end was not seen yet; nil if none
	pause   time.Duration
	looked  bool // for one that was there before
	held    bool // by the operator: not started again
	ended   bool // by the operator: to be stopped by a signal
}

func newChild(a *Agent, place int) *Child {
	command := a.cfg.Children[place]
	c := &Child{
		command: command, place: place, starter: a.cfg.Starter, timing: a.cfg.Timing, survivor: a.cfg.Survivors,
		log: a.log.WithField("id", command.ID), progress: new(tree.Progress),
		orders: make(chan struct{}, 1),
	}
	c.report = rpc.Child{Command: command.String(), State: childWaiting}
	c.present = func() bool {
		return a.collectors.isRegistered(command.ID) && len(a.cfg.Broker.Connected(command.ID)) > 0
	}
	c.ready, c.abandoned = a.cfg.Broker.Ready, a.abandoned.Load
	c.ask = func(ctx context.Context) error { return a.askToStop(ctx, command.ID) }
	return c
}

// String is the id.
func (c *Child) String() string { return c.command.ID }

// Serve keeps the collector running until ctx ends, and then stops it.
func (c *Child) Serve(ctx context.Context) error {
	if p := c.starter.Running(c.place); p != nil && c.current() == nil { // started by a predecessor
		c.took(p)
		c.log.WithField("pid", p.PID()).Info("Collector runs already")
	}
	for ctx.Err() == nil {
		c.progress.Beat("watch")
		if p := c.current(); p != nil {
			c.watch(ctx, p)
			continue
		}
		if c.await(ctx) {
			c.start()
		}
	}
	c.stop()
	return nil
}

func (c *Child) current() Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// await waits for the moment to start a process. It is false if there is none: ctx
// has ended, or things have changed and are to be looked at anew.
func (c *Child) await(ctx context.Context) bool {
	until, latest := c.nextStart()
	tick := time.NewTicker(c.timing.Tick)
	defer tick.Stop()
	for {
		c.progress.Beat("wait")
		switch {
		case ctx.Err() != nil:
			return false
		case c.isHeld():
			c.set(childStopped, nil)
		case c.present():
			c.adopt(ctx)
			return false
		case !time.Now().Before(latest), !time.Now().Before(until) && c.ready():
			return true
		}
		select {
		case <-tick.C:
		case <-c.orders:
		case <-ctx.Done():
		}
	}
}

// nextStart is when a process is to be started: at until, or at latest if there is no
// broker by then. At first, one that an earlier agent left has time to make itself
// known.
func (c *Child) nextStart() (until, latest time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.report.RetryAt != nil:
		return *c.report.RetryAt, *c.report.RetryAt
	case c.looked:
		return now, now
	}
	c.looked = true
	if until = now; c.survivor {
		until = now.Add(c.timing.Adopt)
	}
	return until, now.Add(c.timing.Adopt)
}

// adopt lets a collector that is not ours run until it has been away for a while.
func (c *Child) adopt(ctx context.Context) {
	c.set(childAdopted, nil)
	c.log.Info("A collector of this id runs already and is adopted")
	tick := time.NewTicker(c.timing.Tick)
	defer tick.Stop()
	seen := time.Now()
	for time.Since(seen) < c.timing.Adopt {
		c.progress.Beat("watch")
		if c.present() {
			seen = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	c.log.Info("The adopted collector has gone")
	c.set(childWaiting, nil)
}

// start starts the process, or makes the failure an end like any other.
func (c *Child) start() {
	p, err := c.starter.Start(c.place)
	if err != nil {
		c.end(Exit{Code: -1, Text: err.Error()}, time.Now())
		return
	}
	c.took(p)
	c.log.WithField("pid", p.PID()).Info("Collector started")
}

// took makes a process the one that runs.
func (c *Child) took(p Process) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.ended, c.looked = p, false, true
	c.report.State, c.report.PID, c.report.StartedAt, c.report.RetryAt = childRunning, p.PID(), &now, nil
}

// watch waits for the end of the process, or of ctx.
func (c *Child) watch(ctx context.Context, p Process) {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	var late, kill <-chan time.Time
	for {
		c.progress.Beat("watch")
		select {
		case <-p.Exited():
			c.over(p)
			return
		case <-ctx.Done():
			return
		case <-c.orders:
			if c.isHeld() && late == nil { // it was asked to go
				late = time.After(c.timing.Stop)
			}
			if c.isEnded() && kill == nil {
				c.signal(p, syscall.SIGTERM)
				kill = time.After(c.timing.Stop)
			}
		case <-late:
			c.terminate()
		case <-kill:
			c.kill(p)
		case <-beat.C:
		}
	}
}

// stop ends what runs, in order: asked first, killed if that takes too long.
func (c *Child) stop() {
	if c.abandoned() {
		return
	}
	p := c.current()
	if p == nil {
		if c.present() { // adopted, or about to be
			c.stopAdopted()
		}
		c.set(childStopped, nil)
		return
	}
	c.signal(p, syscall.SIGTERM)
	kill := time.NewTimer(c.timing.Stop)
	defer kill.Stop()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		c.progress.Beat("stop")
		select {
		case <-p.Exited():
			c.stopped(p.Exit())
			return
		case <-kill.C:
			c.kill(p)
		case <-beat.C:
		}
	}
}

// stopAdopted asks a collector that is not ours to go, and waits for it.
func (c *Child) stopAdopted() {
	ctx, cancel := context.WithTimeout(context.Background(), c.timing.Stop)
	defer cancel()
	if err := c.ask(ctx); err != nil {
		c.log.WithError(err).Warn("The adopted collector could not be stopped and runs on: it stores what it sees, and delivers it to the next agent")
		return
	}
	tick := time.NewTicker(c.timing.Tick)
	defer tick.Stop()
	for c.present() {
		c.progress.Beat("stop")
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.log.Warn("The adopted collector did not stop in time and runs on")
			return
		}
	}
}

func (c *Child) kill(p Process) {
	c.log.WithField("pid", p.PID()).Warnf("Collector did not stop within %s and is killed: its next start recovers", c.timing.Stop)
	c.signal(p, syscall.SIGKILL)
}

func (c *Child) signal(p Process, s syscall.Signal) {
	if err := p.Signal(s); err != nil {
		c.log.WithError(err).Warn("Collector can not be signalled")
	}
}

// stopped records an end that we wanted.
func (c *Child) stopped(e Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone(e)
	c.log.WithField("exit", e.Text).Info("Collector stopped")
}

// gone records that there is no process any more; it needs c.mu.
func (c *Child) gone(e Exit) {
	c.process, c.ended = nil, false
	c.report.State, c.report.PID, c.report.StartedAt, c.report.RetryAt = childStopped, 0, nil, nil
	c.report.LastExit = e.Text + because(meaningOf(e.Code).what)
}

// over records the end of the process.
func (c *Child) over(p Process) {
	c.mu.Lock()
	started := c.report.StartedAt
	c.mu.Unlock()
	c.end(p.Exit(), *started)
}

// end records how a process ended, and when the next is to be started.
func (c *Child) end(e Exit, started time.Time) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pause = c.nextPause(e, now.Sub(started))
	meaning := meaningOf(e.Code)
	c.gone(e)
	log := c.log.WithField("exit", e.Text)
	if c.held {
		log.Info("Collector stopped, and is not started again: the operator stopped it")
		return
	}
	retry := now.Add(c.pause)
	c.report.State, c.report.RetryAt = childBackoff, &retry
	c.report.Restarts++
	log = log.WithField("retry_in", c.pause.Round(time.Millisecond).String())
	if meaning.hopeless {
		log.Errorf("Collector ended: %s. %s", meaning.what, meaning.advice)
		return
	}
	log.Warn("Collector ended" + because(meaning.what))
}

func because(what string) string {
	if what == "" {
		return ""
	}
	return ": " + what
}

// nextPause needs c.mu.
func (c *Child) nextPause(e Exit, lived time.Duration) time.Duration {
	switch {
	case meaningOf(e.Code).hopeless:
		return c.timing.Hopeless
	case c.pause == 0, lived >= c.timing.RestartCalm:
		return c.timing.RestartMin
	}
	return min(2*c.pause, c.timing.RestartMax)
}

// hold keeps the collector from being started again.
func (c *Child) hold() {
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
	c.order()
}

// terminate has the process stopped by a signal.
func (c *Child) terminate() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.order()
}

func (c *Child) order() {
	select {
	case c.orders <- struct{}{}:
	default: // told already
	}
}

func (c *Child) isHeld() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

func (c *Child) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

func (c *Child) set(state string, retry *time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.State, c.report.RetryAt = state, retry
}

// Report is what is known of the child. It does not block.
func (c *Child) Report() rpc.Child {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report
}

// meaning is what an exit code of a collector says to its agent; the codes are those
// of docs/exit-codes.md.
type meaning struct {
	what     string
	advice   string // what to do
	hopeless bool   // another start alone does not mend it
}

func meaningOf(code int) meaning {
	switch code {
	case 64:
		return meaning{"its command line is wrong", "Look at what it prints, and mend --collector-arg.", true}
	case 65:
		return meaning{"its database is none", "Give it the path of a procmond database.", true}
	case 70:
		return meaning{"its watchdog ended it", "", false}
	case 73:
		return meaning{"another process has its database", "", false}
	case 74:
		return meaning{"its database has an I/O error", "", false}
	case 76:
		return meaning{"a later version wrote its database", "Run that version, or a later one.", true}
	case 77:
		return meaning{"it lacks permission", "Run the agent as root, or give it a database of this user.", true}
	case 78:
		return meaning{"its configuration is wrong", "Look at what it prints, and mend its configuration.", true}
	}
	return meaning{}
}
