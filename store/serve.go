package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// How often Serve looks, and how long it lets things take.
const (
	maintainEvery = 5 * time.Second
	// flushDelay is how long removed events keep their space at least; it comes back
	// though nothing else is written. There is no timer for anything else, so an idle
	// store writes nothing.
	flushDelay      = 10 * time.Second
	readersPatience = 5 * time.Second  // of one try to reopen, with readers
	closeDeadline   = 30 * time.Second // for Pebble to close
)

// Serve keeps the store: it removes what retention no longer keeps, watches the
// free space, and brings a store that left service back, trying again with a
// back-off of 250 ms to 5 s. It returns when ctx ends or the store is closed, and
// may then be called again; the store works without it, but does not come back.
func (s *Store) Serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	backoff := s.conf.pace.backoff
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-timer.C:
		}
		switch kind := s.kind(); kind {
		case leaveClosed:
			signal(s.wake) // for another Serve, if there is one
			return ErrClosed
		case leaveNot:
			backoff = s.conf.pace.backoff
			s.maintain(ctx)
			timer.Reset(maintainEvery)
		default:
			if s.restore(ctx, kind) {
				timer.Reset(0)
				continue
			}
			timer.Reset(backoff)
			backoff = min(2*backoff, s.conf.pace.backoffMax)
		}
	}
}

func (s *Store) kind() leaveKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out
}

// maintain does the regular work of a store in service.
func (s *Store) maintain(ctx context.Context) {
	if err := s.roomToStay(0); err != nil {
		s.leave(leaveSpace, err.Error())
		return
	}
	v, err := s.view()
	if err != nil {
		return
	}
	s.makeBallast()
	v.release()
	s.measure()
	if s.owesSpace() {
		if err := s.giveSpaceBack(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnavailable) {
			s.conf.Log.WithError(err).Error("can't give back the space of removed events")
		}
	}
	if err := s.retain(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnavailable) {
		s.conf.Log.WithError(err).Error("can't remove old events")
	}
}

// restore tries to bring the store back into service and reports whether it is.
func (s *Store) restore(ctx context.Context, kind leaveKind) bool {
	var err error
	if kind == leaveSpace {
		err = s.resume()
	} else {
		err = s.reopen(ctx, kind)
	}
	if err != nil {
		s.stillOut(err)
		return false
	}
	s.mu.Lock()
	s.stats.Reopens++
	s.mu.Unlock()
	s.conf.Log.Info("store is in service again")
	signal(s.back)
	return true
}

// stillOut keeps the reason current.
func (s *Store) stillOut(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != leaveNot && s.out != leaveClosed {
		s.stats.Reason, s.stats.Full = err.Error(), s.out == leaveSpace || isNoSpace(err)
	}
}

// resume puts an open database that was short of space back in service.
func (s *Store) resume() error {
	if err := s.roomToEnter(); err != nil {
		return err
	}
	if s.fs.lacking() {
		return fmt.Errorf("a write still waits, or failed just now: %w", s.fs.lack())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != leaveSpace {
		return errors.New(s.stats.Reason)
	}
	s.out = leaveNot
	s.stats.Since, s.stats.Reason, s.stats.Full = s.wall(), "", false
	s.notifyLocked()
	return nil
}

// reopen closes what is left of the old database and opens it again, or, if it is
// damaged, a new one in its place.
func (s *Store) reopen(ctx context.Context, kind leaveKind) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.retire(ctx); err != nil {
		return err
	}
	if kind == leaveCorrupt {
		if err := s.setAside(); err != nil {
			return err
		}
	}
	err := s.attach(ctx, s.conf.LockWait)
	if err != nil && isFatalReopen(err) {
		s.die(fmt.Errorf("reopen store: %w", err))
	}
	return err
}

