package store

import (
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// Stats is what the store knows of itself.
type Stats struct {
	Path  string
	Epoch event.Epoch
	// Head is the last durable sequence, Floor the lowest kept, Cursor the last
	// acknowledged; Head+1 == Floor if no event is kept.
	Head, Floor, Cursor uint64
	// Kept counts the events that are there: from Floor to Head, but for those shed.
	Kept uint64
	// Owed says that somebody takes delivery. What is not acknowledged yet: events,
	// and their encoded bytes; 0 if nothing is owed.
	Owed                        bool
	BacklogEvents, BacklogBytes uint64
	// BacklogBudget is what BacklogBytes may grow to before events are shed; 0 if
	// nothing is owed, or it is not known because no daemon runs.
	BacklogBudget uint64
	// Bytes that the store's files take on disk, with the ballast and what is
	// allocated in advance, as du(1) counts; as of some 5 s ago.
	Bytes uint64

	// InService is false while calls answer ErrUnavailable, for Reason. Since is
	// when that last changed.
	InService bool
	Reason    string
	Since     time.Time
	// Full says that nothing but room on the file system is missing: the store
	// comes back by itself when there is some.
	Full bool
	// Reopens counts the returns to service.
	Reopens uint64

	Losses []LossTotal // by cause, of this epoch

	// Since this process opened the store: acknowledged appends and their events,
	// fsyncs of any file, errors of Pebble's background work.
	Appends, AppendedEvents  uint64
	Syncs                    uint64
	BackgroundErrors         uint64
	RetentionPaused          bool   // because of a step of the wall clock
	RetentionPauses, Removed uint64 // Removed counts the events that retention removed
	Shed, Sheds              uint64 // events shed, and how many times

	// Where a damaged predecessor was put, and when; zero if there was none.
	QuarantinedTo string
	QuarantinedAt time.Time
	// Where the events of the epoch before were put, and when, if the store turned out
	// to be an older copy of itself; see [Store.Resume]. Zero if not.
	RewoundTo string
	RewoundAt time.Time
}

// LossTotal sums the loss events of one cause.
type LossTotal struct {
	Cause  event.LossCause
	Events uint64 // loss events
	Count  uint64 // what they say was lost, where it was known
}

// Stats returns the present state. It does no I/O and waits for nobody who does.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Path, st.Owed = s.conf.Dir, s.conf.Owed
	st.Head = s.head.Load()
	st.InService = s.out == leaveNot && s.session != nil
	st.Bytes = s.bytes.Load()
	st.Syncs = s.fs.syncs.Load()
	st.BackgroundErrors = s.backgroundErrors.Load()
	st.Losses = append([]LossTotal(nil), st.Losses...)
	if s.conf.Owed {
		st.BacklogBudget = s.conf.MaxBacklog
	} else {
		st.BacklogEvents, st.BacklogBytes = 0, 0
	}
	return st
}
