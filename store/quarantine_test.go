package store

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// damage overwrites bytes in the biggest file of db with this suffix.
func damage(t *testing.T, fs vfs.FS, suffix string, off int64) {
	t.Helper()
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	victim, size := "", int64(0)
	for _, name := range names {
		info, err := fs.Stat("db/" + name)
		if err == nil && strings.HasSuffix(name, suffix) && info.Size() > size {
			victim, size = "db/"+name, info.Size()
		}
	}
	if size < off+8 {
		t.Fatalf("no file *%s of more than %d bytes in %v", suffix, off, names)
	}
	f, err := fs.OpenReadWrite(victim, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.WriteAt([]byte("\xde\xad\xbe\xef\xde\xad\xbe\xef"), off)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamageAtOpenIsSetAside(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, testConfig(t, mem))
	for n := range uint64(500) {
		mustAppend(t, s, testBatch(testTime, n))
	}
	old := s.Stats()
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s, true)
	damage(t, crashed, ".log", 20_000)
	s = mustOpen(t, testConfig(t, crashed))
	// 0: the log is all that knew of the events, and nothing can be read of it.
	checkReplaced(t, s, crashed, old.Epoch, 0)
	mustAppend(t, s, testBatch(testTime, 1))
	if table := mustLoad(t, s); table.Empty || table.Quarantined != "" || !table.PreviousEpoch.IsZero() {
		t.Errorf("table after the first event: %+v", table)
	}
	replaced := s.Stats()
	mustClose(t, s, true)
	s = mustOpen(t, testConfig(t, crashed)) // it stays known
	defer mustClose(t, s, true)
	if st := s.Stats(); st.Epoch != replaced.Epoch || st.QuarantinedTo != replaced.QuarantinedTo || !st.QuarantinedAt.Equal(replaced.QuarantinedAt) {
		t.Errorf("stats: %+v", st)
	}
}

// checkReplaced checks that s is the empty successor of a quarantined store.
func checkReplaced(t *testing.T, s *Store, fs vfs.FS, epoch event.Epoch, seq uint64) {
	t.Helper()
	st := s.Stats()
	if st.Epoch == epoch || st.Head != 0 || !strings.HasPrefix(st.QuarantinedTo, "db.corrupt-") || st.QuarantinedAt.IsZero() {
		t.Errorf("stats: %+v", st)
	}
	table := mustLoad(t, s)
	if !table.Empty || table.PreviousEpoch != epoch || table.PreviousSeq != seq || table.Quarantined != st.QuarantinedTo || table.Clean {
		t.Errorf("table: %+v, want previous %v.%d", table, epoch, seq)
	}
	if names, err := fs.List(st.QuarantinedTo); err != nil || len(names) < 5 {
		t.Errorf("%s holds %v, %v", st.QuarantinedTo, names, err)
	}
}

func TestDamageAtRunTimeIsSetAside(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testConfig(t, mem))
	for n := range uint64(500) {
		mustAppend(t, s, testBatch(testTime, n))
	}
	n, err := s.serving()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s, true)
	damage(t, mem, ".sst", 100)

	s = mustOpen(t, testConfig(t, mem))
	old := s.Stats()
	waited := make(chan error)
	go func() {
		_, err := s.Wait(context.Background(), event.Epoch{}, old.Head)
		waited <- err
	}()
	err = s.Read(t.Context(), event.Epoch{}, 0, 0, func(uint64, []byte) error { return nil })
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("read: %v", err)
	}
	if st := s.Stats(); st.InService || !strings.Contains(st.Reason, "damaged") {
		t.Errorf("stats: %+v", st)
	}
	stop := serve(t, s)
	<-s.Available()
	if err := <-waited; !errors.Is(err, ErrReplaced) {
		t.Errorf("wait: %v", err)
	}
	checkReplaced(t, s, mem, old.Epoch, old.Head)
	mustAppend(t, s, testBatch(testTime, 1))
	stop()
	mustClose(t, s, true)
}
