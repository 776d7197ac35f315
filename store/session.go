package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// session is one opening of the database, and what was read from it then and kept
// current since. Fields without a remark belong to the holder of Store.slot; those
// that Stats shows are copied by publishLocked.
type session struct {
	db    *pebble.DB  // any goroutine that holds a reader
	epoch event.Epoch // constant: that of ident, or the one before it (see rewind.go)
	ident identity    // constant
	isNew bool        // constant: it had no epoch yet
	owed  bool        // constant: the run before owed delivery

	// readers counts the views held; leaving is closed, by Store.leave under
	// Store.mu, when they must end. Views are only taken under Store.mu and before
	// that, so Add never races with Wait.
	readers sync.WaitGroup
	leaving chan struct{}

	ledger         // what writes change
	journal uint64 // number of the last transition
	minute  uint64 // a minute that is in the time index
	indexed bool   // whether minute means anything
	// patience is the backlog, in bytes, up to which shedding is not tried again,
	// because the last time it found little; 0 if it found enough.
	patience uint64

	// removed is when events were removed of which the space is not given back, Unix
	// nanoseconds, 0: none were. Set by writes; Serve looks without waiting for them.
	removed atomic.Int64

	frozen *snapshot    // what views show while events are being shed, else nil
	gate   sync.RWMutex // guards frozen

	buf []byte // for encoding
	key []byte
}

// noteRemoved notes that a write removes events.
func (n *session) noteRemoved() {
	n.removed.CompareAndSwap(0, time.Now().UnixNano())
}

// owesSpace reports whether removed events have kept their space for long enough.
func (n *session) owesSpace() bool {
	removed := n.removed.Load()
	return removed != 0 && time.Since(time.Unix(0, removed)) >= flushDelay
}

// newSession reads what is to be known of an open database. It does not own db
// until it returns nil.
func newSession(db *pebble.DB, id identity) (*session, error) {
	n := &session{db: db, ident: id, epoch: id.epoch(), leaving: make(chan struct{})}
	stored, err := readMeta(db, metaEpoch)
	if err != nil {
		return nil, err
	}
	if len(stored) == len(n.epoch) && id.isRewound(event.Epoch(stored)) {
		n.epoch = event.Epoch(stored)
	}
	if stored != nil && string(stored) != string(n.epoch[:]) {
		return nil, fmt.Errorf("%w: its database has epoch %x, its file %s says %s", ErrNotStore, stored, identityFile, n.epoch)
	}
	n.isNew = stored == nil
	owed, err := readMeta(db, metaOwed)
	if err != nil {
		return nil, err
	}
	n.owed = len(owed) == 1 && owed[0] == 1
	if err := errors.Join(n.readOrder(), n.readLosses()); err != nil {
		return nil, err
	}
	return n, nil
}

// checkHead compares with what was durable when the identity was written: a log
// that lost its end looks like one that was torn by a power cut.
func (n *session) checkHead() error {
	if n.head < n.ident.Head {
		return fmt.Errorf("%w: event %d was durable, the last one now is %d", errDamaged, n.ident.Head, n.head)
	}
	return nil
}

// readOrder finds floor, head, cursor and the like.
func (n *session) readOrder() error {
	floor, err := readMeta(n.db, metaFloor)
	if err != nil {
		return err
	}
	n.floor = max(parseMetaNumber(floor), 1)
	last, err := lastNumber(n.db, prefixEvent)
	if err != nil {
		return fmt.Errorf("find last event: %w", err)
	}
	n.head = max(last, n.floor-1)
	total, err := readMeta(n.db, metaBytes)
	if err != nil {
		return err
	}
	n.total = parseMetaNumber(total)
	cursor, err := readMeta(n.db, metaCursor)
	if err != nil {
		return err
	}
	n.cursor, n.settled = parseCursor(cursor)
	n.settled.events = max(n.settled.events, n.floor-1)
	stream, err := readMeta(n.db, metaStream)
	if err != nil {
		return err
	}
	n.stream = parseStream(stream)
	if n.ranges, err = readRanges(n.db); err != nil {
		return err
	}
	if n.journal, err = lastNumber(n.db, prefixJournal); err != nil {
		return fmt.Errorf("find last transition: %w", err)
	}
	return nil
}

func (n *session) readLosses() (err error) {
	n.losses, err = readLosses(n.db)
	return err
}

// readLosses returns the loss totals of a database, by cause.
func readLosses(r pebble.Reader) (losses []LossTotal, err error) {
	lower, upper := keySpan(metaLoss)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read loss totals: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		if len(it.Key()) != len(metaLoss)+1 {
			continue
		}
		t := LossTotal{Cause: event.LossCause(it.Key()[len(metaLoss)])}
		t.Events, t.Count = parseTwoNumbers(it.Value())
		losses = append(losses, t)
	}
	return losses, errors.Join(it.Error(), it.Close())
}

// addLoss returns losses with one more loss event, as a copy, and its new total.
func addLoss(losses []LossTotal, l *event.Loss) ([]LossTotal, LossTotal) {
	losses = slices.Clone(losses)
	i, found := slices.BinarySearchFunc(losses, l.Cause, func(t LossTotal, c event.LossCause) int { return int(t.Cause) - int(c) })
	if !found {
		losses = slices.Insert(losses, i, LossTotal{Cause: l.Cause})
	}
	losses[i].Events++
	if l.Known {
		losses[i].Count += l.Count
	}
	return losses, losses[i]
}
