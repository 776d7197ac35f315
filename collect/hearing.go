package collect

import (
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/kernel"
)

// eventsOfRecord is the most that one record can make: start and stop of a held process
// whose end was not told, the start of one of which that was not told either, and what
// the record says.
const eventsOfRecord = 4

// hearing turns records of the kernel into one batch and brings the table up to date.
type hearing struct {
	report
	heard    *heard
	events   Events
	groups   Groups
	redactor *event.Redactor
	hashes   bool
	scanning bool // a scan is on its way
	totals   *Totals
	room     int // for processes under MaxProcesses
	leftOut  func()

	batch event.Batch
	size  int
	rows  []row
	at    map[event.ID]int // in rows
}

// row is what becomes of a process in the durable table.
type row struct {
	put  *event.Process
	id   event.ID
	born bool // the durable table does not have it yet
	gone bool
}

func (c *Collector) newHearing() *hearing {
	r := &hearing{
		report: report{host: &c.cfg.Host, settings: &c.run.settings, table: c.table, observed: time.Now(), generations: c.run.heard.generations},
		heard:  &c.run.heard, events: c.cfg.Events, groups: c.cfg.Groups, redactor: c.run.settings.Redactor, hashes: c.cfg.Hasher != nil,
		scanning: c.job != nil, totals: &c.run.totals, at: make(map[event.ID]int),
	}
	r.leftOut = func() { c.noteLeftOut(1, r.observed, r.observed) }
	if c.run.settings.MaxProcesses > 0 {
		_, r.room = r.waiting()
	}
	return r
}

// fits reports whether one more record fits the batch.
func (h *hearing) fits() bool {
	return len(h.batch.Events) <= maxBatchEvents-eventsOfRecord && h.size < maxBatchBytes
}

// finish is the batch.
func (h *hearing) finish() *event.Batch {
	for i := range h.rows {
		switch r := &h.rows[i]; {
		case !r.gone:
			h.batch.Put = append(h.batch.Put, r.put)
		case !r.born:
			h.batch.Delete = append(h.batch.Delete, r.id)
		}
	}
	return &h.batch
}

// row is the one of a process.
func (h *hearing) row(id event.ID) *row {
	i, ok := h.at[id]
	if !ok {
		i = len(h.rows)
		h.rows = append(h.rows, row{id: id})
		h.at[id] = i
	}
	return &h.rows[i]
}

// put makes p what the durable table says; fresh if it says nothing yet.
func (h *hearing) put(p *event.Process, fresh bool) {
	r := h.row(p.ID)
	if r.put == nil && !r.gone {
		r.born = fresh
	}
	r.put, r.gone = p, false
	h.size += processSize(p)
}

func (h *hearing) remove(id event.ID) { h.row(id).gone = true }

func (h *hearing) tell(e *event.Event) {
	h.batch.Events = append(h.batch.Events, e)
	h.size += processSize(&e.Process)
	for i := range e.Changes {
		h.size += len(e.Changes[i].Old) + len(e.Changes[i].New)
	}
}

// apply takes one record over.
func (h *hearing) apply(r *kernel.Record) {
	h.sinceBoot, h.told = r.At, h.heard.zero.Add(r.At)
	switch r.Kind {
	case kernel.KindFork:
		h.forked(r)
	case kernel.KindExec:
		h.execed(r)
	case kernel.KindExit:
		h.exited(r)
	}
}

// isOf reports whether a record is of the process of an entry.
func (e *entry) isOf(r *kernel.Record) bool {
	if (e.has(flagStartApprox) || r.StartApprox) && nextTo(e.ticks, r.Ticks()) {
		return true
	}
	toTheTick := e.start%procfile.Tick == 0 || r.Start%procfile.Tick == 0 // or not known
	if !toTheTick {
		return e.start == r.Start
	}
	return e.ticks == 0 || r.Start == 0 || e.ticks == r.Ticks()
}

// isLaterThan reports whether the process of e started after that of r, which has ended
// by now: its record comes when a scan has found e already, whose own is lost.
func (e *entry) isLaterThan(r *kernel.Record) bool {
	return r.Start != 0 && (e.ticks > r.Ticks() || e.ticks == r.Ticks() && e.start%procfile.Tick != 0 && e.start > r.Start)
}

// forked: there is a new process.
func (h *hearing) forked(r *kernel.Record) {
	e := h.table.at(r.PID)
	if e != nil && !e.has(flagEnded) && e.isOf(r) { // a scan was faster
		e.start = r.Start
		e.flags |= flagTouched
		return
	}
	if e != nil && !e.isOf(r) && e.isLaterThan(r) {
		h.totals.Unmatched++
		return
	}
	h.bear(r, e)
}

// bear adds the process of a record and reports its start. old is who had its PID.
func (h *hearing) bear(r *kernel.Record, old *entry) *entry {
	generation := h.generation(r.PID, r.Ticks(), old)
	if old != nil {
		h.succeed(old)
	}
	p := h.newborn(r)
	p.Generation = generation
	p.ID = h.identity(p)
	h.resolveParent(p)
	event.ClipProcess(p)
	e := entry{
		pid: r.PID, ticks: p.StartTicks, start: r.Start, process: p,
		flags: flagTouched | flagMemoryUnknown | flagPointsKnown | flagReread, seen: h.told.UnixNano(),
	}
	e.noteReadable(p)
	e.note(flagStartApprox, r.StartApprox)
	e.note(flagExcluded, h.settings.Exclude.Matches(p))
	if !e.has(flagExcluded) {
		h.hold(&e)
	}
	born := h.table.bear(e)
	h.begin(born)
	return born
}

