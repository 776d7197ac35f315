package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Store is an open store. Make it with [Open], end it with [Store.Close].
type Store struct {
	conf Config
	fs   *guardFS
	wall func() time.Time // the wall clock; tests step it
	// uptime is a clock that nobody sets and that goes on while the machine sleeps,
	// where there is one.
	uptime func() time.Duration

	// slot is the right to write: whoever has put a value in may use the session
	// for writing, lock and unlock the directory, and change what is marked "slot"
	// below. Capacity 1: a mutex that can be waited for with a context.
	slot      chan struct{}
	lock      *pebble.Lock // slot; nil until the directory could be locked
	watchdog  *time.Timer  // slot; runs while a commit does
	ample     time.Time    // slot; when there was plenty of space
	retention retainer     // Serve alone
	closing   *closing     // slot; not nil while a retired database is being closed
	rewound   bool         // slot; this store has turned out to be an older copy

	// wake tells Serve that the store left service, or that Close was called.
	// Capacity 1, never closed: one signal is enough. back is the signal of
	// Available.
	wake, back chan struct{}

	head             atomic.Uint64 // durable; changed under mu
	refused          atomic.Uint64 // bytes of the last commit that there was no room for; 0: the last one had
	bytes            atomic.Uint64 // on disk
	backgroundErrors atomic.Uint64
	lastBackground   atomic.Int64 // when one was last logged, Unix nanoseconds

	mu      sync.Mutex // guards what follows; never held during I/O
	session *session   // the open database; nil while there is none
	retired *session   // left service, to be closed by Serve
	out     leaveKind
	stats   Stats // but what Stats fills in
	changed chan struct{}
	clean   time.Time // when the run before this process ended in order
	seen    bool      // clean has been read

	dying sync.Once
}

// leaveKind is why, and how far, a store is out of service. Higher is worse.
type leaveKind int

const (
	leaveNot     leaveKind = iota // in service
	leaveSpace                    // short of space, the database is open and fine
	leaveBroken                   // the database must be, or is, closed
	leaveCorrupt                  // and set aside
	leaveClosed                   // for ever
)

// Open opens the store in c.Dir, or makes one. It waits for c.LockWait for another
// process to let go. Errors: [ErrLocked] ([LockedError]), [ErrNotStore],
// [ErrNewerFormat], [ErrPermission] or an I/O error; none of them leaves a trace in
// the directory. A damaged store is set aside and replaced by an empty one
// ([Stats.QuarantinedTo]). Without space the store opens out of service.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := newStore(c.withDefaults())
	if err := s.attach(ctx, s.conf.LockWait); err != nil {
		if isNoSpace(err) {
			s.stillOut(err)
			s.conf.Log.WithError(err).Warn("store opens out of service")
			return s, nil
		}
		s.unlock()
		return nil, err
	}
	return s, nil
}

func newStore(c Config) *Store {
	s := &Store{
		conf:   c,
		wall:   time.Now,
		uptime: uptimeSince(time.Now()),
		slot:   make(chan struct{}, 1),
		wake:   make(chan struct{}, 1),
		back:   make(chan struct{}, 1),
		out:    leaveBroken,
	}
	s.stats.Since, s.stats.Reason = s.wall(), "the store is being opened"
	s.fs = &guardFS{
		FS:          c.FS,
		dropBallast: s.dropBallast,
		wait:        func(err error) { s.leave(leaveSpace, err.Error()) },
		pace:        c.pace,
		fatal:       s.die,
	}
	s.watchdog = time.AfterFunc(time.Hour, s.overdue)
	s.watchdog.Stop()
	return s
}

// String names the service that Serve is.
func (s *Store) String() string { return "retention" }

// Available signals a return to service, at most one signal waiting.
func (s *Store) Available() <-chan struct{} { return s.back }

// Head returns the last durable sequence, 0 if there is none in this epoch.
func (s *Store) Head() uint64 { return s.head.Load() }

// acquire takes the right to write.
func (s *Store) acquire(ctx context.Context) error {
	select {
	case s.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) release() { <-s.slot }

// writer takes the right to write and the session to write to, or says why not.
// The caller must release. It does not wait for a writer that waits for space: then
// the store is out of service, and so it answers, at once.
func (s *Store) writer(ctx context.Context) (*session, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		changed, err := s.watch()
		if err != nil {
			return nil, err
		}
		select {
		case s.slot <- struct{}{}:
			n, err := s.serving()
			if err != nil {
				s.release()
			}
			return n, err
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// watch returns a channel that is closed when the store leaves service, or sooner.
func (s *Store) watch() (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != leaveNot || s.session == nil {
		return nil, s.unavailableLocked()
	}
	return s.changedLocked(), nil
}

// changedLocked returns the channel that the next notifyLocked closes.
func (s *Store) changedLocked() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// serving returns the session if the store is in service.
func (s *Store) serving() (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != leaveNot || s.session == nil {
		return nil, s.unavailableLocked()
	}
	return s.session, nil
}

func (s *Store) unavailableLocked() error {
	if s.out == leaveClosed {
		return ErrClosed
	}
	return unavailable(s.stats.Reason)
}

// leave takes the store out of service, or further out.
func (s *Store) leave(kind leaveKind, reason string) {
	if s.leaveQuietly(kind, reason) {
		s.conf.Log.WithField("reason", reason).Warn("store left service")
	}
}

// leaveQuietly is leave without the log, and reports whether it changed anything.
func (s *Store) leaveQuietly(kind leaveKind, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind <= s.out {
		return false
	}
	if s.out == leaveNot {
		s.stats.Since = s.wall()
	}
	s.out = kind
	s.stats.Reason, s.stats.Full = reason, kind == leaveSpace
	if kind > leaveSpace && s.session != nil {
		s.fs.running.Store(false)
		close(s.session.leaving)
		s.retired, s.session = s.session, nil
	}
	s.notifyLocked()
	signal(s.wake)
	return true
}

// enter puts the store in service with this session.
func (s *Store) enter(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == leaveClosed {
		return
	}
	s.session, s.out = n, leaveNot
	s.fs.running.Store(true)
	s.head.Store(n.head)
	s.stats.Epoch = n.epoch
	s.stats.QuarantinedTo, s.stats.QuarantinedAt = n.ident.QuarantinedTo, n.ident.QuarantinedAt
	s.stats.RewoundTo, s.stats.RewoundAt = n.ident.rewoundTo(s.conf.FS, s.conf.Dir), n.ident.RewoundAt
	s.stats.Reason, s.stats.Full = "", false
	s.stats.Since = s.wall()
	s.publishLocked(n)
	s.notifyLocked()
}

// publishLocked copies what Stats shows of a session.
func (s *Store) publishLocked(n *session) {
	s.stats.Floor, s.stats.Cursor = n.floor, n.cursor
	s.stats.Losses = append(s.stats.Losses[:0:0], n.losses...)
	s.stats.Kept = n.kept()
	owed := n.backlog()
	s.stats.BacklogEvents, s.stats.BacklogBytes = owed.events, owed.bytes
}

// notifyLocked wakes everybody in Wait.
func (s *Store) notifyLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// signal puts a signal in a channel of capacity 1 unless one waits there.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
