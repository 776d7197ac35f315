package kernel

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const window = 50 * time.Millisecond

// TestOrder mixes what several CPUs tell, each in order and each read with a delay of
// its own, and wants all of it in order and once.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 1000
		o := NewOrder(window, most)
		happened := rapid.SliceOfN(rapid.Int64Range(1, int64(time.Second)), 0, 200).Draw(t, "times")
		slices.Sort(happened)
		// How long after it has happened each CPU's record is read.
		delay := rapid.SliceOfN(rapid.Int64Range(0, int64(window)/2), 1, 4).Draw(t, "delays")
		type reading struct {
			record Record
			read   time.Duration
		}
		var all []reading
		for i, at := range happened {
			cpu := i % len(delay)
			all = append(all, reading{Record{PID: int32(i), At: time.Duration(at), CPU: cpu}, time.Duration(at + delay[cpu])})
		}
		slices.SortStableFunc(all, func(a, b reading) int { return int(a.read - b.read) })
		var got []Record
		for now := time.Duration(0); now <= time.Second+2*window; now += 20 * time.Millisecond {
			for len(all) > 0 && all[0].read <= now {
				o.Add([]Record{all[0].record}, now)
				all = all[1:]
			}
			before := len(got)
			got = o.Take(now, got)
			for _, r := range got[before:] {
				if r.At > now {
					t.Fatalf("given before it happened: %v at %v", r.At, now)
				}
			}
		}
		if len(got) != len(happened) || o.Held() != 0 || o.Late() != 0 {
			t.Fatalf("%d of %d, %d held, %d late", len(got), len(happened), o.Held(), o.Late())
		}
		if !slices.IsSortedFunc(got, earlier) {
			t.Fatal("not in order")
		}
	})
}

func TestOrderOfOneMoment(t *testing.T) {
	o := NewOrder(window, 10)
	o.Add([]Record{{Kind: KindExit, At: 5}, {Kind: KindExec, At: 5}, {Kind: KindFork, At: 5}}, 5)
	got := o.Take(5+window, nil)
	if len(got) != 3 || got[0].Kind != KindFork || got[1].Kind != KindExec || got[2].Kind != KindExit {
		t.Errorf("got %+v", got)
	}
}

func TestOrderCountsWhatIsLate(t *testing.T) {
	o := NewOrder(window, 10)
	o.Add([]Record{{At: time.Second}}, time.Second)
	o.Take(2*time.Second, nil)
	o.Add([]Record{{At: time.Millisecond}, {PID: 7}}, 3*time.Second) // the second tells no time
	if got := o.Take(3*time.Second+window, nil); len(got) != 2 || got[0].At != time.Millisecond || got[1].At != 3*time.Second || o.Late() != 1 {
		t.Errorf("got %+v, %d late", got, o.Late())
	}
}

// TestOrderUnderPressure: the more it holds the shorter it waits, and it never holds
// more than it may.
func TestOrderUnderPressure(t *testing.T) {
	o := NewOrder(window, 100)
	waits := []time.Duration{o.wait()}
	for i := range 150 {
		o.Add([]Record{{PID: int32(i), At: time.Duration(i) * time.Millisecond / 10}}, 0)
		waits = append(waits, o.wait())
	}
	if waits[0] != window || waits[50] != window/2 || waits[100] != 0 || waits[150] != 0 {
		t.Errorf("waits %v, %v, %v and %v", waits[0], waits[50], waits[100], waits[150])
	}
	if got := o.Take(0, nil); len(got) < 50 || o.Held() > 100 || got[0].PID != 0 {
		t.Errorf("%d given, %d held", len(got), o.Held())
	}
}
