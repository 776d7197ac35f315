package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// errBehind is why a good scan is of no use: it would contradict the kernel.
var errBehind = errors.New("kernel events do not come in, or not into the store")

// manyEvents is how many leave megabytes of garbage behind.
const manyEvents = 1000

// startJob begins to scan, or to probe the given PIDs.
func (c *Collector) startJob(ctx context.Context, probes []int32) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ScanDeadline)
	go c.newJob(probes, cancel).run(ctx) // joined by Serve, or by the one after it
}

// newJob is the job that is in flight from now on.
func (c *Collector) newJob(probes []int32, cancel context.CancelFunc) *job {
	if c.snapshot == nil {
		c.snapshot = &Snapshot{}
	}
	c.snapshot.Observations = c.snapshot.Observations[:0] // what fails early tells of nothing
	c.table.beginScan()
	c.known = append(c.known[:0], c.table.entries...)
	j := &job{
		scanner: c.cfg.Scanner, redactor: c.run.settings.Redactor, known: c.known,
		full: c.full, probes: probes, snapshot: c.snapshot, hashing: c.newHashing(),
		began: time.Now(), cancel: cancel, done: make(chan jobResult, 1),
	}
	c.run.inflight, c.job = j, j
	return j
}

// startScan begins a cycle.
func (c *Collector) startScan(ctx context.Context) {
	if c.scanBegan.IsZero() {
		c.cfg.Trim() // opening the store and the kernel's programs is over, the first snapshot needs room
	}
	c.nextScan = time.Now().Add(c.run.interval.Current)
	c.scanBegan = time.Now()
	c.startJob(ctx, nil)
}

