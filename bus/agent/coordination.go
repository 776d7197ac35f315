package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/supervisor/tree"
)

// inboxPrefix begins the subjects on which the coordination takes answers. It is no
// collector's, see rpc.InboxPrefix.
const inboxPrefix = "_INBOX_AGENT."

// coordination is the service that moves the machine, tells collectors to begin, and
// sees who falls silent.
type coordination struct {
	agent    *Agent
	progress *tree.Progress
}

func (s *coordination) String() string { return "coordination" }

// Serve coordinates until ctx ends. Collectors are asked without waiting for one
// before the next: the answers come in as messages like all else.
func (s *coordination) Serve(ctx context.Context) error {
	nc, err := connect(ctx, s.agent.cfg.Broker, s.progress)
	if err != nil {
		return err
	}
	defer nc.Close()
	run := &coordinating{agent: s.agent, nc: nc, inbox: inboxPrefix + rand.Text(), open: map[string]question{}}
	// Sent to by the connection, which drops what finds no room (it is tried again);
	// never closed.
	replies := make(chan *nats.Msg, queue)
	if _, err := nc.ChanSubscribe(run.inbox+".*", replies); err != nil {
		return fmt.Errorf("subscribe to answers: %w", err)
	}
	tick := time.NewTicker(s.agent.cfg.Timing.Tick)
	defer tick.Stop()
	for {
		s.progress.Beat("coordinate")
		if !nc.IsConnected() {
			return errLost
		}
		if err := run.pass(time.Now()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-s.agent.collectors.changed:
		case msg := <-replies:
			run.settle(msg)
		case <-ctx.Done():
			return nil
		}
	}
}

// question is a request that waits for its answer.
type question struct {
	errandFor
	until time.Time
}

// coordinating is one Serve of the coordination.
type coordinating struct {
	agent *Agent
	nc    *nats.Conn
	inbox string
	open  map[string]question // by the id of the request
}

// pass looks at everything once.
func (c *coordinating) pass(now time.Time) error {
	for _, change := range c.agent.collectors.sweep(now) {
		c.agent.log.WithFields(logrus.Fields{"id": change.id, "missed": change.missed}).Warnf("Collector is %s: its heartbeats do not come", change.to)
	}
	if err := c.advance(now); err != nil {
		return err
	}
	for id, q := range c.open {
		if now.After(q.until) {
			delete(c.open, id)
			c.settled(q.errandFor, &rpc.Error{Code: rpc.CodeTimeout, Message: "no answer in time"})
		}
	}
	state := c.agent.machine.State()
	if state == fsm.AgentShuttingDown {
		return nil
	}
	for _, e := range c.agent.collectors.due(state == fsm.AgentSteady, c.agent.id, now) {
		if err := c.send(e, now); err != nil {
			return err
		}
	}
	return nil
}

// advance moves the machine as far as it goes.
func (c *coordinating) advance(now time.Time) error {
	state := c.agent.machine.State()
	if state == fsm.AgentLoading || state == fsm.AgentStartupFailed {
		missing := c.agent.collectors.missing()
		if len(missing) == 0 {
			c.agent.fire(fsm.AgentAllReady, allReady(len(c.agent.expected)))
		} else if state == fsm.AgentLoading && now.Sub(c.agent.startedAt) >= c.agent.cfg.Timing.Ready {
			c.agent.fire(fsm.AgentTimeout, fmt.Sprintf("not ready within %s: %s", c.agent.cfg.Timing.Ready, strings.Join(missing, ", ")))
		}
	}
	if c.agent.machine.State() == fsm.AgentReady {
		return c.beginAll(now)
	}
	return nil
}

func allReady(n int) string {
	switch n {
	case 0:
		return "no collector is expected"
	case 1:
		return "the expected collector is ready"
	}
	return fmt.Sprintf("all %d expected collectors are ready", n)
}

// beginAll says to all that they may begin. Only what has left is counted as said.
func (c *coordinating) beginAll(now time.Time) error {
	_, text, err := newRequest(rpc.OpBeginMonitoring, rpc.Begin{AgentID: c.agent.id}, now.Add(c.agent.cfg.Timing.Ask), "")
	if err != nil {
		return err
	}
	if err := c.nc.Publish(rpc.SubjectLifecycle, text); err != nil {
		return fmt.Errorf("say BeginMonitoring to all: %w", err)
	}
	if err := c.nc.FlushTimeout(c.agent.cfg.Timing.Ask); err != nil {
		return fmt.Errorf("say BeginMonitoring to all: %w", err)
	}
	c.agent.collectors.wasBroadcast(now)
	c.agent.fire(fsm.AgentBegin, "BeginMonitoring was sent to all")
	return nil
}

// send asks one collector.
func (c *coordinating) send(e errandFor, now time.Time) error {
	until := now.Add(c.agent.cfg.Timing.Ask)
	id, text, err := newRequest(e.op, e.payload, until, "")
	if err != nil {
		return err
	}
	if err := c.nc.PublishRequest(rpc.CollectorSubject(e.id), c.inbox+"."+id, text); err != nil {
		return fmt.Errorf("send %s to %s: %w", e.op, e.id, err)
	}
	c.open[id] = question{e, until}
	return nil
}

// settle takes the answer of a collector.
func (c *coordinating) settle(msg *nats.Msg) {
	id := lastToken(msg.Subject)
	q, ok := c.open[id]
	if !ok {
		return // too late: it counted as none, and is tried again
	}
	delete(c.open, id)
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" { // the server's word that nobody listens
		c.settled(q.errandFor, noResponder(q.id))
		return
	}
	if _, err := readResponse(q.id, id, msg.Data); err != nil {
		c.settled(q.errandFor, asError(err))
		return
	}
	c.settled(q.errandFor, nil)
}

// settled records and logs how an errand ended.
func (c *coordinating) settled(e errandFor, refused *rpc.Error) {
	c.agent.collectors.settled(e, refused)
	log := c.agent.log.WithField("id", e.id)
	switch {
	case refused != nil:
		log.WithField("error", quote(refused.Error())).Warnf("Collector did not do %s", e.op)
	case e.op == rpc.OpBeginMonitoring:
		log.Info("Collector was begun")
	default:
		log.Infof("Collector was told its %s again", e.op)
	}
}
