package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// TestInspectLongLogFromACopy reads a store whose logs are too long for its lock.
func TestInspectLongLogFromACopy(t *testing.T) {
	dir := deadStore(t, false)
	before := listing(t, filepath.Dir(dir))
	in, err := inspect(t.Context(), readFS(), dir, 0)
	if err != nil || in.Stats.Head != 5 || in.Processes != 5 || in.Stats.Path != dir || in.Damage != "" {
		t.Errorf("%+v, %v", in, err)
	}
	after := listing(t, filepath.Dir(dir))
	delete(before, filepath.Dir(dir)) // a copy came and went, which the parent's time shows
	delete(after, filepath.Dir(dir))
	compareListing(t, before, after)
}

// TestInspectTellsWhatIsLeft damages one record of each sort.
func TestInspectTellsWhatIsLeft(t *testing.T) {
	for name, test := range map[string]struct {
		key    []byte
		damage string // part of
		sound  func(*Inspection) bool
	}{
		"process": {appendProcessKey(nil, testID(2)), "table", func(in *Inspection) bool { return len(in.Transitions) == 1 && !in.LastEvent.IsZero() }},
		"journal": {journalKey(1), "transition", func(in *Inspection) bool { return in.Processes == 5 && !in.LastEvent.IsZero() }},
		// The one before it is told; verify finds what is wrong.
		"last event": {eventKey(5), "", func(in *Inspection) bool {
			return in.Processes == 5 && in.LastEvent.Equal(testTime.Add(3*time.Minute))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := deadStore(t, true)
			change(t, dir, func(db *pebble.DB) error { return db.Set(test.key, []byte("\xff\xff"), pebble.Sync) })
			in, err := Inspect(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if (in.Damage == "") != (test.damage == "") || !strings.Contains(in.Damage, test.damage) {
				t.Errorf("damage %q, want %q", in.Damage, test.damage)
			}
			if !test.sound(in) || in.Stats.Head != 5 || !in.Clean || in.BootID != "boot" {
				t.Errorf("%+v", in)
			}
		})
	}
}

// TestReadersMakeNoLockFile reads a backup without one.
func TestReadersMakeNoLockFile(t *testing.T) {
	dir := deadStore(t, true)
	if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	if in, err := Inspect(t.Context(), dir); err != nil || in.Stats.Head != 5 {
		t.Errorf("inspect: %+v, %v", in, err)
	}
	if v := mustVerify(t, dir); !v.OK() || v.Direct {
		t.Errorf("verify: %+v", v)
	}
	compareListing(t, before, listing(t, dir))
}

// TestDaemonWaitsForReaders starts a daemon while others look at its store.
func TestDaemonWaitsForReaders(t *testing.T) {
	dir := tabledStore(t, 300, 20)
	done := make(chan error)
	for range 2 {
		go func() {
			var err error
			for range 10 {
				if _, e := Inspect(context.Background(), dir); e != nil && !errors.Is(e, ErrLocked) {
					err = e
				}
			}
			done <- err
		}()
	}
	c := testConfig(t, nil)
	c.Dir, c.LockWait = dir, time.Minute
	s := mustOpen(t, c)
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.QuarantinedTo != "" || st.Head != 320 {
		t.Errorf("the store after others read it: %+v", st)
	}
	mustClose(t, s, true)
}

func TestInspectWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := deadStore(t, true)
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	if _, err := Inspect(t.Context(), dir); !errors.Is(err, ErrPermission) {
		t.Errorf("inspect: %v", err)
	}
	if _, err := Verify(t.Context(), dir, nil); !errors.Is(err, ErrPermission) {
		t.Errorf("verify: %v", err)
	}
}

func TestInspectEndsWithItsContext(t *testing.T) {
	dir := deadStore(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if in, err := Inspect(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", in, err)
	}
	if _, err := OpenCopy(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("copy: %v", err)
	}
	if left := names(t, filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestInspectAfterAnyCrash cuts the power after each step of a short life.
func TestInspectAfterAnyCrash(t *testing.T) {
	mem := vfs.NewCrashableMem()
	c := testConfig(t, mem)
	s := mustOpen(t, c)
	for n := range uint64(30) {
		crashed := mem.CrashClone(vfs.CrashCloneCfg{})
		in, err := inspect(t.Context(), crashed, "db", inspectLogs)
		if err != nil || in.Damage != "" || in.Clean || in.Stats.Head != n || in.Processes != int(n) {
			t.Fatalf("after %d events: %+v, %v", n, in, err)
		}
		mustAppend(t, s, testBatch(testTime.Add(time.Duration(n)*time.Minute), n+1))
		if n == 15 {
			if err := s.session.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustClose(t, s, true)
	in, err := inspect(t.Context(), mem.CrashClone(vfs.CrashCloneCfg{}), "db", inspectLogs)
	if err != nil || !in.Clean || in.Stats.Head != 30 {
		t.Errorf("at the end: %+v, %v", in, err)
	}
}

// TestInspectShowsLossTotals is here because state shows them of dead daemons too.
func TestInspectShowsLossTotals(t *testing.T) {
	c := testConfig(t, nil)
	c.Dir = filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, c)
	mustAppend(t, s, &event.Batch{Events: []*event.Event{{Kind: event.KindLoss, Observed: testTime, Loss: &event.Loss{Cause: event.LossRing, Count: 7, Known: true}}}})
	mustClose(t, s, false)
	in, err := Inspect(t.Context(), c.Dir)
	if err != nil || len(in.Stats.Losses) != 1 || in.Stats.Losses[0] != (LossTotal{event.LossRing, 1, 7}) {
		t.Errorf("%+v, %v", in, err)
	}
}
