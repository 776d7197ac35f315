package store

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets Pebble run one compaction at a time, which is all that its default
// CompactionConcurrencyRange allows. Pebble's own scheduler wakes up ten times a second
// to see whether more are allowed by now, the most that an idle daemon would do.
//
// Pebble would also try a compaction that fails again at once, without end: one that
// meets a bad sector takes a core. Here the next one waits for a while.
//
// It serves one database. Pebble's mutex is locked before c.mu, so c.mu is never held
// while Pebble is called.
type compactions struct {
	db pebble.DBForCompaction // set by Register, before any other call

	mu       sync.Mutex // guards everything below
	running  bool       // or the pause after one that has failed
	failed   bool       // the one that runs
	pause    *time.Timer
	closed   bool
	granting sync.WaitGroup // calls of grant, and pauses
}

// compactionPause is how long after one that has failed the next compaction may begin.
const compactionPause = time.Second

var _ pebble.CompactionScheduler = (*compactions)(nil)

// Register implements [pebble.CompactionScheduler].
func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister implements [pebble.CompactionScheduler].
func (c *compactions) Unregister() {
	c.mu.Lock()
	c.closed = true
	if c.pause != nil && c.pause.Stop() {
		c.granting.Done()
	}
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

// listen returns the listener, which tells c of failures too.
func (c *compactions) listen(l *pebble.EventListener) *pebble.EventListener {
	both := *l
	both.BackgroundError = func(err error) {
		c.fail()
		l.BackgroundError(err)
	}
	return &both
}

// fail is called before the compaction that has failed is done. A flush that fails at
// the same time may be taken for it, which does no harm.
func (c *compactions) fail() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = c.running
}

// end frees the place, in a while if the compaction has failed. It reports whether the
// next may be asked for; then granting has begun, and the caller ends it.
func (c *compactions) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed := c.failed
	c.failed = false
	switch {
	case c.closed:
		c.running = false
		return false
	case failed:
		c.granting.Add(1)
		c.pause = time.AfterFunc(compactionPause, c.goOn)
		return false
	}
	c.running = false
	c.granting.Add(1)
	return true
}

// goOn ends the pause.
func (c *compactions) goOn() {
	defer c.granting.Done()
	c.mu.Lock()
	c.running, c.pause = false, nil
	closed := c.closed
	c.mu.Unlock()
	if !closed {
		c.next()
	}
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
