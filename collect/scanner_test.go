package collect

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// sloppy is a scanner that breaks its promises.
type sloppy struct {
	*fakeHost
	spoil func(s *Snapshot)
}

func (s *sloppy) Scan(ctx context.Context, full bool, shot *Snapshot) error {
	err := s.fakeHost.Scan(ctx, full, shot)
	s.spoil(shot)
	return err
}

func TestScannerThatDoesNotSort(t *testing.T) {
	bubble(t, func(w *world) {
		w.cfg.Scanner = &sloppy{w.host, func(s *Snapshot) {
			o := s.Observations
			o[0], o[1] = o[1], o[0]
			s.Observations = append(s.Observations, o[0])
		}}
		w.host.spawn(7, 5)
		w.host.spawn(8, 6)
	}, func(_ *testing.T, w *world) {
		w.begin()
		w.expect("each once", "sensor started", "scan start 7", "scan start 8")
		pass(DefaultInterval)
		w.expect("and no more")
	})
}

func TestScannerThatKeepsARecordBack(t *testing.T) {
	var gone bool
	bubble(t, func(w *world) {
		w.cfg.Scanner = &sloppy{w.host, func(s *Snapshot) {
			for i := range s.Observations {
				s.Observations[i].Process = nil
			}
			if gone {
				w.host.kill(8)
			}
		}}
		w.host.spawn(7, 5)
	}, func(t *testing.T, w *world) {
		w.begin()
		w.expect("asked for", "sensor started", "scan start 7")
		if got := w.store.kept()[1].Process; got.Exe != "/bin/p7" {
			t.Errorf("process %+v", got)
		}
		gone = true
		w.host.spawn(8, 6)
		pass(DefaultInterval)
		w.expect("it was seen, so it is reported", "scan start 8")
		last := w.store.kept()[2].Process
		if last.PID != 8 || last.StartTicks != 6 || !last.Missing.Gone.Has(event.FieldExe) || last.ID.IsZero() {
			t.Errorf("process %+v", last)
		}
		pass(DefaultInterval)
		w.expect("and ends", "scan stop 8")
	})
}

func TestHeldStartsAreProbed(t *testing.T) {
	bubble(t, func(w *world) { w.cfg.Settings.MinLifetime = 10 * time.Second }, func(t *testing.T, w *world) {
		w.host.spawn(7, 7)
		w.host.spawn(8, 8)
		w.begin()
		w.store.take()
		w.host.with(func() { w.host.procs[7].record.State = 'Z' })
		pass(10 * time.Second)
		w.expect("a zombie has ended", "scan start 8")
		pass(DefaultInterval)
		w.expect("and is not new")
		w.host.spawn(9, 9)
		pass(DefaultInterval)
		w.host.with(func() { w.host.probeErr = errBroken })
		pass(10 * time.Second)
		w.expect("in doubt it lives", "scan start 9")
		if got := w.handle.Status().Totals.ShortLived; got != 1 {
			t.Errorf("short-lived %d", got)
		}
	})
}

// A crash between two batches can leave two processes with one PID in the table.
func TestTableWithOnePIDTwice(t *testing.T) {
	twoRuns(t, func(w *world) {
		old := &event.Process{ID: event.ID{1}, PID: 2, StartTicks: 1, State: 'S'}
		w.store.with(func() { w.store.table[old.ID] = old })
	}, func(t *testing.T, w *world) {
		w.expect("the older has ended", "sensor started", "sensor crashed", "loss down", "recovered stop 2")
		if len(w.store.rows()) != 3 {
			t.Errorf("table %v", w.store.rows())
		}
	})
}

func TestNotesAreBounded(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		w.store.with(func() { w.store.fail = func() error { return errFull } })
		for i := range notesCapacity + 10 {
			if _, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{KeyCPUThreshold: fmt.Sprint(i)}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := w.handle.Status().Totals.NotesLost; got != 10 {
			t.Errorf("%d lost", got)
		}
		w.store.with(func() { w.store.fail = nil })
		pass(maxBackOff)
		kept := strings.Count(strings.Join(w.store.take(), "\n"), "sensor config")
		if kept != notesCapacity {
			t.Errorf("%d kept", kept)
		}
	})
}
