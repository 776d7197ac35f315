package collect

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// Hasher digests the executables of processes, aside: none of its methods waits
// for a file that does not answer.
type Hasher interface {
	// Look fills in Hash of each target: the digest if it is known already, why
	// there will be none, or pending. It may be called by one goroutine at a time.
	Look(ctx context.Context, targets []HashTarget)
	// Ready is received from when there may be something to take.
	Ready() <-chan struct{}
	// Take returns what became of targets that were pending. It may be too little:
	// whoever is still pending is to be asked for again.
	Take() []HashTarget
}

// HashTarget is a process whose executable is digested.
type HashTarget struct {
	PID        int32
	StartTicks uint64    // tells the process from a later one with its PID
	StartTime  time.Time // the same on the wall clock, where the host has no better; may be zero
	Exe        string    // path, as it was recorded; another one is another executable
	Hash       event.Hash
}

// sameHash reports whether b says no more than a. One that will follow, or is not
// computed any more, is no news.
func sameHash(a, b *event.Process) bool {
	return !settled(b.Hash) ||
		a.Hash.Status == b.Hash.Status && a.Hash.Algorithm == b.Hash.Algorithm && slices.Equal(a.Hash.Value, b.Hash.Value)
}

// hashText is the digest, or why there is none.
func hashText(p *event.Process) string {
	if p.Hash.Status == event.HashSkipped {
		return "skipped: " + p.Hash.Reason
	}
	return hex.EncodeToString(p.Hash.Value)
}

// lastHash is what the last event of a process says: nothing will follow.
func lastHash(h event.Hash) event.Hash {
	if h.Status == event.HashPending {
		return event.Hash{Status: event.HashSkipped, Reason: reasonEnded}
	}
	return h
}

// reasonEnded is why a stop has no digest though its start promised one.
const reasonEnded = "ended before it was read"

// settled reports whether nothing more will come.
func settled(h event.Hash) bool { return h.Status == event.HashDone || h.Status == event.HashSkipped }

// hashing is what a job needs to fill in digests.
type hashing struct {
	hasher  Hasher // nil: off
	exclude *Scope
	execs   execs // of earlier scans, which the one in progress is not told again
}

// newHashing is that of a job that begins now.
func (c *Collector) newHashing() hashing {
	return hashing{hasher: c.cfg.Hasher, exclude: &c.run.settings.Exclude, execs: maps.Clone(c.run.execs)}
}

// hash fills in the digests of the records that the job brings: what is known of
// the same image stays. It returns those of the processes that the table has
// without one.
func (j *job) hash(ctx context.Context) (late []HashTarget) {
	var targets []HashTarget
	var records []*event.Process // of the targets; nil where the table has it
	i := 0
	for k := range j.snapshot.Observations {
		o := &j.snapshot.Observations[k]
		for i < len(j.known) && j.known[i].pid < o.PID {
			i++
		}
		var e *entry
		if i < len(j.known) && j.known[i].pid == o.PID && j.known[i].is(o) {
			e = &j.known[i]
		}
		if j.hashing.asks(e, o) {
			targets, records = append(targets, targetOf(e, o)), append(records, o.Process)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	j.hashing.hasher.Look(ctx, targets)
	for k, record := range records {
		if record != nil {
			record.Hash = targets[k].Hash
			record.Missing = without(record.Missing, event.FieldHash)
		} else if settled(targets[k].Hash) {
			late = append(late, targets[k])
		}
	}
	return late
}

// asks reports whether the executable of a process must be looked at; e is its
// entry, or nil. Where the digest is known it fills it in.
func (h *hashing) asks(e *entry, o *Observation) bool {
	if h.hasher == nil && o.Process == nil {
		return false
	}
	if e != nil && h.keeps(e, o) {
		if o.Process != nil {
			o.Process.Hash = e.process.Hash
		}
		return false
	}
	switch {
	case h.hasher == nil, o.ended():
		return false
	case o.Process != nil:
		return !withoutImage(o.Process) && !h.exclude.Matches(o.Process)
	default:
		return e != nil && e.has(flagReported) && !e.has(flagEnded) && !e.silent() && !withoutImage(e.process)
	}
}

// withoutImage: a kernel thread.
func withoutImage(p *event.Process) bool {
	return p.Exe == "" && !p.Missing.Absent().Has(event.FieldExe)
}

// keeps reports whether what is known of e is still true.
func (h *hashing) keeps(e *entry, o *Observation) bool {
	_, exec := h.execs[o.PID]
	return settled(e.process.Hash) && !exec && sameImage(e.process, o)
}

// sameImage reports whether o is of the image that old is of.
func sameImage(old *event.Process, o *Observation) bool {
	return !o.ExecChanged && (o.Process == nil || o.Process.Exe == old.Exe || o.Process.Missing.Absent().Has(event.FieldExe))
}

func targetOf(e *entry, o *Observation) HashTarget {
	p := o.Process
	if p == nil {
		p = e.process
	}
	t := HashTarget{PID: o.PID, StartTicks: o.StartTicks, StartTime: p.StartTime, Exe: p.Exe}
	if e != nil && p.Missing.Absent().Has(event.FieldExe) {
		t.Exe = e.process.Exe // which the record will have too
	}
	return t
}

// keepHash keeps in p, which is old after o, the digest of an image that is still
// the same: it may have come while o was on its way.
func keepHash(p, old *event.Process, o *Observation) {
	if !settled(p.Hash) && sameImage(old, o) {
		p.Hash = old.Hash
	}
}

// hashesReady is where the hasher calls, or nil.
func (c *Collector) hashesReady() <-chan struct{} {
	if c.cfg.Hasher == nil {
		return nil
	}
	return c.cfg.Hasher.Ready()
}

// takeHashes reports the digests that have come, and those that a job brought.
// Nothing may be in flight.
func (c *Collector) takeHashes(ctx context.Context, late []HashTarget) error {
	if c.cfg.Hasher == nil || c.table == nil {
		return nil
	}
	c.hashes = false
	r := report{host: &c.cfg.Host, settings: &c.run.settings, table: c.table, observed: time.Now()}
	for _, all := range [][]HashTarget{c.cfg.Hasher.Take(), late} {
		for i := range all {
			r.hashed(&all[i])
		}
	}
	_, err := c.appendUnits(ctx, &r, event.Batch{})
	return err
}

// hashed reports one digest. The process may be gone, or be another one by now.
func (r *report) hashed(t *HashTarget) {
	e := r.table.find(t.PID)
	if e == nil || e.ticks != t.StartTicks || e.process.Exe != t.Exe || settled(e.process.Hash) {
		return
	}
	p := *e.process
	p.Hash = t.Hash
	if e.has(flagReported) && !e.silent() {
		ev := r.newEvent(event.KindModify, event.SourceScan, &p)
		ev.Changes = []event.Change{{Field: event.FieldHash, Old: hashText(e.process), New: hashText(&p)}}
		r.units = append(r.units, unit{events: []*event.Event{ev}, put: &p})
	}
	e.process = &p
}
