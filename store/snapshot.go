package store

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// snapshot is a state of the database that several views may share. It is closed
// when the last of them lets go.
type snapshot struct {
	*pebble.Snapshot
	holders atomic.Int64
}

func newSnapshot(db *pebble.DB) *snapshot {
	s := &snapshot{Snapshot: db.NewSnapshot()}
	s.holders.Store(1)
	return s
}

func (s *snapshot) release() {
	if s.holders.Add(-1) == 0 {
		_ = s.Close() // never fails
	}
}

// freeze makes new views show the present until thaw, and [session.reader] returns
// none that shows less. Shedding needs that: Pebble shows a batch before it is
// durable, and a reader that missed events which a power cut brings back would have
// skipped them for ever, without a word.
func (n *session) freeze() {
	n.gate.Lock()
	defer n.gate.Unlock()
	n.frozen = newSnapshot(n.db)
}

func (n *session) thaw() {
	n.gate.Lock()
	defer n.gate.Unlock()
	n.frozen.release()
	n.frozen = nil
}

// reader returns a state of the database in which no event is absent that could
// come back. The caller must release it, and holds the session open.
func (n *session) reader() *snapshot {
	n.gate.RLock()
	defer n.gate.RUnlock()
	if n.frozen == nil {
		return newSnapshot(n.db)
	}
	n.frozen.holders.Add(1)
	return n.frozen
}
