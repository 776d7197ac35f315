package collect

import (
	"slices"

	"daemoneye.dev/procmond/collect/event"
)

// change takes over what was seen of an entry, and reports it if the entry is
// one that is reported on.
func (r *report) change(e *entry, m met) {
	o := &r.snapshot.Observations[m.observation]
	if o.StartTicks != 0 {
		e.ticks = o.StartTicks
	}
	if o.Process != nil {
		was := e.has(flagExcluded)
		e.note(flagExcluded, r.settings.Exclude.Matches(o.Process))
		if was && !e.has(flagExcluded) && e.has(flagReported) && r.settings.MaxProcesses > 0 {
			e.flags |= flagLeftOut // there may be no room for it any more: see admit
		}
	}
	switch {
	case !e.has(flagReported):
		e.process = merged(e.process, o)
		e.noteReadable(e.process)
	case !e.silent():
		r.reportChange(e, o, m)
	case o.Process != nil: // it keeps its last report, to be compared with when it is back
		e.unsaid = merged(e.present(), o)
	}
}

func (r *report) reportChange(e *entry, o *Observation, m met) {
	old, now := e.process, merged(e.process, o)
	changes := r.changesOf(e, now, m)
	exec := o.Process != nil && (o.ExecChanged || hasChanged(changes, event.FieldExe) && !absentBefore(old).Has(event.FieldExe))
	switch {
	case len(changes) > 0 || exec:
		r.changes = append(r.changes, unit{events: []*event.Event{r.changeEvent(now, changes, exec)}, put: now})
		e.rss = now.RSS
	case now.StartTicks != old.StartTicks:
		r.changes = append(r.changes, unit{put: now}) // its start became known
	}
	e.process, e.unsaid = now, nil
	e.noteReadable(now)
}

func (r *report) changeEvent(now *event.Process, changes []event.Change, exec bool) *event.Event {
	kind := event.KindModify
	if exec {
		kind = event.KindExec
	}
	ev := r.newEvent(kind, r.source(), now)
	ev.Changes = changes
	ev.NotBefore = r.before
	return ev
}

// changesOf are all changed fields, those over their thresholds among them.
func (r *report) changesOf(e *entry, now *event.Process, m met) []event.Change {
	absent := now.Missing.Absent() // before a parent that is not known adds to it
	if e.process.PPID != now.PPID {
		r.resolveParent(now)
	}
	changes := changesBetween(e.process, now, absent)
	if m.memory {
		changes = append(changes, event.Change{Field: event.FieldRSS, Old: memoryText(e.rss), New: memoryText(now.RSS)})
	}
	if m.cpu {
		changes = append(changes, event.Change{Field: event.FieldCPU, Old: cpuText(e.points), New: cpuText(m.points)})
		e.points = m.points
	}
	slices.SortFunc(changes, func(a, b event.Change) int { return int(a.Field) - int(b.Field) })
	return changes
}

func hasChanged(changes []event.Change, f event.Field) bool {
	return slices.ContainsFunc(changes, func(c event.Change) bool { return c.Field == f })
}

// merged is the record of a process after o: its identity as it was given once,
// what o says, and the last known value of what o could not read.
func merged(old *event.Process, o *Observation) *event.Process {
	var p event.Process
	if o.Process != nil {
		p = *o.Process
		carry(old, &p)
	} else {
		p = *old
	}
	p.ID, p.PID, p.Generation = old.ID, old.PID, old.Generation
	if p.PPID == old.PPID {
		p.ParentID = old.ParentID
		keepParentMask(&p, old)
	}
	if !old.StartTime.IsZero() {
		p.StartTime = old.StartTime // the wall clock may have been set meanwhile
	}
	p.StartTicks = old.StartTicks
	if o.StartTicks != 0 && (old.StartTicks == 0 || startApprox(old)) {
		p.StartTicks = o.StartTicks
		p.Missing.Truncated = p.Missing.Truncated.Without(event.FieldStartTime)
	}
	setVolatile(&p, o)
	keepHash(&p, old, o)
	return &p
}

// keepParentMask keeps saying that the parent is not known.
func keepParentMask(p, old *event.Process) {
	if old.Missing.Gone.Has(event.FieldParent) {
		p.Missing.Gone = p.Missing.Gone.With(event.FieldParent)
	}
}
