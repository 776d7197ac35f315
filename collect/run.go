package collect

import (
	"context"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// notesCapacity bounds the events about the daemon itself that wait while the
// store is out of service.
const notesCapacity = 100

// run is what outlives an actor: the state of one run of the daemon. Only the
// actor in charge touches it.
type run struct {
	began     time.Time // zero before the first actor
	announced bool      // the first events of the run are durable
	epoch     event.Epoch
	seq       uint64 // last known of epoch

	settings    Settings
	interval    Interval
	coordinated bool
	version     uint64 // of the configuration
	pending     []setting

	// notes are events about the daemon itself that wait to be written.
	notes  []*event.Event
	totals Totals
	cycle  Cycle

	failing      failing
	storeError   string // the last one
	outage       outage
	leftOutSince time.Time // zero while nobody is left out
	shutdown     *Shutdown // asked for, not yet done
	inflight     *job      // also one that hangs and was left behind
	execs        execs
	heard        heard
}

// failing is a window of failed scans.
type failing struct {
	since time.Time // the last good scan before; zero: the last scan was good
	count uint64
	last  string
}

// outage is a time in which the store is out of service.
type outage struct {
	since   time.Time // zero: it is in service
	last    string
	backOff time.Duration
}

// The back-off between two attempts to reach a store that is out of service.
const (
	minBackOff = 250 * time.Millisecond
	maxBackOff = 5 * time.Second
)

// enter prepares the run for an actor.
func (r *run) enter(c *Config, now time.Time) {
	if !r.began.IsZero() {
		r.totals.Restarts++
		r.heard.abandon(&r.totals)
		return
	}
	r.heard = newHeard()
	r.began = now
	r.execs = make(execs)
	r.settings = c.Settings
	r.interval = Interval{}.configured(c.Settings.Interval)
	r.version = 1
}

// endJob takes the job in flight, which has reported, out of it.
func (r *run) endJob() *job {
	j := r.inflight
	r.inflight = nil
	j.cancel()
	r.execs.noteAll(j.snapshot.Observations)
	return j
}

// note queues an event about the daemon itself.
func (r *run) note(e *event.Event) {
	if len(r.notes) == notesCapacity {
		r.notes = append(r.notes[:0], r.notes[1:]...)
		r.totals.NotesLost++
	}
	r.notes = append(r.notes, e)
}

func (c *Collector) sensorEvent(s event.Sensor) *event.Event {
	now := time.Now()
	s.Version = c.cfg.Version
	return &event.Event{
		HostID: c.cfg.Host.HostID, BootID: c.cfg.Host.BootID,
		Kind: event.KindSensor, Source: event.SourceSensor, Time: now, Observed: now, Sensor: &s,
	}
}

func (c *Collector) lossEvent(l event.Loss) *event.Event {
	now := time.Now()
	return &event.Event{
		HostID: c.cfg.Host.HostID, BootID: c.cfg.Host.BootID,
		Kind: event.KindLoss, Source: event.SourceSensor, Time: now, Observed: now, Loss: &l,
	}
}

// load brings the durable table back, and writes what must come before
// everything else: how the run began, what was missed.
func (c *Collector) load(ctx context.Context) error {
	c.turnTo(activityLoad)
	stored, err := c.cfg.Loader.Load(ctx)
	if err != nil {
		return c.storeFailed("load table", err)
	}
	c.run.heard.resolve(stored, c.run.epoch)
	c.epoch = stored.Epoch
	opening := c.opening(stored)
	if len(opening) > 0 {
		if err := c.append(ctx, &event.Batch{Events: opening}); err != nil {
			return err
		}
	}
	if !c.run.outage.since.IsZero() {
		c.watching = time.Now()
	}
	c.run.announced, c.run.epoch, c.run.outage = true, stored.Epoch, outage{}
	if err := c.endOldBoot(ctx, stored); err != nil {
		return err
	}
	c.takeTable(stored)
	return nil
}

// takeTable makes the durable table the one to compare with.
func (c *Collector) takeTable(stored *event.Table) {
	c.table = newTable(stored, &c.run.settings.Exclude)
	c.table.limit(c.run.settings.MaxProcesses)
	c.recovered = len(stored.Processes) > 0 || !stored.AsOf.IsZero()
	c.before, c.asOf = stored.AsOf, stored.AsOf
	c.full = true
	c.nextScan = time.Now()
}

// opening are the events with which the store must go on.
func (c *Collector) opening(stored *event.Table) []*event.Event {
	var events []*event.Event
	now := time.Now()
	switch {
	case !c.run.announced:
		events = c.runEvents(stored, now)
	case stored.Epoch != c.run.epoch:
		events = c.epochEvents(stored, now)
	}
	if since := c.run.outage.since; !since.IsZero() {
		from := since
		if !stored.AsOf.IsZero() && stored.AsOf.Before(from) {
			from = stored.AsOf
		}
		events = append(events, c.lossEvent(event.Loss{
			Cause: event.LossStore, From: from, To: now,
			Hint: "The database took nothing (" + c.run.outage.last + "). " + c.unseenInOutage(),
		}))
	}
	return events
}

// unseenInOutage says in a hint what an outage of the store has cost. The source of
// events keeps what it has room for.
func (c *Collector) unseenInOutage() string {
	if c.run.heard.began != 0 {
		return "What the kernel told meanwhile follows; if it had no room for all of it, another loss says so. No snapshots were taken."
	}
	return "Processes that started and ended meanwhile were not seen."
}

// runEvents are the first of a run.
func (c *Collector) runEvents(stored *event.Table, now time.Time) []*event.Event {
	events := []*event.Event{c.sensorEvent(event.Sensor{
		What: event.SensorStarted, Detail: "procmond has started.",
		PreviousEpoch: stored.PreviousEpoch, PreviousSeq: stored.PreviousSeq,
	})}
	switch {
	case stored.Quarantined != "":
		events = append(events, c.quarantineEvent(stored, now))
	case !stored.Empty || stored.Rewound != "":
		if !stored.Clean {
			events = append(events, c.sensorEvent(event.Sensor{
				What: event.SensorCrashed, Detail: "The run before this one did not end in order.",
			}))
		}
		events = append(events, c.lossEvent(event.Loss{
			Cause: event.LossDown, From: downFrom(stored), To: now,
			Hint: "Processes that started and ended while procmond was down were not seen.",
		}))
	}
	return c.addRewindEvent(events, stored, now)
}

// downFrom is since when nobody has watched.
func downFrom(stored *event.Table) time.Time {
	if stored.AsOf.IsZero() {
		return stored.CleanAt
	}
	return stored.AsOf
}

// epochEvents are the first of a store that has replaced another one in the
// middle of a run.
func (c *Collector) epochEvents(stored *event.Table, now time.Time) []*event.Event {
	sensor := event.Sensor{
		What: event.SensorHealth, Detail: "The store began a new epoch.",
		PreviousEpoch: stored.PreviousEpoch, PreviousSeq: stored.PreviousSeq,
	}
	if sensor.PreviousEpoch.IsZero() {
		sensor.PreviousEpoch, sensor.PreviousSeq = c.run.epoch, c.run.seq
	}
	events := []*event.Event{c.sensorEvent(sensor)}
	if stored.Quarantined != "" {
		events = append(events, c.quarantineEvent(stored, now))
	}
	return c.addRewindEvent(events, stored, now)
}

func (c *Collector) quarantineEvent(stored *event.Table, now time.Time) *event.Event {
	return c.lossEvent(event.Loss{
		Cause: event.LossQuarantine, To: now,
		Hint: "A damaged store was set aside: " + stored.Quarantined,
	})
}

// addRewindEvent adds that the store was an older copy of itself, if it was. Its
// processes are known all the same, and are not reported again.
func (c *Collector) addRewindEvent(events []*event.Event, stored *event.Table, now time.Time) []*event.Event {
	if stored.Rewound == "" {
		return events
	}
	return append(events, c.lossEvent(event.Loss{
		Cause: event.LossRewind, To: now,
		Hint: "The store had been replaced by an older copy of itself. What it held, and may not have delivered since, is in " + stored.Rewound + ".",
	}))
}

// endOldBoot ends the table of an earlier boot. Its last batch names this boot,
// so that a crash in the middle leaves no process of this boot to be ended with
// the old ones.
func (c *Collector) endOldBoot(ctx context.Context, stored *event.Table) error {
	if !c.rebooted(stored) {
		return nil
	}
	asOf := stored.AsOf
	if asOf.IsZero() {
		asOf = c.run.began
	}
	r := report{host: &c.cfg.Host, settings: &c.run.settings, observed: time.Now(), recovered: true}
	for _, p := range stored.Processes {
		r.units = append(r.units, r.bootUnit(p, stored))
	}
	if _, err := c.appendUnits(ctx, &r, event.Batch{AsOf: asOf, BootID: c.cfg.Host.BootID}); err != nil {
		return err
	}
	stored.Processes, stored.BootID, stored.AsOf = nil, c.cfg.Host.BootID, asOf
	return nil
}

// rebooted reports whether the table is of another boot. A table that was never
// complete does not say of which boot it is; then the ids tell.
func (c *Collector) rebooted(stored *event.Table) bool {
	if stored.BootID != "" || len(stored.Processes) == 0 {
		return stored.BootID != "" && stored.BootID != c.cfg.Host.BootID
	}
	r := report{host: &c.cfg.Host}
	for _, p := range stored.Processes {
		if r.identity(p) == p.ID {
			return false
		}
	}
	return true
}

// bootUnit ends one process with its boot, in whose time it ended.
func (r *report) bootUnit(p *event.Process, stored *event.Table) unit {
	if p.State == event.StateZombie && p.Threads <= 1 {
		return unit{remove: p.ID}
	}
	stop := r.newEvent(event.KindStop, event.SourceRecovered, p)
	stop.Cause, stop.NotBefore = "boot", stored.AsOf
	if stored.BootID != "" {
		stop.BootID = stored.BootID
	}
	if boot := r.host.BootTime; boot.After(stored.AsOf) {
		stop.Time = boot
	}
	return unit{events: []*event.Event{stop}, remove: p.ID}
}
