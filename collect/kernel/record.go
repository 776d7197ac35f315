package kernel

import (
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// Kind is what happened to a process.
type Kind uint8

// The kinds.
const (
	KindFork Kind = iota + 1 // a process was made: it runs its parent's image
	KindExec                 // it replaced its image
	KindExit                 // its last thread has ended
)

func (k Kind) String() string {
	switch k {
	case KindFork:
		return "fork"
	case KindExec:
		return "exec"
	case KindExit:
		return "exit"
	}
	return "unknown"
}

// Record is one thing that happened to one process. Which fields have a meaning
// depends on the kind and the source; Missing says which of them could not be had.
type Record struct {
	Kind Kind
	PID  int32 // of the thread group, in the reader's PID namespace
	// PPID is the thread group of the parent: at a fork the one that it will be told
	// of (real_parent), else the present one. 0 if it is not known.
	PPID int32
	// Start is when the process started, since boot (CLOCK_BOOTTIME); 0 if it is not
	// known. In clock ticks it is field 22 of /proc/PID/stat.
	Start time.Duration
	// StartApprox says that Start is somewhat later than the truth, mostly by some
	// microseconds: it may be in the next clock tick. The records of a process have the
	// same one, but that a later record may have the exact one.
	StartApprox bool
	// ParentStart is Start of the parent, 0 if it is not known.
	ParentStart time.Duration
	// At is when it happened, on the same clock; 0 if the source does not tell.
	At time.Duration
	// CPU is where it was told, for puzzles about the order.
	CPU int

	// Of a fork and an exec.
	Comm                 string
	UID, GID, EUID, EGID uint32
	CapEffective         uint64
	Session, TTY         int32
	// Creator, of a fork, is the process whose image the new one has: nearly always its
	// parent. 0 if it is not known.
	Creator int32
	// CgroupID is the inode of the directory in the cgroup v2 hierarchy, 0 if it is not
	// known. Where version 1 has the controllers, it says little: mostly 1, the root.
	CgroupID uint64

	// Of an exec: what /proc/PID/exe showed at that moment, without a " (deleted)" mark.
	Exe        string
	ExeDeleted bool
	// Of an exec. Beyond what the source keeps they are cut, the last one too, and
	// Missing has them as truncated.
	Args []string

	// Of an exit. MaxRSS is the largest of all images that the process ran. CPU may lack
	// what the last thread ran since the scheduler last counted: a tick at most.
	Exit *event.Exit

	// Missing has, as failed, what the source could not read, Exe or Args above all:
	// /proc may yet have it. What it has as inherited is what the source knows of the
	// parent, or of the process before this happened, and not read anew. What the source
	// never gives for this kind of record is unsupported.
	Missing event.Mask
}

// Ticks is Start as /proc tells it.
func (r *Record) Ticks() uint64 { return uint64(r.Start / procfile.Tick) }

// Lost counts records that were lost. A source that can not tell the kind counts them
// as Other, and with them what would have been no record, such as the end of a thread; one that can not tell how many sets Unknown.
type Lost struct {
	Forks, Execs, Exits, Other uint64
	Unknown                    bool
}

// Any reports whether anything was lost.
func (l Lost) Any() bool { return l.Forks+l.Execs+l.Exits+l.Other > 0 || l.Unknown }

// Batch is what one Read has brought. It is reused from call to call; the records'
// strings and slices belong to who takes them.
type Batch struct {
	Records []Record
	Lost    Lost // since the call before
	// More says that there was more than fits a batch: Read should be called again soon.
	More bool
	// Now is when Read began (CLOCK_BOOTTIME). Whatever happened from Began up to Through
	// is in this batch or in an earlier one, or is lost, but for what was just on its
	// way then (see Unsent).
	Now, Began, Through time.Duration
	// LostSince is when the oldest of Lost can have happened, if that is before the last
	// Through: a source that had gone deaf did not know. Else it is 0.
	LostSince time.Duration
	// Note is a sentence for people, when the source of the records has changed.
	Note string
}

// Unsent is more than passes between the time of a record and its being there to be
// read, unless the host holds up a CPU just then: microseconds, in which one that
// happened later may get there first.
const Unsent = 10 * time.Millisecond

// begin empties b for what is read from now on.
func (b *Batch) begin(now time.Duration) {
	clear(b.Records) // what others own is not kept
	*b = Batch{Records: b.Records[:0], Now: now}
}

// Source gives records. Its methods are not safe for concurrent use, but for Close.
type Source interface {
	// Read empties what the source holds into b, up to a bound, and never waits for
	// the kernel. After an error the source is of no use any more.
	Read(b *Batch) error
	// Filling is received from when the source is so full that Read should be called
	// at once; it is never closed. It may be received from once too often.
	Filling() <-chan struct{}
	// Rest says that Read will not be called for a while: then Filling is received from
	// after the next record too. It reports false if there is a record already, or if
	// the source can not tell: who reads must look by itself.
	Rest() bool
	// Close detaches and waits for what the source runs. It may be called twice.
	Close() error
}
