package agent

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

const (
	// missedUntilStale and staleUntilGone are those of rpc.Liveness.
	missedUntilStale = 3
	staleUntilGone   = 10
	// maxCollectors bounds what is remembered of those who register.
	maxCollectors = 1024
)

// registry is what the agent knows of collectors. It outlives the services. Its
// methods never block; they take the time as an argument, so that one look at all
// collectors has one time.
type registry struct {
	interval time.Duration // assigned to all
	retry    time.Duration // see Timing.Retry

	// changed wakes the coordination: sent to by every method that changes what it
	// looks at, never closed; one value says it all.
	changed chan struct{}

	mu   sync.Mutex // guards everything below
	byID map[string]*collector
}

// collector is what is known of one id.
type collector struct {
	id       string
	expected bool
	liveness rpc.Liveness

	registered   bool
	registration *rpc.Registration // the last one, also when it has left
	registeredAt time.Time
	connections  []uint64 // of the broker, when it registered
	others       []uint64 // of an instance that was rejected, when it was
	heartbeat    *rpc.Heartbeat
	heardAt      time.Time
	fresh        bool // the heartbeat is of this registration
	staleSince   time.Time

	begin     begin
	wishes    rpc.Wishes
	errands   []errand // wishes that it has not heard since it registered
	lastError string
}

// begin is how far a collector is on its way to be told to begin. It starts anew
// with each registration, but for the operator's word.
type begin struct {
	operator bool // asked for by the operator: steady or not
	done     bool // its heartbeat says so, or its answer
	tries    int
	next     time.Time // of the next try
}

// errand is something to be told to a collector.
type errand struct {
	op      rpc.Operation
	payload any
	tries   int
	next    time.Time
}

func newRegistry(expected []string, t Timing) *registry {
	r := &registry{interval: t.Heartbeat, retry: t.Retry, changed: make(chan struct{}, 1), byID: map[string]*collector{}}
	for _, id := range expected {
		r.byID[id] = &collector{id: id, expected: true, liveness: rpc.LivenessUnknown}
	}
	return r
}

// wake tells the coordination to look.
func (r *registry) wake() {
	select {
	case r.changed <- struct{}{}:
	default: // told already
	}
}

// register takes a registration, or says why not. connections are those that the id
// has now.
func (r *registry) register(reg *rpc.Registration, connections []uint64, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[reg.ID]
	if c == nil {
		if len(r.byID) >= maxCollectors {
			return rejection("the agent knows %d collectors already", maxCollectors)
		}
		c = &collector{id: reg.ID}
		r.byID[reg.ID] = c
	}
	if c.holds(reg, connections) {
		c.others = without(connections, c.connections)
		c.lastError = fmt.Sprintf("instance %s (pid %d) was rejected: another one is registered", quote(reg.Instance), reg.PID)
		return rejection("collector %s is registered and alive as pid %d, instance %s: stop that one, or use another id",
			reg.ID, c.registration.PID, quote(c.registration.Instance))
	}
	if !c.registered || c.registration.Instance != reg.Instance {
		c.heartbeat, c.heardAt = nil, time.Time{}
	} else {
		connections = without(connections, c.others)
	}
	c.others = nil
	c.registered, c.registration, c.registeredAt, c.connections = true, reg, now, connections
	c.fresh, c.liveness, c.lastError = false, rpc.LivenessHealthy, ""
	c.begin = begin{operator: c.begin.operator, next: now}
	c.errands = c.wishErrands(now)
	r.wake()
	return nil
}

// holds reports whether another instance has the id: registered, heard of lately,
// and with a connection left of those it registered with.
func (c *collector) holds(reg *rpc.Registration, connections []uint64) bool {
	return c.registered && c.registration.Instance != reg.Instance && c.liveness == rpc.LivenessHealthy &&
		slices.ContainsFunc(c.connections, func(n uint64) bool { return slices.Contains(connections, n) })
}

// without are the numbers of a that are not in b.
func without(a, b []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(a), func(n uint64) bool { return slices.Contains(b, n) })
}

// deregister takes the leave of an instance. It is false if that is not registered.
func (r *registry) deregister(id string, f *rpc.Farewell) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[id]
	if c == nil || !c.registered || c.registration.Instance != f.Instance {
		return false
	}
	c.registered, c.liveness, c.errands = false, rpc.LivenessGone, nil
	c.begin = begin{operator: c.begin.operator}
	r.wake()
	return true
}

