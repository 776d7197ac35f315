package collect

import (
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
)

// publish makes the state of the actor visible, and that it is about to wait.
func (c *Collector) publish(doing string) {
	now := time.Now()
	r := c.run
	s := Status{
		State:         c.cfg.Machine.Snapshot(),
		Coordinated:   r.coordinated,
		Interval:      r.interval,
		Cycle:         r.cycle,
		Totals:        r.totals,
		ConfigVersion: r.version,
		Pending:       c.pendingKeys(),

		Epoch:             r.announcedEpoch(),
		Waiting:           r.heard.waiting(),
		OutOfServiceSince: r.outage.since,
		LastError:         lastError(r),
		Stuck:             c.stuck(now),
	}
	if r.inflight != nil {
		s.ScanSince = r.inflight.began
	}
	if c.table != nil {
		s.TableSize, s.Held = c.table.size(), c.table.held()
	}
	s.Degraded = c.degraded(&s, now)
	c.cfg.Mailbox.status.Store(&s)
	if last := c.cfg.Mailbox.activity.Load(); last.name != doing {
		c.cfg.Mailbox.activity.Store(&activity{name: doing, since: now})
	}
}

// announcedEpoch is the epoch whose first events of this run are durable.
func (r *run) announcedEpoch() event.Epoch {
	if !r.announced {
		return event.Epoch{}
	}
	return r.epoch
}

func lastError(r *run) string {
	if r.failing.last != "" {
		return r.failing.last
	}
	return r.outage.last
}

// degraded are the reasons why the collector is not well.
func (c *Collector) degraded(s *Status, now time.Time) []string {
	var reasons []string
	add := func(when bool, format string, args ...any) {
		if when {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		}
	}
	r := c.run
	add(s.Stuck, "The scan has not returned for %d s.", int(now.Sub(s.ScanSince).Seconds()))
	add(r.failing.count > 0, "The last %d scans failed: %s.", r.failing.count, r.failing.last)
	add(c.cfg.HasLink && !r.coordinated && s.State.State == string(fsm.CollectorRunning), "Monitoring began without an agent.")
	add(r.interval.Pressure, "There is pressure, so the interval is stretched to %v.", r.interval.Current)
	add(!r.heard.lost.since.IsZero() || !r.heard.recent.since.IsZero(), "Kernel events were lost: more happened than could be taken in time.")
	add(s.Cycle.LeftOut > 0, "max_processes leaves out %d processes.", s.Cycle.LeftOut)
	return reasons
}
