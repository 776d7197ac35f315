package collect

import (
	"cmp"
	"slices"
	"time"
)

// dueHeld are the PIDs of the starts that are held back and due at now, and the
// moment at which the next one will be (zero: none).
func (t *table) dueHeld(now time.Time) (due []int32, next time.Time) {
	if !t.holds {
		return nil, time.Time{}
	}
	for e := range t.all() {
		if !e.has(flagHeld) {
			continue
		}
		if at := t.made.Add(e.due); !at.After(now) {
			due = append(due, e.pid)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	t.holds = len(due) > 0 || !next.IsZero()
	slices.Sort(due)
	return due, next
}

// held counts the starts that are held back.
func (t *table) held() int {
	n := 0
	if !t.holds {
		return n
	}
	for e := range t.all() {
		if e.has(flagHeld) {
			n++
		}
	}
	return n
}

// releaseAll makes every start that is held back due.
func (t *table) releaseAll() {
	for e := range t.all() {
		if e.has(flagHeld) {
			e.due = 0
		}
	}
}

// release reports the processes of due that are still there: found is what was
// seen of them just now, sorted by PID, and those in unsure could not be asked
// for. Of these their life is assumed, because they were seen once.
func (r *report) release(due []int32, found []Observation, unsure []int32) {
	for _, pid := range due {
		e := r.table.at(pid)
		if e == nil || !e.has(flagHeld) || r.table.made.Add(e.due).After(r.observed) { // somebody else by now
			continue
		}
		o := findObservation(found, pid)
		switch {
		case e.has(flagTouched): // the kernel knows better
			e.flags &^= flagHeld
		case o != nil && e.is(o) && !o.ended():
			e.process = merged(e.process, o)
			e.noteReadable(e.process)
			e.flags &^= flagHeld
			e.note(flagExcluded, r.settings.Exclude.Matches(e.process))
		case o == nil && slices.Contains(unsure, pid):
			e.flags &^= flagHeld
		default:
			if o != nil && e.is(o) {
				r.suppress(e, o)
			} else {
				r.shortLived++
				r.table.drop(e)
			}
		}
	}
	r.admit()
}

// findObservation returns the observation of pid among those sorted by PID, or
// nil.
func findObservation(all []Observation, pid int32) *Observation {
	i, ok := slices.BinarySearchFunc(all, pid, func(o Observation, pid int32) int { return cmp.Compare(o.PID, pid) })
	if !ok {
		return nil
	}
	return &all[i]
}
