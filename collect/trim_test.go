package collect

import (
	"fmt"
	"testing"
	"time"
)

// TestTrim: memory is given back before the first cycle, and after one that needed much,
// and only then.
func TestTrim(t *testing.T) {
	trimmed := 0
	bubble(t, func(w *world) {
		w.cfg.Trim = func() { trimmed++ }
		w.host.spawn(1, 1)
	}, func(t *testing.T, w *world) {
		w.begin()
		if trimmed != 2 {
			t.Errorf("%d times around the first cycle, want twice", trimmed)
		}
		w.host.spawn(2, 2)
		pass(10 * time.Minute)
		if trimmed != 2 {
			t.Errorf("%d times after quiet cycles, want twice", trimmed)
		}
		for pid := range int32(manyEvents) {
			w.host.spawn(pid+3, uint64(pid+3))
		}
		pass(10 * time.Minute)
		if trimmed != 3 {
			t.Errorf("%d times after a large cycle, want three times", trimmed)
		}
		for round := range 4 { // each makes fewer than are many
			for pid := range int32(manyEvents / 3) {
				w.host.with(func() { w.host.procs[pid+3].record.Name = fmt.Sprint(round) })
			}
			pass(DefaultInterval)
		}
		if trimmed != 4 {
			t.Errorf("%d times after many events in some cycles, want four times", trimmed)
		}
		if n := w.handle.Status().Totals.Events; n < manyEvents+2 {
			t.Errorf("%d events", n)
		}
	})
}
