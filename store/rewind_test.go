package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// oldCopy is a store with three events and their processes, of which a receiver has
// event 9: an older copy.
func oldCopy(t *testing.T, fs vfs.FS) (s *Store, r event.Receipt) {
	t.Helper()
	s = mustOpen(t, tightConfig(t, fs))
	mustAppend(t, s, testBatch(testTime, 1, 2, 3))
	if err := s.Journal(t.Context(), Transition{Machine: "collector", At: testTime}); err != nil {
		t.Fatal(err)
	}
	return s, event.Receipt{Stream: "a", Epoch: s.Stats().Epoch, Seq: 9}
}

// checkRewound checks the store that an older copy has become.
func checkRewound(t *testing.T, s *Store, fs vfs.FS, old event.Epoch) {
	t.Helper()
	st := s.Stats()
	if st.Epoch == old || st.Head != 0 || st.Kept != 0 || st.Cursor != 0 || st.BacklogBytes != 0 || len(st.Losses) != 0 ||
		!strings.HasPrefix(st.RewoundTo, "db.rewound-") || st.QuarantinedTo != "" {
		t.Errorf("stats %+v", st)
	}
	table := mustLoad(t, s)
	if !table.Empty || table.PreviousEpoch != old || table.PreviousSeq != 9 || table.Rewound != st.RewoundTo || table.Quarantined != "" {
		t.Errorf("table %+v", table)
	}
	if len(table.Processes) != 3 || !table.AsOf.Equal(testTime) || table.BootID != "boot" {
		t.Errorf("the processes did not stay: %+v", table)
	}
	if ts, err := s.Transitions(t.Context(), 10); err != nil || len(ts) != 1 {
		t.Errorf("transitions %v, %v", ts, err)
	}
	c := testConfig(t, fs)
	c.Dir = st.RewoundTo
	copied := mustOpen(t, c)
	if cst := copied.Stats(); cst.Epoch != old || cst.Head != 3 || len(readAll(t, copied)) != 3 {
		t.Errorf("copy: %+v", cst)
	}
	mustClose(t, copied, true)
}

func TestResumeOfAnOlderCopy(t *testing.T) {
	mem := vfs.NewMem()
	s, r := oldCopy(t, mem)
	waited := make(chan error)
	go func() {
		_, err := s.Wait(context.Background(), r.Epoch, 3)
		waited <- err
	}()
	if _, _, err := s.Resume(t.Context(), r); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "older copy") {
		t.Fatalf("resume: %v", err)
	}
	if err := s.Append(t.Context(), testBatch(testTime, 4)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	stop := serve(t, s)
	<-s.Available()
	if err := <-waited; !errors.Is(err, ErrReplaced) {
		t.Errorf("wait: %v", err)
	}
	checkRewound(t, s, mem, r.Epoch)
	mustResume(t, s, r, 0)
	mustAppend(t, s, &event.Batch{Events: testBatch(testTime, 4).Events})
	if st := s.Stats(); st.Head != 1 || st.BacklogEvents != 1 {
		t.Errorf("stats %+v", st)
	}
	if table := mustLoad(t, s); table.Rewound != "" || table.Empty {
		t.Errorf("table %+v", table)
	}
	// It is not an older copy twice.
	again := event.Receipt{Stream: "a", Epoch: s.Stats().Epoch, Seq: 2}
	if _, _, err := s.Resume(t.Context(), again); err == nil || errors.Is(err, ErrUnavailable) || s.Stats().Epoch != again.Epoch {
		t.Errorf("resume: %v", err)
	}
	stop()
	mustClose(t, s, true)
}