// endJob takes what a job has brought.
func (c *Collector) endJob(ctx context.Context, result jobResult) error {
	j := c.run.endJob()
	if j != c.job {
		c.cfg.Log.Warn("Scan of an earlier actor has returned at last")
		return nil
	}
	if result.panicked != nil {
		panic(fmt.Sprintf("%v [in a job of the collector]\n%s", result.panicked, result.stack))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	clear(c.known) // lets go of records
	caughtUp, err := true, error(nil)
	if c.table != nil {
		caughtUp, err = c.catchUp(ctx, time.Now().Add(catchUpMost))
	}
	c.job = nil // until then, who ends is known to have ended under its eyes
	switch {
	case c.table == nil: // the store went out of service meanwhile
	case err != nil:
	case j.probes != nil:
		err = c.endRelease(ctx, j, result)
	case result.err != nil:
		c.scanFailed(result.err)
	case !caughtUp:
		c.scanFailed(errBehind)
	default:
		err = c.endScan(ctx, result)
	}
	c.applyPending()
	return err
}

// scanFailed notes a failed scan. What the scanner reported in it is lost, so
// the next one must be full.
func (c *Collector) scanFailed(err error) {
	f := &c.run.failing
	if f.count == 0 {
		f.since = c.run.cycle.LastAt
		if f.since.IsZero() {
			f.since = c.scanBegan
		}
		c.cfg.Log.WithError(err).Warn("Scan failed")
	}
	f.count++
	f.last = err.Error()
	c.run.totals.ScansFailed++
	c.full = true
}

// scanRecovered reports the window of failed scans that a good one ends.
func (c *Collector) scanRecovered(at time.Time) {
	f := &c.run.failing
	if f.count == 0 {
		return
	}
	c.run.note(c.lossEvent(event.Loss{
		Cause: event.LossScan, From: f.since, To: at,
		Hint: fmt.Sprintf("%d scans failed, the last: %s", f.count, f.last),
	}))
	c.run.failing = failing{}
}

// newReport is a report on what the snapshot says.
func (c *Collector) newReport() *report {
	return &report{
		host: &c.cfg.Host, settings: &c.run.settings, table: c.table, snapshot: c.snapshot,
		observed: time.Now(), recovered: c.recovered, watching: c.watching, before: c.before,
		generations: c.run.heard.generations,
	}
}

// endScan compares a good snapshot with the table and makes the differences
// durable.
func (c *Collector) endScan(ctx context.Context, result jobResult) error {
	c.turnTo(activityCompare)
	if err := c.takeHashes(ctx, result.hashes); err != nil { // before a stop
		return err
	}
	s := c.snapshot
	c.scanRecovered(s.Began)
	c.table.settle()
	keep, asOf := c.setAside(s)
	c.forgetTold(s)
	c.run.execs.markAll(s.Observations)
	c.table.compareWith(s, thresholds{memory: c.run.settings.MemoryThreshold, cpu: c.run.settings.CPUThreshold}, append(keep, result.unsure...), &c.found)
	r := c.newReport()
	r.cycle(&c.found)
	c.noteLeftOut(r.leftOut, s.Began, s.Ended)
	// Notes are on their own: had they gone with the first of several batches, a
	// failure of a later one would write them again.
	if err := c.flushNotes(ctx); err != nil {
		return err
	}
	events, err := c.appendUnits(ctx, r, event.Batch{AsOf: c.latest(asOf), BootID: c.cfg.Host.BootID})
	if err != nil {
		return err
	}
	clear(c.run.execs) // those without an event are of processes that are not reported on
	c.full, c.recovered, c.before = r.returned, false, s.Began
	c.run.totals.ShortLived += uint64(r.shortLived)
	c.run.cycle = c.cycleOf(s, r, events, len(result.unsure))
	c.trim()
	return nil
}

// forgetTold takes out of s the execs that the kernel had told of before the scan began:
// by now the scanner has told of them too.
func (c *Collector) forgetTold(s *Snapshot) {
	told := c.run.heard.execs
	for pid, ticks := range told {
		e := c.table.at(pid)
		switch {
		case e == nil || e.ticks != ticks: // its end was lost
		case e.has(flagTouched):
			continue // it may be an exec that the scan did not see
		default:
			if o := findObservation(s.Observations, pid); o != nil && e.is(o) {
				o.ExecChanged = false
			}
			delete(c.run.execs, pid)
		}
		delete(told, pid)
	}
}

// trim gives memory back after the first cycle, and when many events were made since.
func (c *Collector) trim() {
	if c.run.cycle.Count == 1 || c.untrimmed >= manyEvents {
		c.cfg.Trim()
		c.untrimmed = 0
	}
}

func (c *Collector) cycleOf(s *Snapshot, r *report, events, unsure int) Cycle {
	cycle := Cycle{
		Count: c.run.cycle.Count + 1, LastAt: s.Began, Duration: time.Since(c.scanBegan),
		Processes: len(s.Observations), Events: events, LeftOut: r.leftOut,
		Vanished: s.Vanished, Hidden: s.Hidden, Unconfirmed: unsure,
	}
	for e := range c.table.all() {
		switch {
		case e.has(flagEnded):
		case e.has(flagExcluded):
			cycle.Excluded++
		case e.has(flagUnreadable):
			cycle.Unreadable++
		}
	}
	return cycle
}

// noteLeftOut reports, once in a time in which that is so, that there is no room
// for all processes.
func (c *Collector) noteLeftOut(n int, from, to time.Time) {
	switch {
	case n == 0:
		c.run.leftOutSince = time.Time{}
	case c.run.leftOutSince.IsZero():
		c.run.leftOutSince = from
		c.run.note(c.lossEvent(event.Loss{
			Cause: event.LossMaxProcesses, From: from, To: to, Count: uint64(n), Known: true,
			Hint: fmt.Sprintf("Raise max_processes, which is %d.", c.run.settings.MaxProcesses),
		}))
	}
}

// endRelease reports the held starts that were probed.
func (c *Collector) endRelease(ctx context.Context, j *job, result jobResult) error {
	if result.err != nil {
		result.unsure = j.probes // the host takes too long: believe the scan that saw them
	}
	r := c.newReport()
	r.release(j.probes, c.snapshot.Observations, result.unsure)
	if _, err := c.appendUnits(ctx, r, event.Batch{}); err != nil {
		return err
	}
	for _, pid := range j.probes {
		delete(c.run.execs, pid) // it is part of the start
	}
	c.run.totals.ShortLived += uint64(r.shortLived)
	c.run.cycle.LeftOut = r.leftOut
	c.full = c.full || r.returned
	return nil
}
