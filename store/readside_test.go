package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// seqs collects the sequences of what a query gives.
func seqs(t *testing.T, query func(context.Context, Query, func(*event.Event) error) error, q Query) (got []uint64, err error) {
	t.Helper()
	err = query(t.Context(), q, func(e *event.Event) error {
		got = append(got, e.Seq)
		return nil
	})
	return got, err
}

// fiveMinutes holds events 1..5, one a minute, with the clock set back by two
// minutes before the last.
func fiveMinutes(t *testing.T, s *Store) {
	t.Helper()
	for i, minute := range []int{0, 1, 2, 3, 1} {
		b := testBatch(testTime.Add(time.Duration(minute)*time.Minute), uint64(i+1))
		b.Events[0].Kind = []event.Kind{event.KindStart, event.KindStop}[i%2]
		b.Events[0].Process.Exe = fmt.Sprintf("/opt/bin\xff/tool%d", i+1)
		mustAppend(t, s, b)
	}
}

func TestQuery(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	fiveMinutes(t, s)
	at := func(m int) time.Time { return testTime.Add(time.Duration(m) * time.Minute) }
	for name, test := range map[string]struct {
		q    Query
		want []uint64
	}{
		"all":            {Query{}, []uint64{1, 2, 3, 4, 5}},
		"after":          {Query{After: 3}, []uint64{4, 5}},
		"after the last": {Query{After: 5}, nil},
		"after all":      {Query{After: ^uint64(0)}, nil},
		"same epoch":     {Query{After: 4, AfterEpoch: s.Stats().Epoch}, []uint64{5}},
		"since":          {Query{Since: at(1)}, []uint64{2, 3, 4, 5}},
		"since, exactly": {Query{Since: at(3)}, []uint64{4}},
		"since later":    {Query{Since: at(4)}, nil},
		"until":          {Query{Until: at(1)}, []uint64{1, 2, 5}},
		"window":         {Query{Since: at(1), Until: at(1)}, []uint64{2, 5}},
		"kind":           {Query{Kinds: []event.Kind{event.KindStop}}, []uint64{2, 4}},
		"pids":           {Query{PIDs: []int32{2, 5}}, []uint64{2, 5}},
		"process":        {Query{Process: testID(3)}, []uint64{3}},
		"exe name":       {Query{Exe: "tool[12]"}, []uint64{1, 2}},
		"exe path":       {Query{Exe: `/opt/*/tool5`}, []uint64{5}},
		"exe is text":    {Query{Exe: `/opt/bin\\xff/tool5`}, []uint64{5}},
		"exe otherwise":  {Query{Exe: "/tool5"}, nil},
		"limit":          {Query{Limit: 2}, []uint64{1, 2}},
		"newest":         {Query{Limit: 2, Newest: true}, []uint64{4, 5}},
		"newest of kind": {Query{Limit: 1, Newest: true, Kinds: []event.Kind{event.KindStop}}, []uint64{4}},
		"both":           {Query{Kinds: []event.Kind{event.KindStop}, PIDs: []int32{1, 2}}, []uint64{2}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := seqs(t, s.Query, test.q)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestQueryRefuses(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	fiveMinutes(t, s)
	if _, err := seqs(t, s.Query, Query{AfterEpoch: event.NewEpoch()}); !errors.Is(err, ErrEpoch) {
		t.Errorf("another epoch: %v, want ErrEpoch", err)
	}
	if _, err := seqs(t, s.Query, Query{Exe: "[a"}); err == nil {
		t.Error("a bad pattern is taken")
	}
	stop := errors.New("enough")
	if err := s.Query(t.Context(), Query{}, func(*event.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of fn: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Query(ctx, Query{}, func(*event.Event) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	mustClose(t, s, true)
	if _, err := seqs(t, s.Query, Query{}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v, want ErrClosed", err)
	}
}

// TestQueryTellsOfWhatItPassesOver puts an event that can not be decoded between
// others.
func TestQueryTellsOfWhatItPassesOver(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	defer mustClose(t, s, true)
	fiveMinutes(t, s)
	if err := s.session.db.Set(eventKey(3), []byte("\xff\xff\xff"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{{}, {Limit: 10, Newest: true}} {
		got, err := seqs(t, s.Query, q)
		if d := cmp.Diff([]uint64{1, 2, 4, 5}, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if !errors.Is(err, ErrUndecodable) || !strings.Contains(err.Error(), "is 3") {
			t.Errorf("%v, want ErrUndecodable naming event 3", err)
		}
	}
}

// deadStore is a store on disk that was closed in order, or, as its files lay while
// it ran, one that was killed.
func deadStore(t *testing.T, clean bool) string {
	t.Helper()
	c := testConfig(t, nil)
	c.Dir = filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, c)
	fiveMinutes(t, s)
	if err := s.Journal(t.Context(), Transition{Machine: "collector", Event: "begin"}); err != nil {
		t.Fatal(err)
	}
	if clean {
		mustClose(t, s, true)
		return c.Dir
	}
	killed := copyStore(t, c.Dir)
	mustClose(t, s, true)
	return killed
}

func TestInspectTouchesNothing(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := deadStore(t, clean)
		before := listing(t, filepath.Dir(dir))
		in, err := Inspect(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		compareListing(t, before, listing(t, filepath.Dir(dir)))
		if in.Clean != clean || in.Stats.Head != 5 || in.Processes != 5 || len(in.Transitions) != 1 || in.BootID != "boot" {
			t.Errorf("clean %v: %+v", clean, in)
		}
		if want := testTime.Add(time.Minute); !in.LastEvent.Equal(want) || !in.AsOf.Equal(want) {
			t.Errorf("last event %v, as of %v; want %v", in.LastEvent, in.AsOf, want)
		}
	}
}

func TestReadingRefusesAndTouchesNothing(t *testing.T) {
	readers := map[string]func(string) error{
		"inspect": func(dir string) error { _, err := Inspect(context.Background(), dir); return err },
		"copy":    func(dir string) error { _, err := OpenCopy(context.Background(), dir); return err },
		"verify":  func(dir string) error { _, err := Verify(context.Background(), dir, nil); return err },
	}
	for name, prepare := range map[string]func(string) error{
		"nothing": func(string) error { return nil },
		"file":    func(dir string) error { return os.WriteFile(dir, []byte("hello"), 0o600) },
		"foreign": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+"/x", nil, 0o600)) },
		"newer format": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+"/STORE", []byte(`{"store":"procmond","format":99}`), 0o600))
		},
	} {
		want := map[string]error{"nothing": fs.ErrNotExist, "file": ErrNotStore, "foreign": ErrNotStore, "newer format": ErrNewerFormat}[name]
		for reader, read := range readers {
			t.Run(name+"/"+reader, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "db")
				if err := prepare(dir); err != nil {
					t.Fatal(err)
				}
				before := listing(t, filepath.Dir(dir))
				if err := read(dir); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
				compareListing(t, before, listing(t, filepath.Dir(dir)))
			})
		}
	}
}

