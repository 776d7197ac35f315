package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"daemoneye.dev/procmond/collect/event"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		holdStore(dir) // see TestLockedByAnotherProcess
		return
	}
	if name := os.Getenv(fatalEnv); name != "" {
		failForEver(name) // see TestFatal
		return
	}
	goleak.VerifyTestMain(m)
}

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// testConfig is a store on fs, whose Fatal fails the test.
func testConfig(t testing.TB, fs vfs.FS) Config {
	return Config{Dir: "db", FS: fs, Owed: true, Fatal: func(err error) {
		t.Errorf("fatal: %v", err)
		panic(err)
	}}
}

func mustOpen(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func mustClose(t testing.TB, s *Store, clean bool) {
	t.Helper()
	if err := s.Close(clean); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func mustAppend(t testing.TB, s *Store, b *event.Batch) {
	t.Helper()
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func mustLoad(t testing.TB, s *Store) *event.Table {
	t.Helper()
	table, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return table
}

func testID(n uint64) (id event.ID) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func testProcess(n uint64) *event.Process {
	return &event.Process{ID: testID(n), PID: int32(n), Name: "worker", Exe: "/usr/bin/worker", Args: []string{"worker", fmt.Sprint(n)}}
}

// testBatch has one start for each n, and its process.
func testBatch(at time.Time, ns ...uint64) *event.Batch {
	b := &event.Batch{AsOf: at, BootID: "boot"}
	for _, n := range ns {
		p := testProcess(n)
		b.Put = append(b.Put, p)
		b.Events = append(b.Events, &event.Event{Kind: event.KindStart, Time: at, Observed: at, HostID: "host", Process: *p})
	}
	return b
}

// readAll decodes all events and checks that they are dense.
func readAll(t testing.TB, s *Store) (es []*event.Event) {
	t.Helper()
	err := s.Read(t.Context(), event.Epoch{}, 0, 0, func(seq uint64, encoded []byte) error {
		e := new(event.Event)
		if err := event.Decode(encoded, e); err != nil {
			return err
		}
		if e.Seq != seq {
			return fmt.Errorf("event %d says it is %d", seq, e.Seq)
		}
		if len(es) > 0 && es[len(es)-1].Seq+1 != seq {
			return fmt.Errorf("event %d follows %d", seq, es[len(es)-1].Seq)
		}
		es = append(es, e)
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return es
}

func TestAppendIsWhole(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testConfig(t, mem))
	b := testBatch(testTime, 1, 2, 3)
	b.Events = append(b.Events, &event.Event{
		Kind: event.KindLoss, Observed: testTime,
		Loss: &event.Loss{Cause: event.LossRing, Count: 7, Known: true},
	})
	mustAppend(t, s, b)
	for i, e := range b.Events {
		if e.Seq != uint64(i+1) || e.Epoch != s.Stats().Epoch || e.Epoch.IsZero() {
			t.Errorf("event %d has sequence %d of epoch %v", i, e.Seq, e.Epoch)
		}
	}
	mustAppend(t, s, &event.Batch{Delete: []event.ID{testID(2)}, AsOf: testTime.Add(time.Minute), BootID: "boot2"})
	if err := s.Journal(t.Context(), Transition{Machine: "collector", From: "a", To: "b", At: testTime}); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(t.Context(), event.Epoch{}, 2); err != nil {
		t.Fatal(err)
	}
	before := s.Stats()
	mustClose(t, s, true)

	s = mustOpen(t, testConfig(t, mem))
	defer mustClose(t, s, false)
	checkReopened(t, s, before)
}

func checkReopened(t *testing.T, s *Store, before Stats) {
	t.Helper()
	after := s.Stats()
	type facts struct {
		Epoch                                    event.Epoch
		Head, Floor, Cursor, Events, Bytes, Loss uint64
	}
	of := func(st Stats) facts {
		return facts{st.Epoch, st.Head, st.Floor, st.Cursor, st.BacklogEvents, st.BacklogBytes, st.Losses[0].Count}
	}
	if d := cmp.Diff(of(before), of(after)); d != "" {
		t.Errorf("reopening changed (-before +after):\n%s", d)
	}
	if after.Head != 4 || after.Cursor != 2 || after.BacklogEvents != 2 || after.BacklogBytes == 0 {
		t.Errorf("stats: %+v", after)
	}
	table := mustLoad(t, s)
	if !table.Clean || table.CleanAt.IsZero() || table.Empty || table.BootID != "boot2" || !table.AsOf.Equal(testTime.Add(time.Minute)) {
		t.Errorf("table: %+v", table)
	}
	if d := cmp.Diff([]*event.Process{testProcess(1), testProcess(3)}, table.Processes); d != "" {
		t.Errorf("processes (-want +got):\n%s", d)
	}
	if ts, err := s.Transitions(t.Context(), 10); err != nil || len(ts) != 1 || ts[0].Machine != "collector" {
		t.Errorf("transitions %v, %v", ts, err)
	}
	if n := len(readAll(t, s)); n != 4 {
		t.Errorf("%d events, want 4", n)
	}
}

func TestCleanMarkIsOfTheRunBefore(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, testConfig(t, mem))
	if mustLoad(t, s).Clean {
		t.Error("a new store is clean")
	}
	mustClose(t, s, true)
	s = mustOpen(t, testConfig(t, mem))
	// A crash right after opening finds no mark any more.
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	if !mustLoad(t, s).Clean {
		t.Error("not clean after an orderly close")
	}
	mustAppend(t, s, testBatch(testTime, 1))
	if !mustLoad(t, s).Clean {
		t.Error("the answer changed during the run")
	}
	mustClose(t, s, false)
	for name, fs := range map[string]vfs.FS{"crash at open": crashed, "close without mark": mem} {
		s := mustOpen(t, testConfig(t, fs))
		if mustLoad(t, s).Clean {
			t.Errorf("%s: clean", name)
		}
		mustClose(t, s, false)
	}
}

func TestJournalKeepsTheLast(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, false)
	for i := range journalSize + 50 {
		if err := s.Journal(t.Context(), Transition{Machine: fmt.Sprint(i), At: testTime}); err != nil {
			t.Fatal(err)
		}
	}
	ts, err := s.Transitions(t.Context(), 2*journalSize)
	if err != nil || len(ts) != journalSize || ts[0].Machine != "50" || ts[len(ts)-1].Machine != "1049" {
		t.Fatalf("%d transitions, %v", len(ts), err)
	}
	if ts, _ = s.Transitions(t.Context(), 2); len(ts) != 2 || ts[1].Machine != "1049" {
		t.Errorf("last two: %v", ts)
	}
}

func TestAppendHonoursContextBeforeItWrites(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, false)
	ctx, cancel := context.WithCancel(t.Context())
	s.slot <- struct{}{} // somebody writes
	failed := make(chan error)
	go func() { failed <- s.Append(ctx, testBatch(testTime, 1)) }()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("append while another one writes: %v", err)
	}
	<-s.slot
	if err := s.Append(ctx, testBatch(testTime, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("append with an ended context: %v", err)
	}
	if s.Head() != 0 {
		t.Errorf("head %d", s.Head())
	}
}

func TestWaitSeesEveryAdvance(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	seen := make(chan uint64)
	go func() {
		defer close(seen)
		for after := uint64(0); ; {
			head, err := s.Wait(context.Background(), event.Epoch{}, after)
			if err != nil {
				if !errors.Is(err, ErrClosed) {
					t.Errorf("wait: %v", err)
				}
				return
			}
			after = head
			seen <- head
		}
	}()
	for i := uint64(1); i <= 20; i++ {
		mustAppend(t, s, testBatch(testTime, i))
		if got := <-seen; got != i {
			t.Errorf("wait returned %d, want %d", got, i)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Wait(ctx, event.Epoch{}, 20); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with an ended context: %v", err)
	}
	mustClose(t, s, false)
	for range seen {
	}
}

func TestAckRefusesTheFuture(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, false)
	mustAppend(t, s, testBatch(testTime, 1, 2))
	if err := s.Ack(t.Context(), event.Epoch{}, 3); err == nil {
		t.Error("acknowledged what does not exist")
	}
	if err := errors.Join(s.Ack(t.Context(), event.Epoch{}, 2), s.Ack(t.Context(), event.Epoch{}, 1)); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Cursor != 2 || st.BacklogEvents != 0 || st.BacklogBytes != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestStandaloneOwesNothing(t *testing.T) {
	c := testConfig(t, vfs.NewMem())
	c.Owed = false
	s := mustOpen(t, c)
	defer mustClose(t, s, false)
	mustAppend(t, s, testBatch(testTime, 1, 2))
	if st := s.Stats(); st.BacklogEvents != 0 || st.BacklogBytes != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestClosedStoreAnswers(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	mustClose(t, s, true)
	_, loadErr := s.Load(t.Context())
	_, waitErr := s.Wait(t.Context(), event.Epoch{}, 0)
	for name, err := range map[string]error{
		"append": s.Append(t.Context(), testBatch(testTime, 1)), "load": loadErr, "wait": waitErr,
		"journal": s.Journal(t.Context(), Transition{}), "ack": s.Ack(t.Context(), event.Epoch{}, 0), "serve": s.Serve(t.Context()),
		"read": s.Read(t.Context(), event.Epoch{}, 0, 0, nil),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(true); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestBigBatch(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, false)
	r := rand.New(rand.NewPCG(1, 2))
	b := testBatch(testTime)
	for n := range uint64(20_000) {
		p := testProcess(n)
		p.CWD = fmt.Sprintf("/%x%x%x%x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())
		b.Put = append(b.Put, p)
		b.Events = append(b.Events, &event.Event{Kind: event.KindStart, Observed: testTime, Process: *p})
	}
	mustAppend(t, s, b)
	mustAppend(t, s, testBatch(testTime, 1))
	if n := len(readAll(t, s)); n != 20_001 {
		t.Errorf("%d events", n)
	}
}

func TestModesOfFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parent", "db")
	c := testConfig(t, nil)
	c.Dir = dir
	s := mustOpen(t, c)
	mustAppend(t, s, testBatch(testTime, 1))
	defer mustClose(t, s, true)
	err := filepath.Walk(filepath.Dir(dir), func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
