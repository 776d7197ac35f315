package store

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets Pebble run one compaction at a time, which is all that its default
// CompactionConcurrencyRange allows. Pebble's own scheduler wakes up ten times a second
// to see whether more are allowed by now, the most that an idle daemon would do.
//
// It serves one database. Pebble's mutex is locked before c.mu, so c.mu is never held
// while Pebble is called.
type compactions struct {
	db pebble.DBForCompaction // set by Register, before any other call

	mu       sync.Mutex // guards everything below
	running  bool
	closed   bool
	granting sync.WaitGroup // calls of grant
}

var _ pebble.CompactionScheduler = (*compactions)(nil)

// Register implements [pebble.CompactionScheduler].
func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister implements [pebble.CompactionScheduler].
func (c *compactions) Unregister() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.granting.Wait()
}

// TrySchedule implements [pebble.CompactionScheduler]. Who is refused is asked when
// the compaction that runs is done.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.begin() {
		return false, nil
	}
	return true, grant{c}
}

// UpdateGetAllowedWithoutPermission implements [pebble.CompactionScheduler]: the answer
// is always one.
func (c *compactions) UpdateGetAllowedWithoutPermission() {}

// begin takes the place of the one compaction, if it is free.
func (c *compactions) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running || c.closed {
		return false
	}
	c.running = true
	return true
}

// end frees the place. It reports whether the next may be asked for; then granting has
// begun, and the caller ends it.
func (c *compactions) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	if c.closed {
		return false
	}
	c.granting.Add(1)
	return true
}

// next starts a compaction that waits. One that does not want to run any more has
// given the place back, and may have kept it from another: so it asks again until
// nobody waits or another one runs.
func (c *compactions) next() {
	for c.waits() && c.begin() {
		if c.db.Schedule(grant{c}) {
			return
		}
		c.mu.Lock()
		c.running = false
		c.mu.Unlock()
	}
}

func (c *compactions) waits() bool {
	waits, _ := c.db.GetWaitingCompaction()
	return waits
}

// grant is the permission of one compaction.
type grant struct{ of *compactions }

// Started implements [pebble.CompactionGrantHandle], like the two that follow.
func (grant) Started() {}

// MeasureCPU does nothing: one compaction needs no pacing.
func (grant) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats does nothing.
func (grant) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements [pebble.CompactionGrantHandle].
func (g grant) Done() {
	if g.of.end() {
		defer g.of.granting.Done()
		g.of.next()
	}
}
