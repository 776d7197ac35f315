package collect

import (
	"context"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

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
	j := &job{
		scanner: c.cfg.Scanner, redactor: c.run.settings.Redactor, known: c.table.entries,
		full: c.full, probes: probes, snapshot: c.snapshot, hashing: c.newHashing(),
		began: time.Now(), cancel: cancel, done: make(chan jobResult, 1),
	}
	c.run.inflight, c.job = j, j
	return j
}

// startScan begins a cycle.
func (c *Collector) startScan(ctx context.Context) {
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
	c.job = nil
	if result.panicked != nil {
		panic(fmt.Sprintf("%v [in a job of the collector]\n%s", result.panicked, result.stack))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	switch {
	case c.table == nil: // the store went out of service meanwhile
	case j.probes != nil:
		err = c.endRelease(ctx, j, result)
	case result.err != nil:
		c.scanFailed(result.err)
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
	c.run.execs.markAll(s.Observations)
	c.table.compareWith(s, thresholds{memory: c.run.settings.MemoryThreshold, cpu: c.run.settings.CPUThreshold}, result.unsure, &c.found)
	r := c.newReport()
	r.cycle(&c.found)
	c.noteLeftOut(r.leftOut, s)
	// Notes are on their own: had they gone with the first of several batches, a
	// failure of a later one would write them again.
	if err := c.flushNotes(ctx); err != nil {
		return err
	}
	events, err := c.appendUnits(ctx, r, event.Batch{AsOf: s.Began, BootID: c.cfg.Host.BootID})
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
	for i := range c.table.entries {
		switch e := &c.table.entries[i]; {
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
func (c *Collector) noteLeftOut(n int, s *Snapshot) {
	switch {
	case n == 0:
		c.run.leftOutSince = time.Time{}
	case c.run.leftOutSince.IsZero():
		c.run.leftOutSince = s.Began
		c.run.note(c.lossEvent(event.Loss{
			Cause: event.LossMaxProcesses, From: s.Began, To: s.Ended, Count: uint64(n), Known: true,
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
