package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// Append writes a batch, all of it or nothing, and returns when it is durable. It
// fills in Seq and Epoch of the events; after an error they are zero. A batch
// without events is as durable. ctx is honoured until the write begins, never
// after: an error then means that nothing was written.
// [ErrUnavailable]: the store is, or just went, out of service. [ErrReplaced]: the
// store has another epoch than the batch is for.
func (s *Store) Append(ctx context.Context, b *event.Batch) error {
	if emptyBatch(b) {
		return nil
	}
	n, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	if !b.Epoch.IsZero() && b.Epoch != n.epoch {
		return fmt.Errorf("append to epoch %s: %w", b.Epoch, ErrReplaced)
	}
	w, err := s.fit(n, b)
	if err == nil {
		err = s.carryOut(n, w)
	}
	if err != nil {
		clearSequences(b)
		return err
	}
	s.appended(uint64(len(b.Events)))
	return nil
}

// fit returns the batch as a write, for which it makes room in the backlog if need
// be.
func (s *Store) fit(n *session, b *event.Batch) (*write, error) {
	w, err := n.encode(b)
	if err != nil || !s.mustShed(w) {
		return w, s.readFailed(err)
	}
	discard(w.batch)
	if err := s.shed(n, w, b.Events[0]); err != nil {
		return nil, err
	}
	w, err = n.encode(b) // with other sequences
	return w, s.readFailed(err)
}

// encode returns the batch as a write.
func (n *session) encode(b *event.Batch) (*write, error) {
	w := n.newWrite()
	if err := w.add(b); err != nil {
		discard(w.batch)
		return nil, err
	}
	return w, nil
}

// carryOut makes a write durable, and shows it.
func (s *Store) carryOut(n *session, w *write) error {
	defer discard(w.batch)
	if err := s.commit(n, w.seal()); err != nil {
		return err
	}
	s.show(n, w)
	return nil
}

// show makes a durable write the present, and shows it to readers.
func (s *Store) show(n *session, w *write) {
	n.adopt(w)
	if n.backlog().bytes <= s.percent(shedTo) {
		n.patience = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != n {
		return // left service meanwhile; the write will be found at the next opening
	}
	s.publishLocked(n)
	if s.head.Swap(n.head) != n.head {
		s.notifyLocked()
	}
}

func emptyBatch(b *event.Batch) bool {
	return len(b.Events)+len(b.Put)+len(b.Delete) == 0 && b.AsOf.IsZero()
}

func clearSequences(b *event.Batch) {
	for _, e := range b.Events {
		e.Seq, e.Epoch = 0, event.Epoch{}
	}
}

// write is a batch in the making, with what is true once it is durable.
type write struct {
	*session
	ledger
	batch   *pebble.Batch
	minutes []uint64 // set in this batch; few
}

func (n *session) newWrite() *write {
	return &write{session: n, ledger: n.ledger, batch: n.db.NewBatch()}
}

func (w *write) add(b *event.Batch) error {
	for _, e := range b.Events {
		if err := w.event(e); err != nil {
			return err
		}
	}
	w.table(b)
	return nil
}

// seal adds what is to be written once, whatever the number of events.
func (w *write) seal() *pebble.Batch {
	if w.total != w.session.total {
		must(w.batch.Set([]byte(metaBytes), number(w.total), nil))
	}
	return w.batch
}

// event numbers and encodes one event, and counts its loss.
func (w *write) event(e *event.Event) error {
	if e.Loss != nil {
		w.count(e.Loss)
	}
	return w.record(e)
}

// count adds to the totals of losses.
func (w *write) count(l *event.Loss) {
	var t LossTotal
	w.losses, t = addLoss(w.losses, l)
	must(w.batch.Set(lossKey(t.Cause), twoNumbers(t.Events, t.Count), nil))
}

// record numbers and encodes one event.
func (w *write) record(e *event.Event) error {
	w.head++
	e.Seq, e.Epoch = w.head, w.epoch
	w.buf = event.Append(w.buf[:0], e)
	w.key = appendEventKey(w.key[:0], e.Seq)
	must(w.batch.Set(w.key, w.buf, nil))
	w.total += uint64(len(w.buf))
	return w.index(minuteOf(e.Observed))
}

// index makes the last event the lowest of a minute, if it is.
func (w *write) index(minute uint64) error {
	if w.indexed && w.minute == minute || slices.Contains(w.minutes, minute) {
		return nil
	}
	w.key = appendMinuteKey(w.key[:0], minute)
	_, closer, err := w.db.Get(w.key)
	if err == nil {
		return closer.Close()
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return fmt.Errorf("read time index: %w", err)
	}
	must(w.batch.Set(w.key, number(w.head), nil))
	w.minutes = append(w.minutes, minute)
	return nil
}

// table adds the changes of the process table.
func (w *write) table(b *event.Batch) {
	for _, p := range b.Put {
		w.buf = event.AppendProcess(w.buf[:0], p)
		w.key = appendProcessKey(w.key[:0], p.ID)
		must(w.batch.Set(w.key, w.buf, nil))
	}
	for _, id := range b.Delete {
		w.key = appendProcessKey(w.key[:0], id)
		must(w.batch.Delete(w.key, nil))
	}
	if b.Mark != 0 {
		must(w.batch.Set([]byte(metaMark), number(b.Mark), nil))
	}
	if !b.AsOf.IsZero() {
		must(w.batch.Set([]byte(metaAsOf), timeNumber(b.AsOf), nil))
		must(w.batch.Set([]byte(metaBoot), []byte(b.BootID), nil))
	}
}

// discard gives a batch's memory back. What it wrote, it wrote.
func discard(b *pebble.Batch) { _ = b.Close() }

// adopt makes a durable write the present.
func (n *session) adopt(w *write) {
	n.ledger = w.ledger
	if len(w.minutes) > 0 {
		n.minute, n.indexed = w.minutes[len(w.minutes)-1], true
	}
}

func (s *Store) appended(events uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Appends++
	s.stats.AppendedEvents += events
}

// commit makes a batch durable. The caller holds the slot. After an error the
// store is out of service, or the process ends. An *out of service* before
// anything was written and one after a failed write are the same to callers: the
// batch is not there, or it is there unseen, and its numbers were never shown.
func (s *Store) commit(n *session, b *pebble.Batch) error {
	if err := s.foresee(uint64(b.Len())); err != nil {
		s.leave(leaveSpace, err.Error())
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.watchdog.Reset(s.conf.CommitDeadline)
	defer s.watchdog.Stop()
	s.fs.rotating.Store(uint64(b.Len()) >= s.conf.memTable/4)
	defer s.fs.rotating.Store(false)
	err := n.apply(b)
	if err == nil {
		return nil
	}
	if !isNoSpace(err) {
		s.die(fmt.Errorf("write store %s: %w", s.conf.Dir, err))
	}
	s.leave(leaveBroken, err.Error())
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// apply writes a batch and waits for it to be on disk. This pair of calls returns
// an error of the log; Commit would call Fatalf, and if that returned, report
// success. After an error the database takes no more writes and must be reopened.
func (n *session) apply(b *pebble.Batch) error {
	if err := n.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return err
	}
	return b.SyncWait()
}
