package store

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// crashes is how many power cuts are made; each prints its seed if it goes wrong.
const crashes = 200

// world is all that a store should know after some prefix of the operations.
type world struct {
	Head, Floor, Cursor, Journal uint64
	Losses                       uint64
	Backlog                      uint64
	Table                        map[event.ID]int
	AsOf                         int64
}

func (w world) clone() world {
	w.Table = maps.Clone(w.Table)
	return w
}

// player does random operations on a store and keeps the world after each.
type player struct {
	r      *rand.Rand
	s      *Store
	worlds []world
	done   atomic.Int64 // operations acknowledged
	next   uint64       // process
}

func (p *player) now() world { return p.worlds[len(p.worlds)-1].clone() }

// step does one operation. The world it leads to is known before it begins.
func (p *player) step(ctx context.Context) error {
	w := p.now()
	var op func() error
	switch k := p.r.IntN(10); {
	case k == 0:
		w.Journal++
		op = func() error { return p.s.Journal(ctx, Transition{Machine: "m", At: testTime}) }
	case k == 1 && w.Head > w.Cursor:
		w.Cursor += 1 + p.r.Uint64N(w.Head-w.Cursor)
		op = func() error { return p.s.Ack(ctx, event.Epoch{}, w.Cursor) }
	case k == 2 && w.Cursor >= w.Floor:
		w.Floor += 1 + p.r.Uint64N(w.Cursor+1-w.Floor)
		op = func() error { return p.remove(ctx, w.Floor) }
	default:
		b := p.batch(&w)
		op = func() error { return p.s.Append(ctx, b) }
	}
	w.Backlog = w.Head - w.Cursor
	p.worlds = append(p.worlds, w)
	err := op()
	if err == nil {
		p.done.Add(1)
	}
	return err
}

func (p *player) remove(ctx context.Context, floor uint64) error {
	n, err := p.s.writer(ctx)
	if err != nil {
		return err
	}
	defer p.s.release()
	minutes, err := readMinutes(n.db)
	return errors.Join(err, p.s.removeBelow(n, floor, minutes))
}

func (p *player) batch(w *world) *event.Batch {
	b := &event.Batch{}
	for range p.r.IntN(20) {
		p.next++
		q := testProcess(p.next)
		q.Args = []string{strings.Repeat("x", p.r.IntN(800))}
		b.Put = append(b.Put, q)
		b.Events = append(b.Events, &event.Event{Kind: event.KindStart, Observed: testTime.Add(time.Duration(p.next) * time.Second), Process: *q})
		w.Table[q.ID] = len(q.Args[0])
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.Table), func(a, b event.ID) int { return slices.Compare(a[:], b[:]) }) {
		if p.r.IntN(10) == 0 && !slices.ContainsFunc(b.Put, func(q *event.Process) bool { return q.ID == id }) {
			b.Delete = append(b.Delete, id)
			delete(w.Table, id)
		}
	}
	if p.r.IntN(4) == 0 {
		b.Events = append(b.Events, &event.Event{Kind: event.KindLoss, Observed: testTime, Loss: &event.Loss{Cause: event.LossScan, Count: 3, Known: true}})
		w.Losses += 3
	}
	if p.r.IntN(2) == 0 {
		w.AsOf++
		b.AsOf, b.BootID = testTime.Add(time.Duration(w.AsOf)), "boot"
	}
	w.Head += uint64(len(b.Events))
	return b
}