// TestRewindingSurvivesPowerCut cuts the power at each write between the receiver's
// word and the new epoch: what is found is as it was, or is the new epoch.
func TestRewindingSurvivesPowerCut(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex // guards clones
	var clones []*vfs.MemFS
	var armed atomic.Bool
	s, r := oldCopy(t, injectFaults(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{}))
		}
		return nil
	})))
	armed.Store(true)
	if _, _, err := s.Resume(t.Context(), r); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if err := s.reopen(t.Context(), leaveBroken); err != nil {
		t.Fatal(err)
	}
	armed.Store(false)
	checkRewound(t, s, mem, r.Epoch)
	mustClose(t, s, false) // ends the background work that may be copying
	before := 0
	for i, crashed := range clones {
		s := mustOpen(t, tightConfig(t, crashed))
		if s.Stats().Epoch == r.Epoch {
			if before++; before != i+1 || len(readAll(t, s)) != 3 {
				t.Errorf("power cut %d: as before, after %d that were", i, before)
			}
		} else {
			checkRewound(t, s, crashed, r.Epoch)
		}
		mustClose(t, s, true)
		if t.Failed() {
			t.Fatalf("power cut %d of %d", i, len(clones))
		}
	}
	t.Logf("%d power cuts, %d of them changed nothing", len(clones), before)
}

// TestRewindingWithoutSpace runs out of space at each write, for three of them.
func TestRewindingWithoutSpace(t *testing.T) {
	for at := int64(0); at < 60; at += 3 {
		var ops atomic.Int64
		mem := vfs.NewMem()
		c := tightConfig(t, injectFaults(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || isSync(op.Kind) || op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpFileClose {
				return nil
			}
			if n := ops.Add(1); n > at && n <= at+3 {
				return syscall.ENOSPC
			}
			return nil
		})))
		ops.Store(1000)
		c.pace = pace{wait: time.Millisecond, backoff: 1, backoffMax: 1, lack: 1, closing: time.Minute}
		s, r := mustOpen(t, c), event.Receipt{Stream: "a", Seq: 9}
		mustAppend(t, s, testBatch(testTime, 1, 2, 3))
		if err := s.Journal(t.Context(), Transition{}); err != nil {
			t.Fatal(err)
		}
		r.Epoch = s.Stats().Epoch
		ops.Store(0)
		for tries := 0; s.Stats().Epoch == r.Epoch; tries++ {
			if _, _, err := s.Resume(t.Context(), r); !errors.Is(err, ErrUnavailable) || tries == 10 {
				t.Fatalf("no space after %d writes: resume: %v", at, err)
			}
			for err := s.reopen(t.Context(), leaveBroken); err != nil; err = s.reopen(t.Context(), leaveBroken) {
				if !isNoSpace(err) {
					t.Fatalf("no space after %d writes: %v", at, err)
				}
			}
		}
		ops.Store(1000)
		checkRewound(t, s, mem, r.Epoch)
		mustClose(t, s, true)
		if t.Failed() {
			t.Fatalf("no space after %d writes", at)
		}
	}
}

func isSync(k errorfs.OpKind) bool {
	return k == errorfs.OpFileSync || k == errorfs.OpFileSyncData || k == errorfs.OpFileSyncTo
}

// TestReadersOfAnUnfinishedRewinding find the events that are still there.
func TestReadersOfAnUnfinishedRewinding(t *testing.T) {
	dir := deadStore(t, true)
	old, err := readIdentity(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	id := newIdentity()
	id.Making, id.PreviousEpoch, id.PreviousSeq, id.RewoundAt, id.RewoundTo, id.Rewinding = "", old.Epoch, 9, testTime, "db.rewound-x", true
	if err := id.write(vfs.Default, dir); err != nil {
		t.Fatal(err)
	}
	if v := mustVerify(t, dir); !v.OK() || v.Events != 5 || v.Stats.Epoch != old.epoch() {
		t.Errorf("%+v", v)
	}
	if in, err := Inspect(t.Context(), dir); err != nil || in.Stats.Head != 5 || in.Damage != "" {
		t.Errorf("%+v, %v", in, err)
	}
	c := testConfig(t, nil)
	c.Dir = dir
	s := mustOpen(t, c)
	st := s.Stats()
	mustClose(t, s, true)
	if st.Head != 0 || st.Epoch.String() != id.Epoch || st.RewoundTo != dir+".rewound-x" {
		t.Errorf("stats %+v", st)
	}
	for path, events := range map[string]uint64{dir: 0, st.RewoundTo: 5} {
		if v := mustVerify(t, path); !v.OK() || v.Events != events {
			t.Errorf("%s: %+v", path, v)
		}
	}
	if d := cmp.Diff(fs.FileMode(0o700), mustStat(t, st.RewoundTo).Mode().Perm()); d != "" {
		t.Error(d)
	}
}

func mustStat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := vfs.Default.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