// isFatalReopen tells the errors that waiting does not help. Readers hold a store's
// lock for less than Config.LockWait; who still holds it then is another daemon.
func isFatalReopen(err error) bool {
	return !isNoSpace(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// setAside quarantines a store that was found damaged while it ran.
func (s *Store) setAside() error {
	old, err := readIdentity(s.conf.FS, s.conf.Dir)
	if err == nil {
		err = s.quarantine(old, errors.New(s.Stats().Reason))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // else an earlier try got that far
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == leaveCorrupt {
		s.out = leaveBroken
	}
	return nil
}

// retire closes the database that left service, if there is one. It can be called
// again after an error: readers that do not let go keep the store out of service,
// but only Pebble itself can be blocked for so long that the process must end. The
// caller holds the slot.
func (s *Store) retire(ctx context.Context) error {
	s.mu.Lock()
	n := s.retired
	s.mu.Unlock()
	if n == nil {
		return nil
	}
	if s.closing == nil {
		s.closing = closeWhenRead(n)
	}
	if err := s.closing.waitForReaders(ctx); err != nil {
		return err
	}
	timeout := time.NewTimer(closeDeadline)
	defer timeout.Stop()
	select {
	case err := <-s.closing.done:
		s.conf.Log.WithError(err).Debug("closed the database that left service")
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		if s.fs.lacking() {
			return fmt.Errorf("the database can't be closed yet: %w", s.fs.lack())
		}
		s.die(fmt.Errorf("close store %s: blocked for %v", s.conf.Dir, closeDeadline))
	}
	s.closing = nil
	s.mu.Lock()
	s.retired = nil
	s.mu.Unlock()
	return nil
}

// closing is a database that is being closed.
type closing struct {
	unread chan struct{} // closed when its last reader has let go
	// done is sent the result. Capacity 1: the goroutine ends even if nobody waits
	// any more.
	done chan error
}

// closeWhenRead closes a session's database once nobody reads it. Errors of closing
// a database that failed are expected; what was acknowledged is on disk.
func closeWhenRead(n *session) *closing {
	c := &closing{unread: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		n.readers.Wait()
		close(c.unread)
		c.done <- n.db.Close()
	}()
	return c
}

// waitForReaders waits for a while, and returns an error if some are still there.
func (c *closing) waitForReaders(ctx context.Context) error {
	patience := time.NewTimer(readersPatience)
	defer patience.Stop()
	select {
	case <-c.unread:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return errors.New("the database can't be reopened yet: a reader does not let go of it")
	}
}

// Close ends the store. clean says that the run ended in order: then that is the
// last thing written, and if it can not be, because the store is out of service, the
// error says so ([ErrUnavailable]). Readers are told to end and waited for. A Close
// that can not be completed in 10 s, because a reader does not end or a write waits
// for space, says so; then the process should end. The next Open finds all that was
// acknowledged in any case.
func (s *Store) Close(clean bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.conf.pace.closing)
	defer cancel()
	if s.acquire(ctx) != nil { // a write holds it, which waits for space or is about to be fatal
		_, unmarked := s.shut()
		err := fmt.Errorf("close store %s: a write is blocked, for %v by now", s.conf.Dir, s.conf.pace.closing)
		if clean {
			err = errors.Join(err, unmarked)
		}
		return err
	}
	defer s.release()
	n, unmarked := s.shut()
	var err error
	switch {
	case clean && unmarked != nil:
		err = unmarked
	case clean && n != nil:
		err = s.finish(n)
	}
	return errors.Join(err, s.closeRetired())
}

// shut takes the store out of service for good. It retires the open session, if
// any, whose readers are told to end, and returns it. unmarked says why there can
// be no clean mark, nil if there can, or if the store was closed before.
func (s *Store) shut() (n *session, unmarked error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != leaveNot && s.out != leaveClosed {
		unmarked = fmt.Errorf("close store %s: not marked as ended in order: %w", s.conf.Dir, s.unavailableLocked())
	}
	n = s.session
	s.session, s.out = nil, leaveClosed
	s.stats.Reason = ErrClosed.Error()
	s.fs.running.Store(false)
	if n != nil {
		s.retired = n
		close(n.leaving)
	}
	s.notifyLocked()
	signal(s.wake)
	return n, unmarked
}

// finish writes the clean mark, after all else.
func (s *Store) finish(n *session) error {
	n.ident.Head = n.head
	if err := n.ident.write(s.fs, s.conf.Dir); err != nil {
		return err
	}
	b := n.db.NewBatch()
	defer discard(b)
	must(b.Set([]byte(metaClean), timeNumber(s.wall()), nil))
	return s.commit(n, b)
}

func (s *Store) closeRetired() error {
	s.mu.Lock()
	n := s.retired
	s.retired = nil
	s.mu.Unlock()
	defer s.unlock()
	if n == nil {
		return nil
	}
	if s.closing == nil {
		s.closing = closeWhenRead(n)
	}
	timeout := time.NewTimer(s.conf.pace.closing)
	defer timeout.Stop()
	select {
	case err := <-s.closing.done:
		s.closing = nil
		if err != nil {
			return fmt.Errorf("close store %s: %w", s.conf.Dir, err)
		}
		return nil
	case <-timeout.C:
		return fmt.Errorf("close store %s: blocked for %v", s.conf.Dir, s.conf.pace.closing)
	}
}
