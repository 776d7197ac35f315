package store

import (
	"errors"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// damagedStore is a store with 500 events, closed, whose manifest's name is lost.
func damagedStore(t *testing.T) (mem *vfs.MemFS, old Stats) {
	t.Helper()
	mem = vfs.NewCrashableMem()
	s := mustOpen(t, testConfig(t, mem))
	for n := range uint64(500) {
		mustAppend(t, s, testBatch(testTime, n))
	}
	old = s.Stats()
	mustClose(t, s, true)
	names, err := mem.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if len(name) > 15 && name[:15] == "marker.manifest" {
			err = errors.Join(err, mem.Remove("db/"+name))
		}
	}
	d, openErr := mem.OpenDir("db")
	if err := errors.Join(err, openErr); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
	return mem, old
}

// TestQuarantineSurvivesPowerCut cuts the power after each write of setting a store
// aside: the next opening knows of it all the same.
func TestQuarantineSurvivesPowerCut(t *testing.T) {
	mem, old := damagedStore(t)
	clones := []*vfs.MemFS{mem.CrashClone(vfs.CrashCloneCfg{})}
	watched := injectFaults(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{}))
		}
		return nil
	}))
	s := newStore(testConfig(t, watched).withDefaults())
	id, err := readIdentity(mem, "db")
	if err == nil {
		err = s.quarantine(id, errDamaged)
	}
	if err != nil {
		t.Fatal(err)
	}
	clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{}))
	for i, crashed := range clones {
		s := mustOpen(t, testConfig(t, crashed))
		checkReplaced(t, s, crashed, old.Epoch, old.Head)
		if _, err := crashed.Stat(s.successorPath()); err == nil {
			t.Error("the successor is still there")
		}
		mustClose(t, s, true)
		if t.Failed() {
			t.Fatalf("power cut %d of %d", i, len(clones))
		}
	}
}

// TestQuarantineWithoutSpace runs out of space at each write of setting a store aside,
// and the process is started again.
func TestQuarantineWithoutSpace(t *testing.T) {
	for after := range int64(12) {
		mem, old := damagedStore(t)
		full := newFullFS(mem)
		full.syncs = true
		full.fail(syscall.ENOSPC, after)
		if s, err := Open(t.Context(), testConfig(t, full)); err == nil {
			if err := s.Close(false); err != nil {
				t.Fatal(err)
			}
		}
		s := mustOpen(t, testConfig(t, mem))
		checkReplaced(t, s, mem, old.Epoch, old.Head)
		mustClose(t, s, true)
		if t.Failed() {
			t.Fatalf("no space after %d writes", after)
		}
	}
}

// TestStaleSuccessor: a successor of a quarantine that was not carried out does not
// take the place of a store that is missing for another reason.
func TestStaleSuccessor(t *testing.T) {
	mem := vfs.NewMem()
	s := newStore(testConfig(t, mem).withDefaults())
	if err := s.makeSuccessor(newIdentity(), "db.corrupt-never"); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testConfig(t, mem))
	if st := s.Stats(); st.QuarantinedTo != "" {
		t.Errorf("stats: %+v", st)
	}
	mustClose(t, s, true)
}
