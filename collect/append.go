package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// A batch is not bigger than this, so that no commit takes long. Its size is
// estimated.
const (
	maxBatchEvents = 256
	maxBatchBytes  = 1 << 20
)

// errOutage says that the store went out of service. The table is thrown away,
// and the actor goes on without a store.
var errOutage = errors.New("store is out of service")

// append makes one batch durable.
func (c *Collector) append(ctx context.Context, b *event.Batch) error {
	for _, e := range b.Events {
		event.Clip(e) // records were clipped when they were read, changes and notes were not
	}
	// A store that has taken the place of the one loaded must not take what is only
	// the difference to it.
	b.Epoch = c.epoch
	c.turnTo(activityAppend)
	err := c.cfg.Sink.Append(ctx, b)
	c.turnTo(activityCompare)
	if err != nil {
		return c.storeFailed("append batch", err)
	}
	c.run.execs.written(b)
	c.run.totals.Events += uint64(len(b.Events))
	c.untrimmed += len(b.Events)
	if n := len(b.Events); n > 0 {
		c.run.epoch, c.run.seq = b.Events[n-1].Epoch, b.Events[n-1].Seq
	}
	return nil
}

// storeFailed notes that the store is out of service, or returns err for the
// actor to end with. Either way the table in memory is not to be trusted.
func (c *Collector) storeFailed(what string, err error) error {
	c.table = nil
	c.run.storeError = err.Error()
	if !c.cfg.IsUnavailable(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	o := &c.run.outage
	if o.since.IsZero() {
		o.since = time.Now()
		c.run.totals.Outages++
		c.cfg.Log.WithError(err).Warn("Store is out of service, collection waits for it")
	}
	o.last = err.Error()
	o.backOff = min(max(2*o.backOff, minBackOff), maxBackOff)
	c.retryAt = time.Now().Add(o.backOff)
	return errOutage
}

// appendUnits makes the units of r durable in as many batches as their size asks for; the
// last one is put together with tail, and is written even if it is empty, unless
// tail is zero. It returns the number of events.
func (c *Collector) appendUnits(ctx context.Context, r *report, tail event.Batch) (int, error) {
	events, size := 0, 0
	batch := &event.Batch{}
	for i := range r.units {
		u := &r.units[i]
		more, count := u.size(), u.count()
		if full := len(batch.Events)+count > maxBatchEvents || size+more > maxBatchBytes; full && size > 0 {
			if err := c.append(ctx, batch); err != nil {
				return events, err
			}
			batch, size = &event.Batch{}, 0
		}
		r.move(u, batch)
		events += count
		size += more
	}
	batch.AsOf, batch.BootID = tail.AsOf, tail.BootID
	if size == 0 && tail.AsOf.IsZero() {
		return events, nil
	}
	return events, c.append(ctx, batch)
}

// move puts u into b. Nothing of it is left behind, so that memory is needed for
// the events of one batch only.
func (r *report) move(u *unit, b *event.Batch) {
	if u.start != nil {
		b.Events = append(b.Events, r.startEvent(u.start, u.began))
		b.Put = append(b.Put, u.start)
	}
	b.Events = append(b.Events, u.events...)
	if u.put != nil {
		b.Put = append(b.Put, u.put)
	}
	if !u.remove.IsZero() {
		b.Delete = append(b.Delete, u.remove)
	}
	*u = unit{}
}

// count is the number of events.
func (u *unit) count() int {
	if u.start != nil {
		return len(u.events) + 1
	}
	return len(u.events)
}

// size estimates the bytes that a unit takes in the store.
func (u *unit) size() int {
	size := 32
	if u.start != nil {
		size += 2 * processSize(u.start)
	}
	for _, e := range u.events {
		size += processSize(&e.Process)
		for i := range e.Changes {
			size += len(e.Changes[i].Old) + len(e.Changes[i].New)
		}
	}
	if u.put != nil {
		size += processSize(u.put)
	}
	return size
}

func processSize(p *event.Process) int {
	size := 256 + len(p.Name) + len(p.Exe) + len(p.CWD) + len(p.Cgroup)
	for _, arg := range p.Args {
		size += len(arg) + 2
	}
	for _, v := range p.Env {
		size += len(v) + 2
	}
	return size
}

// flushNotes writes the events about the daemon itself that wait. They may be
// written while a scan runs: they don't touch the table.
func (c *Collector) flushNotes(ctx context.Context) error {
	if c.table == nil || len(c.run.notes) == 0 {
		return nil
	}
	batch := &event.Batch{Events: c.run.notes}
	if err := c.append(ctx, batch); err != nil {
		return err
	}
	c.run.notes = nil
	return nil
}
