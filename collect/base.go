package collect

import (
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/kernel"
)

// baseMost is how long events wait for the first scan at most.
const baseMost = 5 * time.Second

// awaitsBase reports whether events wait for the first scan of a run. It finds who lived
// before anybody listened: their children would have no parent, and what they do would be
// of nobody.
func (c *Collector) awaitsBase() bool {
	h := &c.run.heard
	return c.run.cycle.Count == 0 && c.table.compare.IsZero() && c.listens() && c.run.shutdown == nil &&
		h.waiting() < maxWaiting && time.Since(h.since) < baseMost
}

// setAside takes out of the first snapshot those of whose start the kernel tells next, and
// returns the PIDs of those of whom it tells something else: they are not gone because
// the snapshot does not have them. asOf is when the table will be as the snapshot leaves
// it.
func (c *Collector) setAside(s *Snapshot) (keep []int32, asOf time.Time) {
	h, asOf := &c.run.heard, s.Began
	if c.run.cycle.Count > 0 || len(h.due) == 0 {
		return nil, asOf
	}
	h.base = h.due[len(h.due)-1].At
	starts := make(map[int32][]*kernel.Record)
	for i := range h.due {
		if r := &h.due[i]; r.Kind == kernel.KindFork {
			starts[r.PID] = append(starts[r.PID], r)
		} else {
			keep = append(keep, r.PID)
		}
	}
	s.Observations = slices.DeleteFunc(s.Observations, func(o Observation) bool {
		return slices.ContainsFunc(starts[o.PID], func(r *kernel.Record) bool {
			return r.Start == 0 || o.StartTicks == r.Ticks() || r.StartApprox && nextTo(r.Ticks(), o.StartTicks)
		})
	})
	if began := h.zero.Add(h.known); began.Before(asOf) {
		asOf = began
	}
	return keep, asOf
}
