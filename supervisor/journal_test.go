package supervisor

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
)

// notebook is a transition store that refuses while closed.
type notebook struct {
	closed  bool
	written []string
}

func (n *notebook) Journal(_ context.Context, t store.Transition) error {
	if n.closed {
		return errors.New("out of service")
	}
	n.written = append(n.written, t.Event)
	return nil
}

func fired(i int) fsm.Transition {
	return fsm.Transition{Machine: "collector", From: "a", To: "b", Event: fmt.Sprint(i)}
}

func TestJournalKeepsWhatTheStoreRefuses(t *testing.T) {
	var book notebook
	j := newJournal(&book, nil)
	j.record(fired(1))
	book.closed = true
	j.record(fired(2))
	j.record(fired(3))
	if _, waiting, _ := j.transitions(); waiting != 2 {
		t.Fatalf("%d transitions wait, want 2", waiting)
	}
	book.closed = false
	j.record(fired(4))
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, book.written); diff != "" {
		t.Errorf("written in another order (-want +got):\n%s", diff)
	}
	recent, waiting, dropped := j.transitions()
	if len(recent) != 4 || waiting != 0 || dropped != 0 {
		t.Errorf("%d recent, %d waiting, %d dropped; want 4, 0, 0", len(recent), waiting, dropped)
	}
}

func TestJournalIsBounded(t *testing.T) {
	book := notebook{closed: true}
	j := newJournal(&book, []store.Transition{{Event: "earlier"}})
	for i := range unwritten + 5 {
		j.record(fired(i))
	}
	recent, waiting, dropped := j.transitions()
	if len(recent) != remembered || waiting != unwritten || dropped != 5 {
		t.Errorf("%d recent, %d waiting, %d dropped; want %d, %d, 5", len(recent), waiting, dropped, remembered, unwritten)
	}
	book.closed = false
	j.flush(t.Context())
	if len(book.written) != unwritten || book.written[0] != "5" {
		t.Errorf("%d written from %s on; want the newest %d", len(book.written), book.written[0], unwritten)
	}
}

func TestJournalStartsWithEarlierRuns(t *testing.T) {
	j := newJournal(&notebook{}, []store.Transition{{Event: "earlier"}})
	j.record(fired(1))
	recent, _, _ := j.transitions()
	if len(recent) != 2 || recent[0].Event != "earlier" {
		t.Errorf("recent = %v, want the earlier run's first", recent)
	}
}
