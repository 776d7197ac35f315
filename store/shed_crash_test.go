package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"daemoneye.dev/procmond/collect/event"
)

// shedder appends to a store with a small budget and acknowledges a little, and keeps
// what was there after each step.
type shedder struct {
	*delivery
	r      *rand.Rand
	states []string
	done   atomic.Int64 // steps done
}

// state is what there is up to a sequence.
func state(t testing.TB, s *Store, to uint64) string {
	t.Helper()
	a := audit(t, s)
	var b strings.Builder
	fmt.Fprintf(&b, "cursor %d:", s.Stats().Cursor)
	for seq := uint64(1); seq <= to; seq++ {
		if e := a.events[seq]; e != nil {
			fmt.Fprintf(&b, " %d/%s/%d", seq, e.Kind, a.bytes[seq])
		}
	}
	return b.String()
}

// step does something, and notes what was there before, perhaps between, and after.
// Between is a shedding that is done, when what it made room for is not there yet.
func (p *shedder) step(t testing.TB) {
	t.Helper()
	before := state(t, p.s, p.s.Head())
	batch := p.batch()
	sheds := p.s.Stats().Sheds
	if p.r.IntN(6) == 0 && p.s.Stats().Cursor < p.s.Head() {
		batch = nil
		mustAck(t, p.s, p.s.Stats().Cursor+1)
	} else {
		mustAppend(t, p.s, batch)
	}
	p.done.Add(1)
	after := state(t, p.s, p.s.Head())
	between := after
	if p.s.Stats().Sheds > sheds {
		between = state(t, p.s, p.s.Head()-uint64(len(batch.Events)))
	}
	p.states = append(p.states, before, between, after)
}

func (p *shedder) batch() *event.Batch {
	kinds := []event.Kind{event.KindStart, event.KindExec, event.KindStop, event.KindStop, event.KindStop}
	return sized(1+p.r.IntN(3000), slices.Repeat([]event.Kind{kinds[p.r.IntN(len(kinds))], kinds[p.r.IntN(len(kinds))]}, 1+p.r.IntN(5))...)
}

// TestShedPowerCut cuts the power before a random file operation: a shedding is there
// as a whole or not at all.
func TestShedPowerCut(t *testing.T) {
	between := 0
	for seed := range uint64(40) {
		if shedPowerCut(t, seed) {
			between++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d power cuts right after a shedding", between)
}

func shedPowerCut(t *testing.T, seed uint64) (between bool) {
	t.Helper()
	p := &shedder{delivery: &delivery{t: t}, r: rand.New(rand.NewPCG(seed, 47))}
	mem := vfs.NewCrashableMem()
	var ops, done atomic.Int64
	var crashed *vfs.MemFS
	ops.Store(-1 << 40)
	at := 1 + p.r.Int64N(200)
	percent, cloneRand := p.r.IntN(101), rand.New(rand.NewPCG(seed, 48))
	p.disk = injectFaults(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && ops.Add(1) == at {
			done.Store(p.done.Load())
			crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: cloneRand})
		}
		return nil
	}))
	p.open()
	for p.s.Stats().Sheds < p.r.Uint64N(4) {
		p.step(t)
	}
	ops.Store(0)
	for ops.Load() < at {
		p.step(t)
	}
	mustClose(t, p.s, false) // ends the background work that may be cutting
	p.disk = crashed
	p.open()
	defer func() { mustClose(t, p.s, true) }()
	got := state(t, p.s, p.s.Head())
	last := p.states[len(p.states)-1]
	candidates := append(p.states, last, last, last)[3*done.Load():][:3] // it may be after the last step, in the background
	if !slices.Contains(candidates, got) {
		t.Errorf("after %d steps, found\n%s\nwant one of\n%s", done.Load(), got, strings.Join(candidates, "\n"))
	}
	mustAppend(t, p.s, p.batch())
	audit(t, p.s)
	return got == candidates[1] && got != candidates[2]
}

// TestShedWithoutSpace runs out of space at a write of a shedding: the store leaves
// service, returns, and everything is accounted for.
func TestShedWithoutSpace(t *testing.T) {
	hits := int64(0)
	for after := range int64(12) {
		full := newFullFS(vfs.NewMem())
		p := &shedder{delivery: &delivery{t: t, disk: full}, r: rand.New(rand.NewPCG(1, 49))}
		p.open()
		p.s.conf.pace = pace{wait: time.Millisecond, backoff: time.Millisecond, backoffMax: time.Millisecond, lack: time.Millisecond, closing: time.Minute}
		p.s.fs.pace = p.s.conf.pace
		stop := serve(t, p.s)
		for p.s.Stats().BacklogBytes < tinyBudget-1000 {
			mustAppend(t, p.s, sized(200, event.KindStart, event.KindStop))
		}
		full.fail(syscall.ENOSPC, after)
		failed := p.s.Append(t.Context(), sized(3000, event.KindStart))
		full.fail(0, 0)
		for !p.s.Stats().InService {
			<-p.s.Available()
		}
		audit(t, p.s)
		if failed != nil {
			mustAppend(t, p.s, sized(3000, event.KindStart))
		}
		if a := audit(t, p.s); a.absent == 0 || a.backlog.bytes > tinyBudget {
			t.Errorf("after %d writes: %d absent, backlog %+v", after, a.absent, a.backlog)
		}
		stop()
		mustClose(t, p.s, true)
		hits += full.hits.Load()
	}
	if hits == 0 {
		t.Error("space was never missed")
	}
}
