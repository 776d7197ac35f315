package collect

import (
	"cmp"
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// flags are what the table notes about a process.
type flags uint16

const (
	flagReported    flags = 1 << iota // its start is durable
	flagEnded                         // a zombie whose end was dealt with; it only waits to vanish
	flagExcluded                      // Settings.Exclude matches it
	flagHeld                          // too young to be reported
	flagLeftOut                       // Settings.MaxProcesses leaves it out
	flagUnreadable                    // some fields are denied or failed
	flagCPUKnown                      // cpu is what the last comparison saw
	flagPointsKnown                   // points is what was reported last
)

// entry is one process of the table.
type entry struct {
	pid    int32
	flags  flags
	ticks  uint64        // of its start, 0 if unknown
	cpu    time.Duration // at the last comparison
	rss    uint64        // as last reported
	points float64       // CPU usage as last reported, in points of one core
	seen   int64         // begin of the last scan that saw it alive, Unix nanoseconds; 0 if none
	due    time.Duration // when a held start is due, since table.made

	// process is the record as last reported (or, while unreported, as last
	// read). It is replaced, never changed: batches share it.
	process *event.Process
}

func (e *entry) has(f flags) bool { return e.flags&f != 0 }

// silent: it lives, its start was reported, and scope keeps it quiet.
func (e *entry) silent() bool { return e.has(flagExcluded | flagLeftOut) }

// candidate: nothing but room is needed to report on it.
func (e *entry) candidate() bool {
	return !e.has(flagEnded|flagExcluded|flagHeld) && (!e.has(flagReported) || e.has(flagLeftOut))
}

// is reports whether o can be the same process: an unknown start is not another
// start.
func (e *entry) is(o *Observation) bool {
	return e.ticks == o.StartTicks || e.ticks == 0 || o.StartTicks == 0
}

func (e *entry) seenAt() time.Time {
	if e.seen == 0 {
		return time.Time{}
	}
	return time.Unix(0, e.seen)
}

// ended reports whether the process is no more than an entry for its parent to
// collect. One whose first thread has ended while others run is alive.
func (o *Observation) ended() bool { return o.State == event.StateZombie && o.Threads <= 1 }

// table is the live process table in memory, sorted by PID. Two entries with
// one PID happen only where a crash left them so; the newer is first.
//
// It is changed before the events that say so are durable: if these can not be
// appended, the table is thrown away and the durable one is loaded.
type table struct {
	entries []entry
	compare time.Time // begin of the last scan it was compared with; zero: none
	made    time.Time // what held starts are timed from, so that a step of the wall clock does not hold them for ever
}

// newTable is the table that the store holds.
func newTable(stored *event.Table, exclude *Scope) *table {
	t := &table{entries: make([]entry, 0, len(stored.Processes)), made: time.Now()}
	for _, p := range stored.Processes {
		t.entries = append(t.entries, loadedEntry(p, stored.AsOf, exclude))
	}
	slices.SortFunc(t.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(b.ticks, a.ticks), cmp.Compare(b.process.Generation, a.process.Generation))
	})
	return t
}

func loadedEntry(p *event.Process, asOf time.Time, exclude *Scope) entry {
	e := entry{pid: p.PID, flags: flagReported, ticks: p.StartTicks, rss: p.RSS, process: p}
	if !asOf.IsZero() {
		e.seen = asOf.UnixNano()
	}
	if p.State == event.StateZombie && p.Threads <= 1 {
		e.flags |= flagEnded
	}
	e.note(flagExcluded, exclude.Matches(p))
	e.noteReadable(p)
	return e
}

func (e *entry) note(f flags, on bool) {
	if on {
		e.flags |= f
	} else {
		e.flags &^= f
	}
}

func (e *entry) noteReadable(p *event.Process) {
	e.note(flagUnreadable, p.Missing.Denied|p.Missing.Failed != 0)
}

// find returns the living process with this PID, or nil. The pointer is valid
// until the layout changes.
func (t *table) find(pid int32) *entry {
	i, ok := slices.BinarySearchFunc(t.entries, pid, func(e entry, pid int32) int { return cmp.Compare(e.pid, pid) })
	if !ok || t.entries[i].has(flagEnded) {
		return nil
	}
	return &t.entries[i]
}

// replace takes out the entries at the indexes in gone and puts in those of
// fresh; both are sorted.
func (t *table) replace(gone []int, fresh []entry) {
	t.remove(gone)
	t.insert(fresh)
}

func (t *table) remove(gone []int) {
	if len(gone) == 0 {
		return
	}
	kept := t.entries[:gone[0]]
	for i := gone[0]; i < len(t.entries); i++ {
		if len(gone) > 0 && gone[0] == i {
			gone = gone[1:]
			continue
		}
		kept = append(kept, t.entries[i])
	}
	clear(t.entries[len(kept):]) // lets go of the records
	t.entries = kept
}

// insert puts fresh in from the back, so that each entry is moved once. What is
// fresh goes behind an entry with the same PID.
func (t *table) insert(fresh []entry) {
	i, j := len(t.entries)-1, len(fresh)-1
	t.entries = append(slices.Grow(t.entries, len(fresh)), fresh...)
	for k := len(t.entries) - 1; j >= 0; k-- {
		if i >= 0 && t.entries[i].pid > fresh[j].pid {
			t.entries[k] = t.entries[i]
			i--
		} else {
			t.entries[k] = fresh[j]
			j--
		}
	}
}
