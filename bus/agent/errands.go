package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

// retryMost bounds the time between two tries, in multiples of Timing.Retry.
const retryMost = 10

// keyInterval is the hot key whose change takes an AdjustInterval out of force.
const keyInterval = "collection_interval"

// errandFor is what is to be sent to a collector now.
type errandFor struct {
	id, instance string
	op           rpc.Operation
	payload      any
}

// due returns what is to be sent now, and counts it as tried: begins, if the agent
// is steady or the operator wants it, and wishes, one at a time, in order.
func (r *registry) due(steady bool, agentID string, now time.Time) []errandFor {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []errandFor
	for _, c := range r.sorted() {
		if !c.registered || c.liveness != rpc.LivenessHealthy {
			continue
		}
		instance := c.registration.Instance
		if b := &c.begin; (steady || b.operator) && !b.done && !now.Before(b.next) {
			b.tries++
			b.next = now.Add(r.pause(b.tries))
			all = append(all, errandFor{c.id, instance, rpc.OpBeginMonitoring, rpc.Begin{AgentID: agentID}})
		}
		if len(c.errands) > 0 && !now.Before(c.errands[0].next) {
			e := &c.errands[0]
			e.tries++
			e.next = now.Add(r.pause(e.tries))
			all = append(all, errandFor{c.id, instance, e.op, e.payload})
		}
	}
	return all
}

// pause is the time after so many tries.
func (r *registry) pause(tries int) time.Duration {
	return min(r.retry<<min(tries-1, retryMost), retryMost*r.retry)
}

// wasBroadcast counts a word to all as the first try of each: nobody answers it.
func (r *registry) wasBroadcast(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.byID {
		if c.registered && !c.begin.done {
			c.begin.tries++
			c.begin.next = now.Add(r.pause(c.begin.tries))
		}
	}
}

// settled takes the answer to what due returned. refused is nil if the collector did
// it; a refusal that another try can not change ends the tries of a wish.
func (r *registry) settled(e errandFor, refused *rpc.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[e.id]
	if c == nil || !c.registered || c.registration.Instance != e.instance {
		return
	}
	if refused != nil {
		c.lastError = clip(string(e.op) + ": " + refused.Error())
	}
	if e.op == rpc.OpBeginMonitoring {
		c.begin.done = c.begin.done || refused == nil
		return
	}
	final := refused == nil || refused.Code == rpc.CodeInvalid || refused.Code == rpc.CodeUnknownOperation || refused.Code == rpc.CodeMalformed
	if final && len(c.errands) > 0 && c.errands[0].op == e.op {
		c.errands = slices.Delete(c.errands, 0, 1)
		r.wake()
	}
}

// begun records that the operator had a collector begun, which holds for all later
// registrations too.
func (r *registry) begun(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.byID[id]; c != nil {
		c.begin.operator, c.begin.done = true, true
	}
}

// wishInterval records an interval that a collector took; nil is that it went back to
// the configured one.
func (r *registry) wishInterval(id string, interval *int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.byID[id]; c != nil {
		c.wishes.IntervalMS = interval
	}
}

// wishConfig records the values among taken that a collector took.
func (r *registry) wishConfig(id string, values map[string]json.RawMessage, taken []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.byID[id]
	if c == nil {
		return
	}
	config := maps.Clone(c.wishes.Config) // reports hold the old one
	for _, key := range taken {
		value, ok := values[key]
		if !ok {
			continue
		}
		if config == nil {
			config = map[string]json.RawMessage{}
		}
		config[key] = value
		if key == keyInterval {
			c.wishes.IntervalMS = nil
		}
	}
	c.wishes.Config = config
}

// wishErrands are the wishes of a collector, in the order in which they do not undo
// each other.
func (c *collector) wishErrands(now time.Time) []errand {
	var all []errand
	if len(c.wishes.Config) > 0 {
		all = append(all, errand{op: rpc.OpUpdateConfig, payload: rpc.UpdateConfig{Values: c.wishes.Config}, next: now})
	}
	if c.wishes.IntervalMS != nil {
		all = append(all, errand{op: rpc.OpAdjustInterval, payload: rpc.AdjustInterval{IntervalMS: c.wishes.IntervalMS}, next: now})
	}
	return all
}

// wishesReport is nil if there are none.
func wishesReport(w rpc.Wishes) *rpc.Wishes {
	if w.IntervalMS == nil && len(w.Config) == 0 {
		return nil
	}
	return &w
}
