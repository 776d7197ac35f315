package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// clock is a wall clock that can be stepped; the rest of it is the real one.
type clock struct{ step atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.step.Load())) }

func sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

func retained(t *testing.T, c Config, fn func(t *testing.T, s *Store, c *clock)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c.FS = vfs.NewMem()
		s := mustOpen(t, c)
		wall := &clock{}
		s.wall = wall.now
		start := time.Now()
		s.uptime = func() time.Duration { return time.Since(start) }
		stop := serve(t, s)
		fn(t, s, wall)
		stop()
		mustClose(t, s, true)
	})
}

func TestRetentionByAge(t *testing.T) {
	c := testConfig(t, nil)
	c.Retention.Age = time.Hour
	c.Owed = false
	retained(t, c, func(t *testing.T, s *Store, _ *clock) {
		for n := range uint64(200) { // one a minute
			mustAppend(t, s, testBatch(time.Now(), n))
			sleep(time.Minute)
			es := readAll(t, s)
			if age := time.Since(es[0].Observed); age > 75*time.Minute {
				t.Fatalf("after %d events one is %v old", n, age)
			}
			if n > 60 && len(es) < 60 {
				t.Fatalf("after %d events %d are kept", n, len(es))
			}
		}
		st := s.Stats()
		if st.Floor < 125 || st.Removed != st.Floor-1 || st.Cursor != st.Floor-1 {
			t.Errorf("stats: %+v", st)
		}
		minutes, err := readMinutes(s.session.db)
		if err != nil || len(minutes) > 76 {
			t.Errorf("%d minutes indexed, %v", len(minutes), err)
		}
		if mustLoad(t, s).Empty {
			t.Error("empty")
		}
		sleep(3 * time.Hour)
		st = s.Stats()
		if st.Floor != 201 || st.Head != 200 || len(readAll(t, s)) != 0 {
			t.Errorf("stats: %+v", st)
		}
	})
}

func TestRetentionNeverTakesWhatIsOwed(t *testing.T) {
	c := testConfig(t, nil)
	c.Retention.Age = time.Hour
	retained(t, c, func(t *testing.T, s *Store, _ *clock) {
		mustAppend(t, s, testBatch(time.Now(), 1, 2, 3))
		sleep(5 * time.Hour)
		if st := s.Stats(); st.Floor != 1 || st.BacklogEvents != 3 {
			t.Errorf("stats: %+v", st)
		}
		if err := s.Ack(t.Context(), event.Epoch{}, 2); err != nil {
			t.Error(err)
		}
		sleep(5 * time.Minute)
		if es := readAll(t, s); len(es) != 1 || es[0].Seq != 3 {
			t.Errorf("%d events kept", len(es))
		}
	})
}

func TestRetentionDoesNotBelieveAStep(t *testing.T) {
	c := testConfig(t, nil)
	c.Retention.Age = time.Hour
	c.Owed = false
	retained(t, c, func(t *testing.T, s *Store, wall *clock) {
		mustAppend(t, s, testBatch(time.Now(), 1))
		sleep(10 * time.Minute)
		wall.step.Store(int64(24 * time.Hour))
		sleep(3 * time.Hour) // time alone makes no wrong clock right
		if st := s.Stats(); !st.RetentionPaused || st.RetentionPauses != 1 || st.Floor != 1 {
			t.Errorf("after a step: %+v", st)
		}
		wall.step.Store(0)
		sleep(2 * time.Minute)
		if st := s.Stats(); st.RetentionPaused || st.Floor != 2 {
			t.Errorf("at last: %+v", st)
		}
	})
}

func TestIdleStoreWritesNothing(t *testing.T) {
	c := testConfig(t, nil)
	c.Retention.Age = time.Hour
	retained(t, c, func(t *testing.T, s *Store, _ *clock) {
		mustAppend(t, s, testBatch(time.Now(), 1))
		sleep(time.Minute)
		before := s.Stats().Syncs
		sleep(30 * time.Minute)
		if n := s.Stats().Syncs - before; n != 0 {
			t.Errorf("%d fsyncs in 30 idle minutes", n)
		}
	})
}

func TestRetentionBySize(t *testing.T) {
	c := testConfig(t, nil)
	c.Retention.Bytes = minRetentionBytes
	c.Owed = false
	r := rand.New(rand.NewPCG(7, 7))
	retained(t, c, func(t *testing.T, s *Store, _ *clock) {
		sleep(10 * time.Minute)
		for range 60 {
			b := testBatch(time.Now(), 1, 2, 3, 4, 5, 6, 7, 8, 9)
			for _, e := range b.Events { // random text does not compress below half
				e.Process.CWD = randomText(r, 60<<10)
			}
			mustAppend(t, s, b)
			sleep(2 * time.Minute)
		}
		st := s.Stats()
		if st.Floor < 10 || st.Head-st.Floor < 100 {
			t.Errorf("stats: %+v", st)
		}
		if len(readAll(t, s)) != int(st.Head-st.Floor)+1 {
			t.Error("not dense")
		}
		sleep(10 * time.Minute)
		if st := s.Stats(); st.Bytes > 2*minRetentionBytes {
			t.Errorf("%d MiB on disk", st.Bytes>>20)
		}
	})
}

func randomText(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(r.IntN(26))
	}
	return string(b)
}

// Whatever the clock did, a query that starts at the lowest sequence of all index
// entries at or after its minute, but not below the floor, misses nothing.
func TestTrimmedIndexFindsEverything(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 5))
		events := make([]uint64, 1+r.IntN(60)) // minute of each sequence
		now := 100
		for i := range events {
			now = max(0, now+r.IntN(7)-2)
			events[i] = uint64(now)
		}
		if err := checkTrim(r, events); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func checkTrim(r *rand.Rand, events []uint64) error {
	index := map[uint64]uint64{}
	for i, m := range events {
		if _, ok := index[m]; !ok {
			index[m] = uint64(i + 1)
		}
	}
	floor := uint64(1)
	for range 3 {
		minutes := sortedIndex(index)
		floor += r.Uint64N(uint64(len(events)) + 2 - floor)
		for _, m := range trimmed(minutes, floor) {
			delete(index, m)
		}
		for since := range uint64(400) {
			start := max(firstSince(sortedIndex(index), since, uint64(len(events))), floor)
			for seq := floor; seq < start; seq++ {
				if events[seq-1] >= since {
					return fmt.Errorf("floor %d, since minute %d starts at %d and misses %d", floor, since, start, seq)
				}
			}
		}
	}
	return nil
}

func sortedIndex(index map[uint64]uint64) (ms []minute) {
	for m, seq := range index {
		ms = append(ms, minute{m, seq})
	}
	slices.SortFunc(ms, func(a, b minute) int { return int(a.minute) - int(b.minute) })
	return ms
}

func TestSleepIsNoStep(t *testing.T) {
	var r retainer
	now, wall := time.Now(), testTime
	if !r.step(now, wall, time.Hour) {
		t.Error("not believed at the start")
	}
	// The lid was closed for 8 h: the monotonic clock stood still.
	if !r.step(now.Add(5*time.Second), wall.Add(8*time.Hour), 9*time.Hour) {
		t.Error("not believed after a sleep")
	}
	if r.step(now.Add(10*time.Second), wall.Add(16*time.Hour), 9*time.Hour+5*time.Second) {
		t.Error("believed after a step")
	}
}
