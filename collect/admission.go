package collect

import (
	"cmp"
	"slices"
)

// admit starts the processes that wait for nothing but room. Those that were
// let in stay; of the others the oldest come first, so that who is left out
// does not change from cycle to cycle.
func (r *report) admit() {
	waiting, room := r.waiting()
	if len(waiting) == 0 {
		return
	}
	slices.SortFunc(waiting, byStart)
	for i, e := range waiting {
		switch {
		case i >= room:
			e.flags |= flagLeftOut
			r.leftOut++
		case e.has(flagReported):
			e.flags &^= flagLeftOut
			r.returned = true
		default:
			e.flags &^= flagLeftOut
			r.start(e)
		}
	}
}

// waiting returns who waits for room, and how much there is.
func (r *report) waiting() ([]*entry, int) {
	var waiting []*entry
	admitted := 0
	for e := range r.table.all() {
		switch {
		case e.candidate():
			waiting = append(waiting, e)
		case e.takesRoom():
			admitted++
		}
	}
	limit := r.settings.MaxProcesses
	if limit == 0 {
		return waiting, len(waiting)
	}
	return waiting, max(0, limit-admitted)
}

// byStart orders by age, then by PID. A start that is not known sorts first.
func byStart(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.ticks, b.ticks), cmp.Compare(a.pid, b.pid))
}

// limit leaves out those of the loaded processes for which there is no room
// under a limit that is lower than that of the run before: the youngest.
func (t *table) limit(most int) {
	if most == 0 {
		return
	}
	var living []*entry
	for i := range t.entries {
		if e := &t.entries[i]; e.has(flagReported) && !e.has(flagEnded|flagExcluded) {
			living = append(living, e)
		}
	}
	slices.SortFunc(living, byStart)
	for _, e := range living[min(most, len(living)):] {
		e.flags |= flagLeftOut
	}
}