func TestReadingARunningStoreIsRefused(t *testing.T) {
	c := testConfig(t, nil)
	c.Dir = filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, c)
	defer mustClose(t, s, true)
	if _, err := Inspect(t.Context(), c.Dir); !errors.Is(err, ErrLocked) {
		t.Errorf("inspect: %v, want ErrLocked", err)
	}
	if _, err := OpenCopy(t.Context(), c.Dir); !errors.Is(err, ErrLocked) {
		t.Errorf("copy: %v, want ErrLocked", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(c.Dir)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestCopyOutlivesTheStore starts a daemon, which writes and removes, while a copy
// is being read.
func TestCopyOutlivesTheStore(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := deadStore(t, clean)
		copied, err := OpenCopy(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if copied.Direct {
			t.Error("the store itself is read, though links can be made")
		}
		before := listing(t, copied.dir)
		c := testConfig(t, nil)
		c.Dir, c.memTable = dir, 64<<10 // logs are used up, used again and removed
		s := mustOpen(t, c)
		for n := range uint64(2000) {
			mustAppend(t, s, testBatch(testTime, 100+n))
		}
		if err := s.session.db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s, true)
		compareListing(t, before, listing(t, copied.dir))
		got, err := seqs(t, copied.Query, Query{})
		if d := cmp.Diff([]uint64{1, 2, 3, 4, 5}, got); d != "" || err != nil {
			t.Errorf("clean %v: %v (-want +got):\n%s", clean, err, d)
		}
		if ts, err := copied.Transitions(t.Context(), 10); err != nil || len(ts) != 1 {
			t.Errorf("transitions: %v, %v", ts, err)
		}
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
	}
}

// TestAbandonedCopiesAreRemoved knows a copy that is read by its lock, and one of
// another store by its name.
func TestAbandonedCopiesAreRemoved(t *testing.T) {
	dir := deadStore(t, true)
	parent := filepath.Dir(dir)
	inUse, err := OpenCopy(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	abandoned := filepath.Join(parent, ".procmond-read-db-123")
	others := []string{".procmond-read-db-1x", ".procmond-read-db-2-123", ".procmond-read-other-123"}
	for _, name := range others {
		if err := os.Mkdir(filepath.Join(parent, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(t.TempDir(), "target")
	link := filepath.Join(parent, ".procmond-read-db-77")
	if err := errors.Join(os.Mkdir(abandoned, 0o700), os.WriteFile(abandoned+"/000001.sst", nil, 0o600),
		os.Mkdir(target, 0o700), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	c, err := OpenCopy(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Direct || c.dir == inUse.dir {
		t.Errorf("a second copy: direct %v, %s", c.Direct, c.dir)
	}
	if got, err := seqs(t, inUse.Query, Query{}); err != nil || len(got) != 5 {
		t.Errorf("the first copy gives %v, %v", got, err)
	}
	if err := errors.Join(c.Close(), inUse.Close()); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(others, []string{filepath.Base(link), "db"})
	slices.Sort(want)
	if d := cmp.Diff(want, names(t, parent)); d != "" {
		t.Errorf("left (-want +got):\n%s", d)
	}
	if _, err := os.Stat(target); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
}

// names lists a directory.
func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestDirectWhereNoCopyCanBeMade makes the name of the copy too long.
func TestDirectWhereNoCopyCanBeMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 250))
	if err := os.Rename(deadStore(t, true), dir); err != nil {
		t.Fatal(err)
	}
	before := listing(t, filepath.Dir(dir))
	c, err := OpenCopy(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := seqs(t, c.Query, Query{})
	if !c.Direct || err != nil || len(got) != 5 {
		t.Errorf("direct %v, %d events, %v", c.Direct, len(got), err)
	}
	if _, err := Inspect(t.Context(), dir); !errors.Is(err, ErrLocked) {
		t.Errorf("the store is not locked meanwhile: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(t.Context(), dir, nil); err != nil || !v.OK() || !v.Direct {
		t.Errorf("verify: %+v, %v", v, err)
	}
	compareListing(t, before, listing(t, filepath.Dir(dir)))
}

func TestVerifySound(t *testing.T) {
	for _, clean := range []bool{true, false} {
		var told [2]uint64
		v, err := Verify(t.Context(), deadStore(t, clean), func(done, total uint64) { told = [2]uint64{done, total} })
		if err != nil {
			t.Fatal(err)
		}
		if !v.OK() || v.Events != 5 || v.FirstSeq != 1 || v.LastSeq != 5 || v.Processes != 5 || v.Transitions != 1 {
			t.Errorf("clean %v: %+v", clean, v)
		}
		if told != [2]uint64{5, 5} {
			t.Errorf("progress ended with %v", told)
		}
	}
}

// TestVerifyFindsWrongContent changes records behind the store's back.
func TestVerifyFindsWrongContent(t *testing.T) {
	for name, test := range map[string]struct {
		key, value []byte // no value: delete
		want       string
	}{
		"hole":             {eventKey(3), nil, "events 3 to 3"},
		"garbage event":    {eventKey(3), []byte("\xff\xff"), "event 3"},
		"another event":    {eventKey(3), event.Append(nil, &event.Event{Seq: 4}), "event 3"},
		"garbage process":  {appendProcessKey(nil, testID(2)), []byte("\xff\xff"), testID(2).String()},
		"another process":  {appendProcessKey(nil, testID(2)), event.AppendProcess(nil, testProcess(3)), testID(2).String()},
		"garbage journal":  {journalKey(1), []byte("{"), "transition 1"},
		"index too high":   {minuteKey(minuteOf(testTime)), number(4), "minute"},
		"index missing":    {minuteKey(minuteOf(testTime)), nil, "minute"},
		"cursor too high":  {[]byte(metaCursor), twoNumbers(99, 1), "cursor"},
		"floor too low":    {[]byte(metaFloor), number(3), "event 1"},
		"event from above": {eventKey(9), event.Append(nil, &event.Event{Seq: 9}), "events 6 to 8"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := deadStore(t, true)
			db, err := pebble.Open(dir, readWriteOptions(vfs.Default, nil, memTableSize, panicLogger{}, quietListener()))
			if err != nil {
				t.Fatal(err)
			}
			if test.value == nil {
				err = db.Delete(test.key, pebble.Sync)
			} else {
				err = db.Set(test.key, test.value, pebble.Sync)
			}
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			v, err := Verify(t.Context(), dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if v.OK() || !strings.Contains(fmt.Sprint(v.Problems), test.want) {
				t.Errorf("problems %v, want one of %q", v.Problems, test.want)
			}
		})
	}
}
