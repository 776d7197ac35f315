package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/control"
)

// position reads EPOCH.SEQ, as both stand in an event's JSON.
func position(s string) (event.Epoch, uint64, error) {
	if s == "" {
		return event.Epoch{}, 0, nil
	}
	epochText, seqText, ok := strings.Cut(s, ".")
	seq, seqErr := strconv.ParseUint(seqText, 10, 64)
	epoch, epochErr := event.ParseEpoch(epochText)
	if !ok || seqErr != nil || epochErr != nil {
		return event.Epoch{}, 0, fmt.Errorf("%q: want EPOCH.SEQ, the epoch and seq of an event", s)
	}
	return epoch, seq, nil
}

// checkAfterLive is checkAfter on a daemon. What keeps it from saying where its
// store is, keeps it from giving events too, and is said there.
func (p invocation) checkAfterLive(ctx context.Context, client *control.Client, q control.Query) error {
	if q.AfterEpoch.IsZero() {
		return nil
	}
	state, err := client.State(ctx)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	return p.checkAfter(q, state.Store.Epoch, state.Store.Head)
}

// checkAfter refuses a place in another epoch than the store's, and says so if the
// place is one that the store has not reached: nothing would be printed without a
// word. An empty epoch is not known.
func (p invocation) checkAfter(q control.Query, epoch string, head uint64) error {
	if q.AfterEpoch.IsZero() || epoch == "" {
		return nil
	}
	if asked := q.AfterEpoch.String(); asked != epoch {
		return wrongEpoch(fmt.Errorf("flag --after: the store has epoch %s, not %s", epoch, asked))
	}
	if q.After > head {
		p.note(fmt.Sprintf("flag --after: the store has no event %d yet: its last one is %d", q.After, head))
	}
	return nil
}

// wrongEpoch is what both ways of reading events make of another epoch.
func wrongEpoch(err error) error {
	return &exitError{
		code: exitUsage, err: err,
		hint: "Another store is here than the one you know: it was replaced, or --database names another. Its events begin without --after.",
	}
}