// heard takes a heartbeat. It is false if its instance is not registered. back says
// that the collector was stale or gone.
func (r *registry) heard(h *rpc.Heartbeat, now time.Time) (known, back bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[h.ID]
	if c == nil || !c.registered || c.registration.Instance != h.Instance {
		return false, false
	}
	first := !c.fresh
	changed := first || c.heartbeat.Health != h.Health || c.heartbeat.Collector != h.Collector
	c.heartbeat, c.heardAt, c.fresh = h, now, true
	back = c.liveness != rpc.LivenessHealthy
	c.liveness = rpc.LivenessHealthy
	c.judgeBegin(now)
	if changed || back || !c.begin.done {
		r.wake()
	}
	return true, back
}

// States of a collector's machine that decide whether it has to be begun.
const (
	collectorWaiting = "waiting_for_agent"
	collectorRunning = "running"
)

// judgeBegin compares what a heartbeat says with what was asked for.
func (c *collector) judgeBegin(now time.Time) {
	waits := c.heartbeat.Collector == collectorWaiting || c.heartbeat.Collector == collectorRunning && !c.heartbeat.Coordinated
	if waits && c.begin.done {
		c.begin.done, c.begin.next = false, now // its answer was of no avail
	}
	if !waits {
		c.begin.done = true
	}
}

// change is a new liveness of a collector.
type change struct {
	id     string
	to     rpc.Liveness
	missed uint64
}

// sweep finds out who has fallen silent since the last time.
func (r *registry) sweep(now time.Time) []change {
	r.mu.Lock()
	defer r.mu.Unlock()
	var changes []change
	for _, c := range r.sorted() {
		if !c.registered {
			continue
		}
		was := c.liveness
		switch missed := r.missed(c, now); {
		case was == rpc.LivenessHealthy && missed >= missedUntilStale:
			c.liveness, c.staleSince = rpc.LivenessStale, now
		case was == rpc.LivenessStale && now.Sub(c.staleSince) >= staleUntilGone*r.interval:
			c.liveness = rpc.LivenessGone
		}
		if c.liveness != was {
			changes = append(changes, change{c.id, c.liveness, r.missed(c, now)})
		}
	}
	return changes
}

// missed counts the heartbeats that should have come; it needs r.mu. Each may be late
// by a tenth of the interval.
func (r *registry) missed(c *collector, now time.Time) uint64 {
	if !c.registered {
		return 0
	}
	silent := now.Sub(latest(c.registeredAt, c.heardAt)) - r.interval/10
	return uint64(max(silent, 0) / r.interval)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// missing are the expected ids that are not ready, sorted.
func (r *registry) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := []string{}
	for _, c := range r.sorted() {
		if c.expected && !c.ready() {
			ids = append(ids, c.id)
		}
	}
	return ids
}

func (c *collector) ready() bool {
	return c.registered && c.fresh && c.liveness == rpc.LivenessHealthy && c.heartbeat.Health != healthUnhealthy
}

// sorted needs r.mu.
func (r *registry) sorted() []*collector {
	all := make([]*collector, 0, len(r.byID))
	for _, c := range r.byID {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *collector) int { return cmp.Compare(a.id, b.id) })
	return all
}

// isRegistered reports whether a collector is there, silent or not.
func (r *registry) isRegistered(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[id]
	return c != nil && c.registered && c.liveness != rpc.LivenessGone
}

// reports tells of all collectors, by id.
func (r *registry) reports(now time.Time) []rpc.CollectorReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []rpc.CollectorReport{}
	for _, c := range r.sorted() {
		all = append(all, rpc.CollectorReport{
			ID: c.id, Liveness: c.liveness, Expected: c.expected, Ready: c.ready(), Begun: c.registered && c.begin.done,
			RegisteredAt: moment(c.registeredAt), HeardAt: moment(c.heardAt), Missed: r.missed(c, now),
			Registration: c.registration, Heartbeat: c.heartbeat, Wishes: wishesReport(c.wishes), LastError: c.lastError,
		})
	}
	return all
}

// moment is nil for the zero time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// isSilent reports whether a collector is still registered and has not been heard of
// for too long: it did not take its leave.
func (r *registry) isSilent(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[id]
	return c != nil && c.registered && c.liveness != rpc.LivenessHealthy
}