// begin reports the start of a process, if nothing keeps it quiet.
func (h *hearing) begin(e *entry) {
	switch {
	case e.has(flagExcluded | flagHeld | flagReported):
		return
	case h.full():
		e.flags |= flagLeftOut
		h.leftOut()
		return
	}
	h.room--
	e.flags = e.flags&^flagLeftOut | flagReported
	h.tell(h.startEvent(e.process, e.start))
	h.put(e.process, true)
}

// succeed ends a process whose PID somebody else has now.
func (h *hearing) succeed(old *entry) {
	if old.takesRoom() {
		h.room++
	}
	h.stopGone(old)
	for i := range h.units {
		for _, e := range h.units[i].events {
			if e.Kind == event.KindStop {
				e.NotBefore = old.seenAt()
			}
			h.tell(e)
		}
		if id := h.units[i].remove; !id.IsZero() {
			h.remove(id)
		}
	}
	h.units = h.units[:0]
	h.table.drop(old)
}

// execed: a process has another image.
func (h *hearing) execed(r *kernel.Record) {
	e := h.known(r)
	if e == nil {
		return
	}
	now := h.withImage(e.present(), r)
	e.flags |= flagTouched | flagMemoryUnknown
	e.note(flagReread, e.has(flagReread) || r.At <= h.heard.base) // the scan may have seen what is later
	h.heard.execs[e.pid] = e.ticks
	e.noteReadable(now)
	excluded := e.has(flagExcluded)
	h.scope(e, now)
	switch {
	case e.has(flagReported) && e.silent():
		e.unsaid = now
	case e.has(flagReported):
		ev := h.newEvent(event.KindExec, event.SourceKernel, now)
		ev.Changes = changesBetween(e.process, now, now.Missing.Absent())
		e.process, e.unsaid = now, nil
		h.tell(ev)
		h.put(now, false)
	default:
		e.process = now
		if excluded && !e.has(flagExcluded) {
			h.hold(e)
			h.begin(e)
		}
	}
}

// scope notes whether e, which is now that, is excluded. One that was and is no longer
// needs room like a new one.
func (h *hearing) scope(e *entry, now *event.Process) {
	took, was := e.takesRoom(), e.has(flagExcluded)
	e.note(flagExcluded, h.settings.Exclude.Matches(now))
	if was && !e.has(flagExcluded|flagLeftOut) && e.has(flagReported) && h.full() {
		e.flags |= flagLeftOut
		h.leftOut()
	}
	switch takes := e.takesRoom(); {
	case took && !takes:
		h.room++
	case takes && !took:
		h.room--
	}
}

// full reports whether there is no room for another process.
func (h *hearing) full() bool { return h.settings.MaxProcesses > 0 && h.room <= 0 }

// known is the entry of the process that r is of. It is made if its start was lost;
// nil is for one that had started before anybody listened: a scan will find it.
func (h *hearing) known(r *kernel.Record) *entry {
	e := h.table.at(r.PID)
	switch {
	case e != nil && e.isOf(r) && !e.has(flagEnded):
		return e
	case e != nil && e.isOf(r): // it has ended already
		return nil
	case r.Start == 0 || r.Start < h.heard.known || e != nil && e.isLaterThan(r):
		h.totals.Unmatched++
		return nil
	}
	return h.bear(r, e)
}

// exited: a process has ended.
func (h *hearing) exited(r *kernel.Record) {
	e := h.known(r)
	if h.scanning { // the scan may have seen it alive, known or not
		h.table.noteEnd(r.PID, endTicks(e, r))
	}
	if e == nil {
		return
	}
	delete(h.heard.execs, e.pid)
	p := *e.process
	p.State, p.Threads = event.StateZombie, 1
	if r.Exit != nil {
		p.CPU = max(p.CPU, r.Exit.CPU)
	}
	zombie := h.events.Exists(r.PID)
	if e.takesRoom() {
		h.room++
	}
	switch {
	case e.has(flagReported):
		h.tell(h.stopEvent(e, &p, r.Exit))
	case e.has(flagHeld) && !e.has(flagExcluded):
		u := h.endHeld(e, &p, r.Exit)
		for _, ev := range u.events {
			h.tell(ev)
		}
	}
	h.end(e, &p, zombie)
}

// endTicks is the start of a process that has ended, whose entry e is, if it has one.
func endTicks(e *entry, r *kernel.Record) uint64 {
	if e != nil {
		return e.ticks
	}
	return r.Ticks()
}

// end takes an ended process out of the table, unless its parent has not collected it
// yet: a scan would take it for a new one.
func (h *hearing) end(e *entry, p *event.Process, zombie bool) {
	durable := e.has(flagReported)
	if !zombie {
		if durable {
			h.remove(p.ID)
		}
		h.table.drop(e)
		return
	}
	if !e.has(flagExcluded) || durable {
		h.put(p, !durable)
		e.flags |= flagReported
	}
	e.process = p
	e.flags = e.flags&^(flagHeld|flagLeftOut) | flagEnded | flagTouched
}
