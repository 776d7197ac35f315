package collect

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// unit is what must become durable together: events, and the table change that
// makes them true.
type unit struct {
	// start is a process that has started: an event and a record of the table. The
	// event is made when its batch is: a first scan has one for each process.
	start  *event.Process
	began  time.Duration // when it did, since boot, if the kernel told; else 0
	events []*event.Event
	put    *event.Process
	remove event.ID // zero: none
}

// report turns the differences of one cycle into units and brings the table up
// to date.
type report struct {
	host     *Host
	settings *Settings
	table    *table
	snapshot *Snapshot
	observed time.Time // now
	// recovered says that the comparison is with a table that this actor did not
	// make; what started after watching is found by scanning all the same.
	recovered   bool
	watching    time.Time
	before      time.Time   // begin of the scan before this one; zero if there was none
	generations generations // of those that the kernel told of
	// told is when it happened, if the kernel told so, and sinceBoot the same on the
	// boot clock.
	told      time.Time
	sinceBoot time.Duration

	units      []unit
	changes    []unit // go behind the starts
	shortLived int    // ended before MinLifetime
	leftOut    int    // living processes without room
	returned   bool   // a silent process is reported on again: read all
}

// cycle reports everything that d holds: what ended, what started, what changed.
func (r *report) cycle(d *differences) {
	for _, i := range d.gone {
		r.stopGone(&r.table.entries[i])
	}
	for _, m := range d.ended {
		r.stopZombie(&r.table.entries[m.entry], &r.snapshot.Observations[m.observation])
	}
	pids := make([]int32, len(d.changed)) // indexes do not survive the new layout
	for i, m := range d.changed {
		pids[i] = r.table.entries[m.entry].pid
	}
	fresh := make([]entry, len(d.fresh))
	for i, j := range d.fresh {
		fresh[i] = r.newEntry(&r.snapshot.Observations[j])
	}
	r.table.replace(d.gone, fresh)
	r.startZombies(d.fresh)
	for i, m := range d.changed {
		r.change(r.table.find(pids[i]), m)
	}
	r.admit()
	r.units = append(r.units, r.changes...)
}

// newEvent is an event of this cycle, found now.
func (r *report) newEvent(k event.Kind, s event.Source, p *event.Process) *event.Event {
	e := &event.Event{
		HostID: r.host.HostID, BootID: r.host.BootID,
		Kind: k, Source: s, Time: r.at(), BootTime: r.sinceBoot, Observed: r.observed, Process: *p,
	}
	if k == event.KindStop {
		e.Process.Hash = lastHash(p.Hash)
	}
	return e
}

// at is when it happened, or when what a scan found had happened at the latest.
func (r *report) at() time.Time {
	switch {
	case !r.told.IsZero():
		return r.told
	case r.snapshot == nil:
		return r.observed
	}
	return r.snapshot.Ended
}

func (r *report) source() event.Source {
	switch {
	case !r.told.IsZero():
		return event.SourceKernel
	case r.recovered:
		return event.SourceRecovered
	}
	return event.SourceScan
}

// startSource is the source of a start that the kernel did not tell of: what began
// under the eyes of this run was not recovered.
func (r *report) startSource(p *event.Process) event.Source {
	if r.recovered && p.StartTime.After(r.watching) {
		return event.SourceScan
	}
	return r.source()
}

// startEvent reports the start of p. began is when that was, since boot, if the kernel
// told of it; else 0.
func (r *report) startEvent(p *event.Process, began time.Duration) *event.Event {
	e := r.newEvent(event.KindStart, r.startSource(p), p)
	switch {
	case began != 0:
		e.Source, e.Time, e.BootTime = event.SourceKernel, p.StartTime, began
	case !r.told.IsZero() && p.StartTime.IsZero():
	case !r.told.IsZero():
		e.Time, e.BootTime = p.StartTime, max(0, r.sinceBoot-r.told.Sub(p.StartTime))
	case !p.StartTime.IsZero():
		e.Time = p.StartTime
	default:
		e.NotBefore = r.before
	}
	return e
}

// stopEvent reports an end. exit is nil if nobody has told how: the process is gone, and
// can not be asked.
func (r *report) stopEvent(e *entry, p *event.Process, exit *event.Exit) *event.Event {
	stop := r.newEvent(event.KindStop, r.source(), p)
	if stop.Exit = exit; exit == nil && !stop.Process.Missing.Absent().Has(event.FieldExit) {
		stop.Process.Missing.Gone = stop.Process.Missing.Gone.With(event.FieldExit)
	}
	if r.told.IsZero() {
		stop.NotBefore = e.seenAt()
	}
	return stop
}

// stopGone reports an entry that leaves the table. Whoever was reported as
// started gets a stop, in scope or not.
func (r *report) stopGone(e *entry) {
	switch {
	case e.has(flagReported) && e.has(flagEnded): // its stop was reported
		r.units = append(r.units, unit{remove: e.process.ID})
	case e.has(flagReported):
		r.units = append(r.units, unit{events: []*event.Event{r.stopEvent(e, e.process, nil)}, remove: e.process.ID})
	case e.has(flagHeld) && !e.has(flagExcluded):
		if u := r.endHeld(e, e.process, nil); len(u.events) > 0 {
			r.units = append(r.units, u)
		}
	}
}

// endHeld deals with a process that ended while its start was held back; p is how.
// One that was due may have lived long enough, so it is reported after all.
func (r *report) endHeld(e *entry, p *event.Process, exit *event.Exit) unit {
	if r.at().Before(r.table.made.Add(e.due)) {
		r.shortLived++
		return unit{}
	}
	if p.ParentID.IsZero() { // else it is known from the time when it lived
		r.resolveParent(p)
	}
	began := *e.process
	began.ParentID, began.Missing = p.ParentID, p.Missing
	stop := r.stopEvent(e, p, exit)
	return unit{events: []*event.Event{r.startEvent(&began, e.start), stop}}
}

