package event

import "time"

// Event is one thing that happened to a process, or to the sensor itself. It is
// self-contained: whoever reads a stop does not need the start to know what
// stopped.
type Event struct {
	// Seq is the place in the store's order, dense from 1 within an Epoch.
	// The store assigns both; before that they are zero.
	Seq   uint64
	Epoch Epoch

	HostID string // see [ValidHostID]
	BootID string // the kernel's id of this boot

	Kind   Kind
	Source Source

	// Time is when it happened as well as the source can tell: a start's is
	// the process's start, a scan's stop is when it was found missing.
	Time time.Time
	// NotBefore, when not zero, is the earliest time at which it can have
	// happened (the last scan that still saw the old state).
	NotBefore time.Time
	// BootTime is Time on the kernel's boot clock (CLOCK_BOOTTIME) where the
	// source gives it, else 0.
	BootTime time.Duration
	// Observed is when procmond learned of it. It orders with Seq but for
	// steps of the wall clock.
	Observed time.Time

	// Cause says why, in one word, where Kind alone does not: a recovered stop
	// with cause "boot" ended with the machine.
	Cause string

	Process Process  // zero for KindLoss and KindSensor
	Exit    *Exit    // KindStop, when known
	Changes []Change // KindExec and KindModify, ordered by field
	Loss    *Loss    // KindLoss
	Sensor  *Sensor  // KindSensor
}

// Exit is how a process ended.
type Exit struct {
	Code   int32         // exit(2) status, meaningful if Signal is 0
	Signal int32         // terminating signal, or 0
	Core   bool          // a core was dumped
	CPU    time.Duration // user and system time of the whole thread group
	MaxRSS uint64        // bytes, 0 if unknown
}

// Change is one changed field of a process, in printable text.
type Change struct {
	Field    Field
	Old, New string // raw bytes like all host text
}

// Loss says what could not be seen or kept.
type Loss struct {
	Cause LossCause
	// From and To bound the time in which something may be missing.
	From, To time.Time
	// FromSeq and ToSeq bound the lost sequences (inclusive) when events that
	// had one were lost which no other loss tells of, else both are 0. Events
	// between them may be there. Only the store knows them and sets them.
	FromSeq, ToSeq uint64
	// Count is how many, if Known.
	Count uint64
	Known bool
	Hint  string // what the operator can tune or grant
}

// Sensor is what the daemon reports about itself.
type Sensor struct {
	What    SensorWhat
	Detail  string // one sentence
	Version string // of procmond
	// PreviousEpoch and PreviousSeq name the store's earlier epoch and the
	// last sequence known of it, in the first event of an epoch. Zero if there
	// was none or it is not known.
	PreviousEpoch Epoch
	PreviousSeq   uint64
}

// Batch is what is written together or not at all: events, and the changes to
// the live process table that make them true.
type Batch struct {
	// Epoch, when not zero, is the only one that the batch may be written to.
	Epoch Epoch
	// Events in order. The store fills in Seq and Epoch.
	Events []*Event
	// Put are the table's new and changed processes, Delete the ended ones.
	Put    []*Process
	Delete []ID
	// AsOf, when not zero, is the moment at which the table was complete.
	AsOf time.Time
	// BootID of the table, kept with it when AsOf is set.
	BootID string
	// Mark, when not zero, is kept too: it tells later whether the batch became durable.
	Mark uint64
}

// Receipt is what a receiver of events says that it has of this collector.
type Receipt struct {
	// Stream names the receiver's storage for its whole life: one that was made anew
	// has another name.
	Stream string
	// Epoch and Seq are those of the last event that it took, even if it has removed
	// it since. Epoch is zero if it never took one.
	Epoch Epoch
	Seq   uint64
}

// Table is the durable live process table with what the store knows about the
// run that left it.
type Table struct {
	Processes []*Process // in no order
	AsOf      time.Time  // of the last batch that had one; zero if none
	BootID    string     // of the same batch
	Mark      uint64     // of the last batch that had one; 0 if none
	// Epoch of the store, the sequence of its last event, and whether it has never held
	// an event of its epoch.
	Epoch Epoch
	Head  uint64
	Empty bool
	// Clean says that the run before this one ended in order, at CleanAt.
	Clean   bool
	CleanAt time.Time
	// PreviousEpoch and PreviousSeq: see [Sensor]. Set only while Empty.
	PreviousEpoch Epoch
	PreviousSeq   uint64
	// Quarantined is where a damaged predecessor of this store was put, for
	// the loss event that must say so. Set only while Empty.
	Quarantined string
	// Rewound is where the events of the epoch before were put, because the store was
	// an older copy of itself, for the loss event that must say so. The processes are
	// still those of the last run. Set only while Empty.
	Rewound string
}
