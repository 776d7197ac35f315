package collect

import (
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
)

// Status is what the collector publishes of itself. It is a copy: its slices
// are never changed.
type Status struct {
	State       fsm.Snapshot
	Coordinated bool // an agent has told it to begin

	Interval Interval
	Cycle    Cycle
	Totals   Totals

	ConfigVersion uint64
	Pending       []string // keys that the end of the running scan will bring into force

	TableSize int // processes in the table in memory, whatever their flags
	Held      int // starts that are held back until they are old enough
	Waiting   int // kernel events that were read and are not durable yet

	// Epoch is the store's in which this run has announced itself; zero before.
	// Nobody else may write into an epoch that the collector has not begun.
	Epoch event.Epoch
	// OutOfServiceSince is when the store refused its service, else zero.
	OutOfServiceSince time.Time
	// ScanSince is when the scan in flight began, else zero.
	ScanSince time.Time
	// Stuck says that this scan is past its deadline.
	Stuck     bool
	LastError string
	// Degraded are the reasons why the collector is not quite well: sentences. An
	// outage of the store is not among them.
	Degraded []string

	// Activity is what the actor does, ActivitySince since when. "idle" is well.
	Activity      string
	ActivitySince time.Time
}

// Cycle is what the last complete cycle did.
type Cycle struct {
	Count     uint64        // cycles so far in this run
	LastAt    time.Time     // when its scan began; zero before the first
	Duration  time.Duration // from there until all was durable
	Processes int           // seen by the scan
	Events    int           // reported
	LeftOut   int           // living processes that MaxProcesses leaves out
	Excluded  int           // living processes that Exclude leaves out
	Vanished  int           // gone before they could be read
	Hidden    int           // the host does not let procmond see them at all
	// Unreadable are living processes in scope with fields that procmond may not
	// or could not read.
	Unreadable int
	// Unconfirmed were missing in the scan but may still be there.
	Unconfirmed int
}

// Totals count over the whole run.
type Totals struct {
	Events      uint64 // made durable
	ScansFailed uint64
	ShortLived  uint64 // ended before MinLifetime, so not reported
	Outages     uint64 // times that the store went out of service
	NotesLost   uint64 // events about the daemon itself that found no room while the store was out of service
	Restarts    uint64 // of the actor

	Heard       uint64 // kernel events that were read
	Unmatched   uint64 // of these, about processes that nobody knew of: they ended before they were seen
	Lost        Lost   // kernel events that were lost
	LossWindows uint64 // times in which some were lost, for each of which there is a loss event
}

// Lost counts kernel events that were lost, by kind where that is known.
type Lost struct {
	Forks, Execs, Exits, Other uint64
}

// What the actor can be busy with.
const (
	activityStarting = "starting"
	activityIdle     = "idle"
	activityScan     = "scan"
	activityProbe    = "probe"
	activityLoad     = "load"
	activityJournal  = "journal"
	activityCompare  = "compare"
	activityAppend   = "append"
	activityDown     = "restart"
	activityStopped  = "stopped"
)

type activity struct {
	name  string
	since time.Time
}

// Status is what the collector published last. It never waits.
func (m *Mailbox) Status() Status {
	s := *m.status.Load()
	a := m.activity.Load()
	s.Activity, s.ActivitySince = a.name, a.since
	return s
}
