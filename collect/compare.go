package collect

import (
	"slices"
	"time"
)

// differences are what a comparison found, as indexes. They are reused from
// cycle to cycle, so that a cycle without differences makes no garbage.
type differences struct {
	gone    []int // entries that are not there any more, by PID
	fresh   []int // observations of processes that are new, by PID
	ended   []met // living entries seen as zombies
	changed []met // living entries with something to look at
}

// met is an entry with its observation.
type met struct {
	entry, observation int
	points             float64 // CPU usage since the last comparison
	memory, cpu        bool    // the thresholds were passed
}

func (d *differences) reset() {
	*d = differences{gone: d.gone[:0], fresh: d.fresh[:0], ended: d.ended[:0], changed: d.changed[:0]}
}

// thresholds are the settings that a comparison needs.
type thresholds struct {
	memory, cpu float64
}

// compareWith notes in d how s differs from the table, and in the table what is
// only bookkeeping: CPU times and who was seen. Entries whose PID is in keep
// are not gone even if they are not in s.
func (t *table) compareWith(s *Snapshot, th thresholds, keep []int32, d *differences) {
	d.reset()
	c := comparison{table: t, snapshot: s, limits: th, differences: d, now: s.Began.UnixNano()}
	if !t.compare.IsZero() {
		c.elapsed = s.Began.Sub(t.compare)
	}
	i := 0
	for j := range s.Observations {
		pid := s.Observations[j].PID
		for i < len(t.entries) && t.entries[i].pid < pid {
			c.miss(i, keep)
			i++
		}
		if i < len(t.entries) && t.entries[i].pid == pid {
			c.meet(i, j)
			i++
		} else if !t.endedSince(&s.Observations[j]) {
			d.fresh = append(d.fresh, j)
		}
	}
	for ; i < len(t.entries); i++ {
		c.miss(i, keep)
	}
	t.compare = s.Began
}

// comparison is one pass of compareWith.
type comparison struct {
	*differences
	limits   thresholds
	table    *table
	snapshot *Snapshot
	now      int64
	elapsed  time.Duration // since the last comparison, 0 if there was none
}

func (c *comparison) miss(i int, keep []int32) {
	if e := &c.table.entries[i]; !e.has(flagTouched) && !slices.Contains(keep, e.pid) {
		c.gone = append(c.gone, i)
	}
}

// meet compares an entry with the observation of the same PID.
func (c *comparison) meet(i, j int) {
	e, o := &c.table.entries[i], &c.snapshot.Observations[j]
	switch {
	case e.has(flagTouched):
		c.meetTouched(e, o)
	case !e.is(o) || e.has(flagEnded) && !o.ended():
		c.gone = append(c.gone, i)
		c.fresh = append(c.fresh, j)
	case e.has(flagEnded):
	case o.ended():
		c.ended = append(c.ended, met{entry: i, observation: j})
	default:
		c.meetAlive(i, j)
	}
}

// meetTouched: the kernel told of the process while the scan was on its way, and has
// the last word.
func (c *comparison) meetTouched(e *entry, o *Observation) {
	if o.Process != nil {
		e.flags |= flagReread // the scanner will not bring it again by itself
	}
	if e.is(o) && !e.has(flagEnded) {
		e.cpu, e.seen = o.CPU, c.now
		e.flags |= flagCPUKnown
	}
}

func (c *comparison) meetAlive(i, j int) {
	e, o := &c.table.entries[i], &c.snapshot.Observations[j]
	if o.Process != nil {
		e.flags &^= flagReread
	}
	if e.has(flagMemoryUnknown) {
		e.rss = o.RSS
		e.flags &^= flagMemoryUnknown
	}
	m := met{entry: i, observation: j}
	if e.has(flagCPUKnown) && c.elapsed > 0 {
		m.points = points(o.CPU-e.cpu, c.elapsed)
		c.measure(e, o, &m)
	}
	if c.limits.memory > 0 && memoryMoved(e.rss, o.RSS, c.limits.memory) && readsMemory(e, o) {
		m.memory = true
	}
	e.cpu, e.seen = o.CPU, c.now
	e.flags |= flagCPUKnown
	if m.memory || m.cpu || e.ticks != o.StartTicks && e.ticks == 0 || o.Process != nil && news(e, o) {
		c.changed = append(c.changed, m)
	}
}

// news reports whether the record that came with o must be looked at. One of
// another source or other settings may lack what the table still has.
func news(e *entry, o *Observation) bool {
	return o.ExecChanged || !e.has(flagReported) || e.silent() || differ(e.process, o.Process) ||
		e.process.Missing.Unsupported != o.Process.Missing.Unsupported
}

// measure judges the CPU usage.
func (c *comparison) measure(e *entry, o *Observation, m *met) {
	if !e.has(flagPointsKnown) {
		e.points = m.points // what an earlier run reported is not known
		e.flags |= flagPointsKnown
		return
	}
	m.cpu = c.limits.cpu > 0 && cpuMoved(e.points, m.points, c.limits.cpu) && readsCPU(e, o)
}
