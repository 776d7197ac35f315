package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/supervisor/tree"
)

// mostTransitions of the machine are kept for reports.
const mostTransitions = 100

// Agent is what outlives the services: the machine, what is known of collectors, the
// children, and the counters. Make one with [New] and run it once with [Agent.Run].
type Agent struct {
	cfg        Config
	id         string // random, of this run
	startedAt  time.Time
	expected   []string
	machine    *fsm.Machine[fsm.AgentState, fsm.AgentEvent]
	collectors *registry
	children   []*Child
	refused    refusals
	log        *logrus.Entry
	tree       atomic.Pointer[tree.Tree] // nil before Run
	abandoned  atomic.Bool               // children are not stopped with the agent

	mu          sync.Mutex // guards what follows
	transitions []rpc.Transition
}

// New makes an agent, in the state loading. The error names every fault of cfg.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure agent: %w", err)
	}
	a := &Agent{
		cfg: cfg, id: rand.Text(), startedAt: time.Now(), expected: cfg.expected(),
		machine: fsm.NewAgent(), log: cfg.Log,
	}
	a.collectors = newRegistry(a.expected, cfg.Timing)
	for i := range cfg.Children {
		a.children = append(a.children, newChild(a, i))
	}
	return a, nil
}

// fire moves the machine and keeps a record of it. An event that the machine does not
// accept any more (the agent shuts down meanwhile) is logged.
func (a *Agent) fire(e fsm.AgentEvent, cause string) {
	t, err := a.move(e, cause)
	if err != nil {
		a.log.WithError(err).Debug("An event came too late")
		return
	}
	if !t.Changed() {
		return
	}
	log := a.log.WithFields(logrus.Fields{"from": t.From, "cause": t.Cause})
	if e == fsm.AgentTimeout {
		log.Warnf("Agent is %s: it serves on and waits for who is missing; `daemoneye-agent begin ID` begins the others", t.To)
		return
	}
	log.Infof("Agent is %s", t.To)
}

// move keeps machine and record together: a report shows both as of one moment.
func (a *Agent) move(e fsm.AgentEvent, cause string) (fsm.Transition, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, err := a.machine.Fire(e, cause)
	if err != nil || !t.Changed() {
		return t, err
	}
	a.transitions = append(a.transitions, rpc.Transition{From: t.From, To: t.To, Event: t.Event, Cause: t.Cause, At: t.At})
	if extra := len(a.transitions) - mostTransitions; extra > 0 {
		a.transitions = slices.Delete(a.transitions, 0, extra)
	}
	return t, nil
}

// refuse counts a refused message and says so in the log at debug: who sends them
// decides how many there are.
func (a *Agent) refuse(reason, who, detail string) {
	a.refused.add(reason, quote(who)+": "+quote(detail), 1)
	if a.log.Logger.IsLevelEnabled(logrus.DebugLevel) {
		a.log.WithFields(logrus.Fields{"who": quote(who), "detail": quote(detail)}).Debug("Refused: " + reason)
	}
}

// child is that of the id, nil if there is none.
func (a *Agent) child(id string) *Child {
	for _, c := range a.children {
		if c.command.ID == id {
			return c
		}
	}
	return nil
}

// Abandon has the children go on when the agent stops: who could stop them is gone.
// The next agent adopts them.
func (a *Agent) Abandon() { a.abandoned.Store(true) }

// askToStop asks a collector to shut down, over a connection of its own.
func (a *Agent) askToStop(ctx context.Context, id string) error {
	nc, err := dial(a.cfg.Broker)
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	defer nc.Close()
	_, err = ask(ctx, nc, id, rpc.OpGracefulShutdown, rpc.Shutdown{Reason: "the agent shuts down"}, "")
	return err
}

// Report tells everything that is known. It blocks for no service and no collector.
func (a *Agent) Report() rpc.AgentReport {
	a.mu.Lock()
	state, transitions := a.machine.Snapshot(), append([]rpc.Transition{}, a.transitions...)
	a.mu.Unlock()
	r := rpc.AgentReport{
		AgentID: a.id, Version: a.cfg.Version, PID: os.Getpid(),
		State: state.State, Since: state.Since, Cause: state.Cause, StartedAt: a.startedAt,
		Expected: append([]string{}, a.expected...), Missing: a.collectors.missing(),
		Collectors: a.collectors.reports(time.Now()),
		Stream:     a.cfg.Broker.Report(),
		Services:   a.services(),
		Refused:    append(a.refused.all(), a.cfg.Broker.Refusals()...),
	}
	for i := range r.Collectors {
		if child := a.child(r.Collectors[i].ID); child != nil {
			report := child.Report()
			r.Collectors[i].Child = &report
		}
	}
	r.Transitions = transitions
	r.Warnings = a.warnings(&r)
	return r
}

func (a *Agent) services() []rpc.ServiceReport {
	all := []rpc.ServiceReport{}
	t := a.tree.Load()
	if t == nil {
		return all
	}
	for _, s := range t.Services() {
		all = append(all, rpc.ServiceReport{
			Path: s.Path, State: string(s.State), Restarts: s.Restarts, Panics: s.Panics, LastError: s.LastError,
		})
	}
	return all
}

// warnings are what a person should do something about, a sentence each.
func (a *Agent) warnings(r *rpc.AgentReport) []string {
	all := []string{}
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if r.State == string(fsm.AgentStartupFailed) {
		add("Nobody was begun, because these are not ready: %s. Start them, or begin the others with `daemoneye-agent begin ID`.", strings.Join(r.Missing, ", "))
	}
	for i := range r.Collectors {
		c := &r.Collectors[i]
		switch {
		case c.Liveness == rpc.LivenessStale || c.Liveness == rpc.LivenessGone && c.Registration != nil && a.collectors.isSilent(c.ID):
			add("Collector %s has missed %d heartbeats.", c.ID, c.Missed)
		case c.Heartbeat != nil && c.Heartbeat.Health == healthUnhealthy && c.Liveness == rpc.LivenessHealthy:
			add("Collector %s is unhealthy%s.", c.ID, because(quote(strings.Join(c.Heartbeat.Reasons, " "))))
		}
	}
	for _, text := range a.cfg.Broker.Warnings() {
		add("%s.", text)
	}
	return all
}