// stopZombie reports that a living entry has become a zombie. It stays in the
// table, so that it is not taken for a new process, until it vanishes.
func (r *report) stopZombie(e *entry, o *Observation) {
	p := *e.process
	used := p.CPU
	setVolatile(&p, o)
	p.CPU = max(used, o.CPU)
	switch {
	case e.has(flagReported):
		r.units = append(r.units, unit{events: []*event.Event{r.stopEvent(e, &p, o.Exit)}, put: &p})
	case e.has(flagHeld) && !e.has(flagExcluded):
		u := r.endHeld(e, &p, o.Exit)
		u.put = &p
		r.units = append(r.units, u)
		e.flags |= flagReported
	}
	e.process = &p
	e.flags = e.flags&^(flagHeld|flagLeftOut) | flagEnded
}

// newEntry is the entry of a process that the table does not know.
func (r *report) newEntry(o *Observation) entry {
	p := o.Process
	p.Generation = r.generation(o.PID, o.StartTicks, r.table.at(o.PID))
	p.ID = r.identity(p)
	setVolatile(p, o)
	e := entry{
		pid: o.PID, ticks: o.StartTicks, cpu: o.CPU, rss: o.RSS, process: p,
		flags: flagCPUKnown | flagPointsKnown, seen: r.snapshot.Began.UnixNano(),
	}
	e.noteReadable(p)
	e.note(flagExcluded, r.settings.Exclude.Matches(p))
	switch {
	case o.ended():
		e.flags |= flagEnded
	case !e.has(flagExcluded):
		r.hold(&e)
	}
	return e
}

// generation tells a process from one that ended with the same PID in the same
// tick; old is who had the PID before, if that is known. If the start is not known,
// nothing but chance can tell it from all that had the PID before.
func (r *report) generation(pid int32, ticks uint64, old *entry) uint32 {
	if ticks == 0 {
		return rand.Uint32()
	}
	n := r.generations[life{pid, ticks}]
	if !r.told.IsZero() {
		n = r.generations.next(pid, ticks)
	}
	if old != nil && (old.ticks == ticks || old.ticks == 0) {
		n = max(n, old.process.Generation+1)
	}
	return n
}

func (r *report) identity(p *event.Process) event.ID {
	return event.Identity{
		HostID: r.host.HostID, BootID: r.host.BootID, PIDNamespace: r.host.PIDNamespace,
		PID: p.PID, StartTicks: p.StartTicks, Generation: p.Generation,
	}.ID()
}

// hold holds back a new process that is too young. The wall clock may have been
// set since it started, so it never waits longer than a whole lifetime.
func (r *report) hold(e *entry) {
	least := r.settings.MinLifetime
	if least <= 0 || e.process.StartTime.IsZero() {
		return
	}
	now := r.observed
	if !r.told.IsZero() {
		now = r.told
	}
	age := max(0, now.Sub(e.process.StartTime))
	if age < least {
		e.flags |= flagHeld
		r.table.holds = true
		e.due = now.Add(least - age).Sub(r.table.made)
	}
}

// startZombies reports the new processes that have ended already.
func (r *report) startZombies(fresh []int) {
	for _, j := range fresh {
		o := &r.snapshot.Observations[j]
		if !o.ended() {
			continue
		}
		i, _ := slices.BinarySearchFunc(r.table.entries, o.PID, func(e entry, pid int32) int { return cmp.Compare(e.pid, pid) })
		r.startZombie(&r.table.entries[i], o)
	}
}

// suppress counts a zombie that did not live long enough. It stays in the table,
// the durable one too, without an event: it must not be taken for a new process, and
// by the next start of procmond it would be old enough.
func (r *report) suppress(e *entry, o *Observation) {
	p := *e.process
	setVolatile(&p, o)
	r.shortLived++
	r.units = append(r.units, unit{put: &p})
	e.process = &p
	e.flags = e.flags&^flagHeld | flagEnded | flagReported
}

func (r *report) startZombie(e *entry, o *Observation) {
	p := e.process
	young := !p.StartTime.IsZero() && r.observed.Sub(p.StartTime) < r.settings.MinLifetime
	switch {
	case e.has(flagExcluded):
		return
	case young:
		r.suppress(e, o)
		return
	}
	r.resolveParent(p)
	stop := r.newEvent(event.KindStop, r.startSource(p), p)
	stop.NotBefore, stop.Exit = p.StartTime, o.Exit
	e.flags |= flagReported
	r.units = append(r.units, unit{events: []*event.Event{r.startEvent(p, 0), stop}, put: p})
}

// start reports an admitted process.
func (r *report) start(e *entry) {
	if e.process.ParentID.IsZero() {
		r.resolveParent(e.process)
	}
	e.flags |= flagReported
	e.rss = e.process.RSS
	r.units = append(r.units, unit{start: e.process, began: e.start})
}

// resolveParent fills in the id of the parent, if the table knows it. p must
// not have been handed out yet.
func (r *report) resolveParent(p *event.Process) {
	p.ParentID = event.ID{}
	if p.PPID == 0 || p.Missing.Absent().Has(event.FieldParent) {
		return
	}
	if parent := r.table.find(p.PPID); parent != nil {
		p.ParentID = parent.process.ID
	} else {
		p.Missing.Gone = p.Missing.Gone.With(event.FieldParent)
	}
}

func setVolatile(p *event.Process, o *Observation) {
	p.State, p.Threads, p.CPU = o.State, o.Threads, o.CPU
	p.RSS, p.RSSKind = o.RSS, o.RSSKind
}
