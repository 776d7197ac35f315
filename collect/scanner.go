package collect

import (
	"context"
	"errors"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// ErrGone says that nobody has the PID that was asked for.
var ErrGone = errors.New("process is gone")

// Scanner takes snapshots of the host's process table. An implementation caches
// what it knows of living processes, and is not safe for concurrent use. When a
// call has returned, no goroutine of it is left but those that hang in the host,
// of which there is a bound.
type Scanner interface {
	// Scan fills s with one Observation for every process, sorted by PID; what
	// s held before is lost. full asks for everything to be read and reported
	// again. After an error s is incomplete and must not be compared with
	// anything, but each exec that it tells of is true and not told again. It
	// blocks as long as the host takes and returns ctx.Err() between two
	// processes once ctx is done.
	Scan(ctx context.Context, full bool, s *Snapshot) error
	// Probe reads one process whole, now; [ErrGone] if nobody has that PID.
	Probe(ctx context.Context, pid int32) (Observation, error)
}

// Snapshot is one pass over the process table. It is reused from scan to scan.
type Snapshot struct {
	// Began and Ended bound the pass. A process that lived all that time is in
	// it; one that started or ended meanwhile may be.
	Began, Ended time.Time
	// Observations are sorted by PID, which is unique among them.
	Observations []Observation
	// Vanished counts processes that were listed and gone before they could be
	// read, Hidden those that are listed but that the host does not let
	// procmond see at all (Linux: a /proc mounted with hidepid=1).
	Vanished, Hidden int
}

// Observation is what a scanner saw of one process.
type Observation struct {
	PID        int32
	StartTicks uint64 // see [event.Process.StartTicks]; 0 if unknown

	// The volatile fields are read each time.
	State   event.State
	Threads int32 // a zombie with more than one thread has not ended: only its first thread has
	RSS     uint64
	RSSKind event.RSSKind
	CPU     time.Duration // user and system time of the whole thread group

	// Process is the whole record, with ID, ParentID and Generation left zero
	// for the collector to fill in. It is nil when nothing but the volatile
	// fields has changed since the scanner's last report of this same process
	// (PID and StartTicks); it may be there though nothing has changed. It
	// belongs to the receiver.
	Process *event.Process
	// ExecChanged says that the image was replaced since the last report of
	// this process, as far as the scanner can tell. It is told once, whatever
	// becomes of the report: the receiver remembers it.
	ExecChanged bool
	// Exit is how a zombie ended, when the host tells; else nil.
	Exit *event.Exit
}
