package collect

import (
	"errors"
	"strings"
	"testing"

	"daemoneye.dev/procmond/collect/event"
)

// TestEventsStayWithinTheLimits lets arguments as long as can be change into others
// that take six times as much as text. The fake store refuses what is too big.
func TestEventsStayWithinTheLimits(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p := w.host.spawn(7, 5)
		p.record.Args = []string{"x", strings.Repeat("a", event.MaxArgs)}
		w.begin()
		w.store.take()
		w.host.with(func() { p.record.Args = []string{"x", strings.Repeat("\xff", event.MaxArgs)} })
		pass(DefaultInterval)
		events := w.store.kept()
		last := events[len(events)-1]
		if last.Kind != event.KindModify || len(last.Changes) == 0 {
			t.Fatalf("the change was not reported: %v", last)
		}
		for _, c := range last.Changes {
			if len(c.Old) > event.MaxChange || len(c.New) > event.MaxChange {
				t.Errorf("%v went from %d to %d bytes, want %d at most", c.Field, len(c.Old), len(c.New), event.MaxChange)
			}
		}
	})
}

// TestNotesAreWrittenOnce lets a cycle of several batches fail in the middle: the
// note that went with it must not be written again.
func TestNotesAreWrittenOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.host.with(func() { w.host.scanErr = errors.New("too many open files") })
		pass(DefaultInterval)
		for pid := range int32(1000) {
			w.host.spawn(pid+1, uint64(pid)+1)
		}
		calls := 0
		w.store.with(func() {
			w.store.fail = func() error {
				if calls++; calls == 3 {
					return errFull
				}
				return nil
			}
		})
		pass(DefaultInterval)
		pass(DefaultInterval)
		written := 0
		for _, e := range w.store.kept() {
			if e.Loss != nil && e.Loss.Cause == event.LossScan {
				written++
			}
		}
		if written != 1 {
			t.Errorf("the failed scan was reported %d times, want once", written)
		}
	})
}
