package collect

import (
	"context"
	"math/rand/v2"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/fsm"
)

// Events tells of processes while things happen to them. One goroutine at a time
// uses it.
type Events interface {
	// Read fills b with what was told since the call before. It does not wait for more.
	// Whatever fails is said in b: as lost, if something may be missing.
	Read(b *kernel.Batch)
	// Filling is received from when Read should be called at once.
	Filling() <-chan struct{}
	// Rest says that Read will not be called for a while, and reports whether Filling is
	// received from as soon as there is something to read.
	Rest() bool
	// Exists reports whether anybody has a PID, if only a zombie.
	Exists(pid int32) bool
}

// Groups tells of control groups, now. One goroutine at a time uses it.
type Groups interface {
	// Of returns the control group and the container of the process pid, which started so
	// long after boot. id is what the kernel told of its group, 0 for nothing. It is not
	// ok if the process is gone, or hides it.
	Of(pid int32, start time.Duration, id uint64) (path, container string, ok bool)
}

const (
	// readEvery is how often events are read: nobody is woken by them. Each time some
	// come, one batch is made durable, which is most of what they cost. After restAfter
	// without any the first one wakes, that is five times a second at most, and it is read
	// after restFor anyhow.
	readEvery = 40 * time.Millisecond
	restAfter = 200 * time.Millisecond
	restFor   = time.Second
	// rescanAfter is the least time between the begin of a scan and that of one that
	// makes up for losses.
	rescanAfter = 5 * time.Second
	// catchUpPatience is how long the end of a scan waits for a source that does not get on
	// with what happened in its time, and catchUpEvery how often it looks.
	catchUpPatience = 2 * time.Second
	// catchUpMost is how long it waits for one that gets on and on: others wait too.
	catchUpMost  = 10 * time.Second
	catchUpEvery = 2 * time.Millisecond
	// attention is how long events are taken over before a request is served, however
	// slow the store is.
	attention = 250 * time.Millisecond
	// lastDrain is how long that may take at the end, though the deadline has passed.
	lastDrain = 2 * time.Second
)

// listens reports whether events are read at present.
func (c *Collector) listens() bool {
	if c.cfg.Events == nil || c.table == nil {
		return false
	}
	state := c.cfg.Machine.State()
	return state == fsm.CollectorRunning || state == fsm.CollectorShuttingDown && c.run.heard.asked
}

// filling is where the source of events calls, or nil.
func (c *Collector) filling() <-chan struct{} {
	if !c.listens() {
		return nil
	}
	return c.cfg.Events.Filling()
}

// listen begins to, which must come before the first scan, and takes over what was
// told since.
func (c *Collector) listen(ctx context.Context, now time.Time) error {
	if !c.listens() {
		return nil
	}
	if !c.run.heard.asked {
		c.hear(now)
	}
	return c.applyHeard(ctx)
}

// hear reads what there is, and reports whether something is to be done about it.
func (c *Collector) hear(now time.Time) bool {
	h := &c.run.heard
	h.next, h.rests = now.Add(readEvery), false
	if h.waiting() >= maxWaiting {
		return true
	}
	b := &h.batch
	c.cfg.Events.Read(b)
	if b.Began != h.began && h.asked {
		c.nextScan, h.doubt = now, now // between two sources anything may have happened
	}
	h.take(b, now)
	c.run.totals.Heard += uint64(len(b.Records))
	switch {
	case b.Through == 0: // nobody tells
		h.next = now.Add(time.Second)
	case b.More:
		h.next = now
	case len(b.Records) > 0 || h.waiting() > 0:
		h.active = now
	case now.Sub(h.active) >= restAfter && c.cfg.Events.Rest():
		h.next, h.rests = now.Add(restFor), true
	}
	c.noteLost(b.Lost, now)
	c.noteSource(b.Note)
	return len(h.due) > 0 || len(c.run.notes) > 0 || b.Lost.Any() || c.run.inflight == nil && !c.nextScan.After(now)
}

// called is that the source of events wants to be read: at once if it fills, and after
// a moment if it is the first event after a rest, as more may follow.
func (c *Collector) called() {
	h := &c.run.heard
	h.next = time.Time{}
	if h.rests {
		h.next, h.rests = time.Now().Add(readEvery), false
	}
}

// noteSource tells of a change of the source.
func (c *Collector) noteSource(note string) {
	if note == "" {
		return
	}
	c.cfg.Log.Info(note)
	c.run.note(c.sensorEvent(event.Sensor{What: event.SensorSource, Detail: note}))
}

// noteLost counts losses, and brings forward the scan that makes up for them.
func (c *Collector) noteLost(lost kernel.Lost, now time.Time) {
	if !lost.Any() {
		return
	}
	c.run.totals.Lost.add(lost)
	c.run.heard.lose(lost, now)
	c.makeUp()
}

