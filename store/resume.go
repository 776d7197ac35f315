package store

import (
	"context"
	"errors"
	"fmt"

	"daemoneye.dev/procmond/collect/event"
)

// maxStreamName bounds the name of a receiver's storage, in bytes.
const maxStreamName = 256

// errNotOwed is the answer to a receiver of a store that owes nothing.
var errNotOwed = errors.New("the store owes no delivery")

// Resume moves the cursor to where the receiver of events stands, durably, and returns
// it with the epoch that it belongs to. The receiver's word counts more than the
// store's own: either of the two may be an older copy of itself.
//
//   - It has events of this epoch: the cursor is its last one, forwards or backwards.
//   - It has events of another epoch only: the cursor is 0, before all that is kept.
//   - It never had any, and its storage is another one than the last Resume named: the
//     cursor stays, or goes back so that as much is owed as a first run would deliver
//     ([Config].DeliverFromNow, MaxBacklog). Named again, it begins where it began.
//
// Moved backwards over events that retention has removed, it appends a loss event with
// their range.
//
// A receiver that has more of this epoch than there is proves that the store is an
// older copy of itself, whose next sequences would mean other events. Then the answer
// is [ErrUnavailable]; [Store.Serve] copies what is there to a directory beside the
// store, and begins a new epoch with the same process table ([event.Table].Rewound).
// That can happen once in the life of a Store: it can't be replaced by an older copy
// while it is open, and a receiver that says so again is refused.
//
// Other errors: a receipt that makes no sense, a store that owes nothing.
func (s *Store) Resume(ctx context.Context, r event.Receipt) (epoch event.Epoch, cursor uint64, err error) {
	err = checkReceipt(r)
	if err == nil && !s.conf.Owed {
		err = errNotOwed
	}
	if err != nil {
		return epoch, 0, fmt.Errorf("resume delivery: %w", err)
	}
	n, err := s.writer(ctx)
	if err != nil {
		return epoch, 0, err
	}
	defer s.release()
	if r.Epoch == n.epoch && r.Seq > n.head {
		return epoch, 0, s.rewind(n, r)
	}
	if err := s.resumeAt(n, r); err != nil {
		return epoch, 0, err
	}
	return n.epoch, n.cursor, nil
}

// stream is what a receiver keeps events in, see [event.Receipt].
type stream struct {
	name string
	// began is the cursor with which delivery to it began; 0 if it had events already.
	began uint64
}

// record encodes what metaStream holds.
func (s stream) record() []byte { return append(number(s.began), s.name...) }

func parseStream(b []byte) stream {
	if len(b) < 8 {
		return stream{}
	}
	return stream{name: string(b[8:]), began: parseMetaNumber(b)}
}

func checkReceipt(r event.Receipt) error {
	switch {
	case r.Stream == "" || len(r.Stream) > maxStreamName:
		return fmt.Errorf("receiver's storage has a name of %d bytes: want 1 to %d", len(r.Stream), maxStreamName)
	case r.Epoch.IsZero() && r.Seq != 0:
		return fmt.Errorf("receiver has event %d of no epoch", r.Seq)
	case !r.Epoch.IsZero() && r.Seq == 0:
		return fmt.Errorf("receiver has event 0 of epoch %s: the first is 1", r.Epoch)
	}
	return nil
}

// resumeAt carries out a Resume that needs no new epoch.
func (s *Store) resumeAt(n *session, r event.Receipt) error {
	w := n.newWrite()
	if err := s.addResumption(w, r); err != nil {
		discard(w.batch)
		return s.readFailed(err)
	}
	if w.batch.Empty() {
		discard(w.batch)
		return nil
	}
	from := n.cursor
	if err := s.carryOut(n, w); err != nil {
		return err
	}
	if n.cursor < from {
		s.conf.Log.WithField("from", from).WithField("to", n.cursor).Warn("Delivery goes back: the receiver does not have what it had acknowledged")
	}
	return nil
}

func (s *Store) addResumption(w *write, r event.Receipt) error {
	to, err := s.resumption(w.session, r)
	if err != nil {
		return err
	}
	if w.stream.name != r.Stream {
		w.stream = stream{name: r.Stream}
		if r.Epoch.IsZero() {
			w.stream.began = to
		}
		must(w.batch.Set([]byte(metaStream), w.stream.record(), nil))
	}
	if to == w.cursor {
		return nil
	}
	if to < w.cursor && to+1 < w.floor {
		if err := s.addRewindLoss(w, to+1); err != nil {
			return err
		}
	}
	return w.moveCursor(to)
}

// resumption returns where the cursor belongs.
func (s *Store) resumption(n *session, r event.Receipt) (uint64, error) {
	switch {
	case r.Epoch == n.epoch:
		return r.Seq, nil
	case !r.Epoch.IsZero():
		return 0, nil
	case r.Stream == n.stream.name:
		return n.stream.began, nil
	case s.conf.DeliverFromNow:
		return n.cursor, nil
	}
	owed := n.backlog().bytes
	if owed >= s.conf.MaxBacklog/2 {
		return n.cursor, nil
	}
	// If retention has removed what follows the cursor, nothing before it is left.
	first, _, err := n.latest(n.cursor, s.conf.MaxBacklog/2-owed)
	return min(first-1, n.cursor), err
}

// addRewindLoss appends the loss of the events from..floor-1, which the receiver has
// lost and the store has removed.
func (s *Store) addRewindLoss(w *write, from uint64) error {
	host, err := w.lastEvent()
	if err != nil {
		return err
	}
	now := s.wall()
	return w.event(&event.Event{
		HostID: host.HostID, BootID: host.BootID,
		Kind: event.KindLoss, Source: event.SourceSensor, Time: now, Observed: now,
		Loss: &event.Loss{
			Cause: event.LossRewind, To: now, FromSeq: from, ToSeq: w.floor - 1, Count: w.floor - from, Known: true,
			Hint: "The receiver of events was restored from an older copy, and these had been removed by retention since they were delivered.",
		},
	})
}

// lastEvent returns the last event, a zero one if there is none.
func (n *session) lastEvent() (e event.Event, err error) {
	it, err := n.eventsIn(n.floor, n.head)
	if err != nil {
		return e, err
	}
	if it.Last() {
		_ = event.Decode(it.Value(), &e) // what can be read of it
	}
	return e, errors.Join(it.Error(), it.Close())
}

// addFirstRun adds where the first run that owes delivery begins it: the backlog may not
// be more than half of its budget, or nothing if Config.DeliverFromNow. A cursor that
// says less stays.
func (s *Store) addFirstRun(w *write) error {
	limit := s.conf.MaxBacklog / 2
	if s.conf.DeliverFromNow {
		limit = 0
	}
	if w.backlog().bytes <= limit {
		return nil
	}
	first, _, err := w.latest(w.head, limit)
	if err != nil {
		return err
	}
	return w.moveCursor(max(first-1, w.cursor))
}
