package collect

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// flags are what the table notes about a process.
type flags uint16

const (
	flagReported      flags = 1 << iota // its start is durable
	flagEnded                           // a zombie whose end was dealt with; it only waits to vanish
	flagExcluded                        // Settings.Exclude matches it
	flagHeld                            // too young to be reported
	flagLeftOut                         // Settings.MaxProcesses leaves it out
	flagUnreadable                      // some fields are denied or failed
	flagCPUKnown                        // cpu is what the last comparison saw
	flagPointsKnown                     // points is what was reported last
	flagMemoryUnknown                   // rss is yet to be measured
	flagGone                            // it is not there any more: settle takes it out
	flagTouched                         // the kernel told of it since the last scan began
	flagStartApprox                     // its start may be that of the tick before
	flagReread                          // what a scan brought of it was too old: the next one must read it whole
)

// entry is one process of the table.
type entry struct {
	pid    int32
	flags  flags
	ticks  uint64        // of its start, 0 if unknown
	start  time.Duration // the same as the kernel has it, since boot; 0 if unknown
	cpu    time.Duration // at the last comparison
	rss    uint64        // as last reported
	points float64       // CPU usage as last reported, in points of one core
	seen   int64         // begin of the last scan that saw it alive, Unix nanoseconds; 0 if none
	due    time.Duration // when a held start is due, since table.made

	// process is the record as last reported (or, while unreported, as last
	// read). It is replaced, never changed: batches share it.
	process *event.Process
	// unsaid is what became of it since, while scope keeps it quiet; else nil.
	unsaid *event.Process
}

func (e *entry) has(f flags) bool { return e.flags&f != 0 }

// silent: it lives, its start was reported, and scope keeps it quiet.
func (e *entry) silent() bool { return e.has(flagExcluded | flagLeftOut) }

// present is the record of what the process is now, reported or not.
func (e *entry) present() *event.Process {
	if e.unsaid != nil {
		return e.unsaid
	}
	return e.process
}

// takesRoom: it is one of MaxProcesses.
func (e *entry) takesRoom() bool { return e.has(flagReported) && !e.has(flagEnded) && !e.silent() }

// candidate: nothing but room is needed to report on it.
func (e *entry) candidate() bool {
	return !e.has(flagEnded|flagExcluded|flagHeld) && (!e.has(flagReported) || e.has(flagLeftOut))
}

// is reports whether o can be the same process: an unknown start is not another
// start.
func (e *entry) is(o *Observation) bool {
	return e.ticks == o.StartTicks || e.ticks == 0 || o.StartTicks == 0 || e.has(flagStartApprox) && nextTo(e.ticks, o.StartTicks)
}

func nextTo(a, b uint64) bool { return max(a, b)-min(a, b) <= 1 }

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
	// born are processes that started since the last settle, which puts them in order:
	// to insert each one would move half of the others.
	born map[int32]*entry
	gone int // entries with flagGone
	// ended are PIDs of which the kernel said that who had it has ended since the last scan
	// began, with the start of the last who had. The scan may have seen them alive.
	ended   map[int32]uint64
	compare time.Time // begin of the last scan it was compared with; zero: none
	made    time.Time // what held starts are timed from, so that a step of the wall clock does not hold them for ever
	holds   bool      // there may be held starts
}

// newTable is the table that the store holds.
func newTable(stored *event.Table, exclude *Scope) *table {
	t := &table{entries: make([]entry, 0, len(stored.Processes)), born: make(map[int32]*entry), ended: make(map[int32]uint64), made: time.Now()}
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
	e.note(flagStartApprox, startApprox(p))
	e.note(flagMemoryUnknown, p.Missing.Absent().Has(event.FieldRSS))
	e.noteReadable(p)
	return e
}

// startApprox reports whether p may have started in the clock tick before.
func startApprox(p *event.Process) bool { return p.Missing.Truncated.Has(event.FieldStartTime) }

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
	if e := t.at(pid); e != nil && !e.has(flagEnded) {
		return e
	}
	return nil
}

// at is find for a process that may have ended.
func (t *table) at(pid int32) *entry {
	if e := t.born[pid]; e != nil {
		return e
	}
	i, ok := slices.BinarySearchFunc(t.entries, pid, func(e entry, pid int32) int { return cmp.Compare(e.pid, pid) })
	for ; ok && i < len(t.entries) && t.entries[i].pid == pid; i++ {
		if !t.entries[i].has(flagGone) {
			return &t.entries[i]
		}
	}
	return nil
}

// bear adds a process that nobody else has the PID of.
func (t *table) bear(e entry) *entry {
	t.born[e.pid] = &e
	return &e
}

// drop takes out an entry; its place may stay until the next settle.
func (t *table) drop(e *entry) {
	if t.born[e.pid] == e {
		delete(t.born, e.pid)
		return
	}
	e.flags = flagGone
	e.process = nil
	t.gone++
}

// all are the processes in no order, for a pass that leaves the layout alone.
func (t *table) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := range t.entries {
			if e := &t.entries[i]; !e.has(flagGone) && !yield(e) {
				return
			}
		}
		for _, e := range t.born {
			if !yield(e) {
				return
			}
		}
	}
}

// size is how many processes there are, whatever their flags.
func (t *table) size() int { return len(t.entries) - t.gone + len(t.born) }

// noteEnd remembers that a process, which started at ticks if that is not 0, has ended.
func (t *table) noteEnd(pid int32, ticks uint64) {
	if ticks == 0 {
		ticks = math.MaxUint64
	}
	t.ended[pid] = max(t.ended[pid], ticks)
}

// endedSince reports whether the process that was seen has ended since the last scan
// began: it, or one that had its PID later.
func (t *table) endedSince(o *Observation) bool {
	ticks, ok := t.ended[o.PID]
	return ok && o.StartTicks <= ticks
}

// beginScan makes all that is known until now what a scan that begins now is compared
// with.
func (t *table) beginScan() {
	t.settle()
	if len(t.ended) > 0 {
		t.ended = make(map[int32]uint64)
	}
	for i := range t.entries {
		t.entries[i].flags &^= flagTouched
	}
}

// settle puts all processes in order. Indexes and pointers are of no use any more.
func (t *table) settle() {
	if t.gone > 0 {
		t.entries = slices.DeleteFunc(t.entries, func(e entry) bool { return e.has(flagGone) })
		t.gone = 0
	}
	if len(t.born) == 0 {
		return
	}
	fresh := make([]entry, 0, len(t.born))
	for _, e := range t.born {
		fresh = append(fresh, *e)
	}
	slices.SortFunc(fresh, func(a, b entry) int { return cmp.Compare(a.pid, b.pid) })
	t.insert(fresh)
	t.born = make(map[int32]*entry) // a map never gives its memory back
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