// makeUp brings forward the scan that makes up for losses, if there were any.
func (c *Collector) makeUp() {
	soon := c.scanBegan.Add(rescanAfter)
	if !c.run.heard.lost.since.IsZero() && c.nextScan.After(soon) {
		c.nextScan = soon
	}
}

// closeLosses reports what was lost until now, when a scan begins that makes up for it.
func (c *Collector) closeLosses(now time.Time) {
	w := c.run.heard.lost
	c.run.heard.recent, c.run.heard.lost = w, window{}
	if w.since.IsZero() {
		return
	}
	c.run.totals.LossWindows++
	c.run.note(c.lossEvent(event.Loss{
		Cause: event.LossRing, From: w.since, To: now, Count: w.count, Known: !w.unknown,
		Hint: "More happened than procmond could take in time; a scan follows. " +
			"It needs more processor time, a faster disk or a larger event_buffer.",
	}))
}

// catchUp takes over everything that was told until now, the end of a scan, so that it
// can be compared with what the kernel said. It reports whether that was possible until
// deadline: the source may be stuck, or the store slow.
func (c *Collector) catchUp(ctx context.Context, deadline time.Time) (bool, error) {
	if !c.listens() {
		return true, nil
	}
	h := &c.run.heard
	moved, until := time.Now(), time.Duration(0)
	for {
		if all, err := c.applyAll(ctx, deadline); !all || err != nil {
			return false, err
		}
		before, now := h.through, time.Now()
		c.hear(now) // there is room now
		if until == 0 {
			until = h.batch.Now + holdBack
		}
		switch {
		case h.batch.Through == 0: // nothing will come any more
			h.due = h.order.All(h.due)
			return c.applyAll(ctx, deadline)
		case h.through >= until:
			h.takeUntil(h.through - holdBack) // what is older can not come any more
			return c.applyAll(ctx, deadline)
		case !now.Before(deadline):
			return false, nil
		case h.through > before || len(h.batch.Records) > 0:
			moved = now
		case now.Sub(moved) >= catchUpPatience:
			return false, nil
		}
		if err := rest(ctx, catchUpEvery); err != nil {
			return false, err
		}
	}
}

// drain takes over everything that was told until now, for the last time. What is not
// durable by deadline, if that is not zero, is lost, and how many that are.
func (c *Collector) drain(ctx context.Context, deadline time.Time) (lost int, err error) {
	now := time.Now()
	patience := catchUpMost
	if !deadline.IsZero() {
		left := max(deadline.Sub(now), lastDrain)
		deadline, patience = now.Add(left), min(patience, left)
	}
	if _, err := c.catchUp(ctx, now.Add(patience)); err != nil {
		return 0, err
	}
	h := &c.run.heard
	h.due = h.order.All(h.due)
	if all, err := c.applyAll(ctx, deadline); all || err != nil {
		return 0, err
	}
	lost = h.waiting()
	h.abandon(&c.run.totals)
	h.lost.unknown = true // the source may have more
	return lost, nil
}

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// applyAll makes all that is due durable, and reports whether that was done by deadline,
// if that is not zero. What waits for the first scan still does.
func (c *Collector) applyAll(ctx context.Context, deadline time.Time) (bool, error) {
	for len(c.run.heard.due) > 0 && !c.awaitsBase() {
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return false, nil
		}
		if err := c.applySome(ctx); err != nil {
			return false, err
		}
	}
	return true, nil
}

// applyHeard makes what is due durable. It leaves off after a while, for others.
func (c *Collector) applyHeard(ctx context.Context) error {
	all, err := c.applyAll(ctx, time.Now().Add(attention))
	if !all {
		c.run.heard.next = time.Now()
	}
	return err
}

// complete reports whether the table misses nothing: a scan has found what there was
// before, and nothing was lost since it began.
func (c *Collector) complete() bool { return c.table.compare.After(c.run.heard.doubt) }

// latest is the later of t and the last moment at which the table was said to be
// complete, unless the wall clock was set back since.
func (c *Collector) latest(t time.Time) time.Time {
	if back := c.asOf.Sub(t); back > 0 && back < time.Minute {
		return c.asOf
	}
	c.asOf = t
	return t
}

// applySome makes as many records durable as fit a batch. If that fails they stay
// due, to be compared with the table that was durable before.
func (c *Collector) applySome(ctx context.Context) error {
	h := &c.run.heard
	r := c.newHearing()
	for r.fits() && h.tried < len(h.due) {
		r.apply(&h.due[h.tried])
		h.tried++
	}
	if b := r.finish(); len(b.Events)+len(b.Put)+len(b.Delete) > 0 {
		if c.complete() {
			b.AsOf, b.BootID = c.latest(r.told), c.cfg.Host.BootID
		}
		b.Mark = rand.Uint64()
		h.mark = b.Mark
		if err := c.append(ctx, b); err != nil {
			return err
		}
	}
	c.run.totals.ShortLived += uint64(r.shortLived)
	h.durable()
	return nil
}
