package collect

import (
	"testing"
	"time"
)

// TestTrim: memory is given back after a cycle that needed much, and only then.
func TestTrim(t *testing.T) {
	trimmed := 0
	bubble(t, func(w *world) {
		w.cfg.Trim = func() { trimmed++ }
		for pid := range int32(manyEvents) {
			w.host.spawn(pid+1, uint64(pid))
		}
	}, func(t *testing.T, w *world) {
		w.begin()
		if trimmed != 1 {
			t.Errorf("%d times after the first cycle, want once", trimmed)
		}
		w.host.spawn(manyEvents+1, manyEvents+1)
		pass(10 * time.Minute)
		if trimmed != 1 {
			t.Errorf("%d times after quiet cycles, want once", trimmed)
		}
		if n := w.handle.Status().Totals.Events; n < manyEvents+1 {
			t.Errorf("%d events", n)
		}
	})
}