// found reads the world back from a store.
func found(t *testing.T, s *Store) world {
	t.Helper()
	st := s.Stats()
	w := world{Head: st.Head, Floor: st.Floor, Cursor: st.Cursor, Backlog: st.BacklogEvents, Table: map[event.ID]int{}}
	for _, l := range st.Losses {
		w.Losses += l.Count
	}
	table := mustLoad(t, s)
	for _, p := range table.Processes {
		w.Table[p.ID] = len(p.Args[0])
	}
	if !table.AsOf.IsZero() {
		w.AsOf = int64(table.AsOf.Sub(testTime))
	}
	ts, err := s.Transitions(t.Context(), journalSize)
	if err != nil {
		t.Fatal(err)
	}
	w.Journal = uint64(len(ts))
	es := readAll(t, s)
	var bytes uint64
	for i, e := range es {
		if e.Seq != st.Floor+uint64(i) || e.Epoch != st.Epoch {
			t.Fatalf("event %d of %v at place %d above floor %d of %v", e.Seq, e.Epoch, i, st.Floor, st.Epoch)
		}
		if e.Seq > st.Cursor {
			bytes += uint64(len(event.Append(nil, e)))
		}
	}
	if uint64(len(es)) != st.Head+1-st.Floor || bytes != st.BacklogBytes {
		t.Fatalf("%d events from %d to %d, %d bytes of backlog, want %d", len(es), st.Floor, st.Head, st.BacklogBytes, bytes)
	}
	return w
}

func newPlayer(seed uint64) *player {
	return &player{
		r:      rand.New(rand.NewPCG(seed, 42)),
		worlds: []world{{Floor: 1, Table: map[event.ID]int{}}},
	}
}

// TestPowerCut cuts the power before a random file operation, and what is found
// then must be the world after the last acknowledged operation, or after the one
// that was under way.
func TestPowerCut(t *testing.T) {
	rotated := 0
	for seed := range uint64(crashes) {
		rotated += powerCut(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d power cuts, %d of them after a log file was rotated", crashes, rotated)
}

func powerCut(t *testing.T, seed uint64) (rotated int) {
	p := newPlayer(seed)
	mem := vfs.NewCrashableMem()
	var ops atomic.Int64
	var done int64
	var crashed *vfs.MemFS
	at := 1 + p.r.Int64N(700)
	percent := p.r.IntN(101)
	cloneRand := rand.New(rand.NewPCG(seed, 43))
	c := testConfig(t, injectFaults(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && ops.Add(1) == at {
			done = p.done.Load()
			crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: cloneRand})
		}
		return nil
	})))
	c.memTable = 64 << 10
	p.s = mustOpen(t, c)
	for ops.Load() < at {
		if err := p.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, p.s, p.r.IntN(2) == 0) // ends the background work that may be cutting
	checkCrash(t, p, crashed, done)
	if names, _ := mem.List("db"); !slices.Contains(names, "000002.log") {
		return 1
	}
	return 0
}

func checkCrash(t *testing.T, p *player, fs vfs.FS, done int64) {
	t.Helper()
	s := mustOpen(t, testConfig(t, fs))
	defer mustClose(t, s, true)
	if s.Stats().QuarantinedTo != "" {
		t.Error("a power cut led to a quarantine")
		return
	}
	got := found(t, s)
	candidates := p.worlds[done:min(int(done)+2, len(p.worlds))]
	for _, w := range candidates {
		if cmp.Equal(w, got) {
			mustAppend(t, s, testBatch(testTime, 1)) // and it goes on
			if s.Head() != got.Head+1 {
				t.Errorf("head %d after %d", s.Head(), got.Head)
			}
			return
		}
	}
	t.Errorf("after %d operations (-want +got):\n%s", done, cmp.Diff(candidates[0], got))
}

// TestPowerCutWhileMade cuts the power at every file operation of making a store,
// and keeps every part of what was not synced: the next opening makes it anew, and
// takes nothing for damage.
func TestPowerCutWhileMade(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 45))
		mem := vfs.NewCrashableMem()
		var ops int64
		var crashed *vfs.MemFS
		at := 1 + int64(seed)%50
		c := testConfig(t, injectFaults(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && atomic.AddInt64(&ops, 1) == at {
				crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: r})
			}
			return nil
		})))
		mustClose(t, mustOpen(t, c), false)
		if crashed == nil {
			crashed = mem.CrashClone(vfs.CrashCloneCfg{})
		}
		s, err := Open(t.Context(), testConfig(t, crashed))
		if err != nil {
			t.Fatalf("seed %d: open: %v", seed, err)
		}
		if to := s.Stats().QuarantinedTo; to != "" {
			t.Errorf("seed %d: set aside as %s", seed, to)
		}
		mustAppend(t, s, testBatch(testTime, 1))
		mustClose(t, s, true)
	}
}
