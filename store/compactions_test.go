package store

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// fakePebble has compactions that wait. Like Pebble, it calls the scheduler with its
// own mutex locked.
type fakePebble struct {
	mu      sync.Mutex // guards everything below
	c       *compactions
	waiting int
	begun   []pebble.CompactionGrantHandle
	shy     int // so many that were asked for do not want to run any more
	asked   chan struct{}
}

func (*fakePebble) GetAllowedWithoutPermission() int { return 1 }

func (p *fakePebble) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		<-p.asked
	}
	return p.waiting > 0, pebble.WaitingCompaction{}
}

func (p *fakePebble) Schedule(g pebble.CompactionGrantHandle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shy > 0 {
		p.shy--
		// Meanwhile somebody else is refused, and waits from now on.
		if ok, _ := p.c.TrySchedule(); ok {
			panic("two compactions at once")
		}
		return false
	}
	p.waiting--
	p.begun = append(p.begun, g)
	return true
}

// want asks for a compaction.
func (p *fakePebble) want() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok, g := p.c.TrySchedule(); ok {
		p.begun = append(p.begun, g)
	} else {
		p.waiting++
	}
}

// count is how many were begun.
func (p *fakePebble) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.begun)
}

func newFakePebble() *fakePebble {
	p := &fakePebble{c: new(compactions)}
	p.c.Register(1, p)
	return p
}

func TestCompactionsOneAfterTheOther(t *testing.T) {
	p := newFakePebble()
	for range 3 {
		p.want()
	}
	for i := range 3 {
		if len(p.begun) != i+1 {
			t.Fatalf("%d were begun, want %d", len(p.begun), i+1)
		}
		p.begun[i].Done()
	}
	p.want()
	if len(p.begun) != 4 {
		t.Error("after all others were done, one was refused")
	}
}

// TestCompactionRefusedWhileAnotherChangesItsMind: the one that was refused meanwhile
// is not forgotten.
func TestCompactionRefusedWhileAnotherChangesItsMind(t *testing.T) {
	p := newFakePebble()
	p.want()
	p.want()
	p.shy = 2
	p.begun[0].Done()
	if len(p.begun) != 2 {
		t.Errorf("%d were begun, want 2", len(p.begun))
	}
}

// TestCompactionsEnd: once Unregister has returned Pebble is not called any more.
func TestCompactionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePebble()
		p.want()
		p.want()
		p.asked = make(chan struct{})
		go p.begun[0].Done()
		synctest.Wait() // it is in GetWaitingCompaction
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.c.Unregister()
		}()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("Unregister does not wait for a call of Pebble")
		default:
		}
		close(p.asked)
		<-ended
		if ok, _ := p.c.TrySchedule(); ok || len(p.begun) != 1 {
			t.Errorf("a compaction was begun after the end: %d", len(p.begun))
		}
	})
}

// TestCompactionsRestAfterAFailure: not for long, and the end does not wait for it.
func TestCompactionsRestAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePebble()
		p.want()
		p.want()
		p.c.fail()
		p.begun[0].Done()
		time.Sleep(compactionPause - time.Nanosecond) //nolint:forbidigo // virtual time
		p.want()
		if n := p.count(); n != 1 {
			t.Fatalf("%d were begun, want 1", n)
		}
		time.Sleep(time.Nanosecond) //nolint:forbidigo // virtual time
		synctest.Wait()
		if n := p.count(); n != 2 {
			t.Fatalf("%d were begun after the pause, want 2", n)
		}
		p.begun[1].Done()
		if n := p.count(); n != 3 {
			t.Fatalf("%d were begun after one that has not failed, want 3", n)
		}
		p.waiting = 1
		p.c.fail()
		p.begun[2].Done()
		p.c.Unregister()
		time.Sleep(2 * compactionPause) //nolint:forbidigo // virtual time
		if p.count() != 3 {
			t.Error("a compaction was begun after the end")
		}
	})
}

// TestCompactionThatFailsForEver: a table that can not be read takes no core.
func TestCompactionThatFailsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		var broken atomic.Bool
		var failures atomic.Int64
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if broken.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpFileReadAt {
				return syscall.EIO
			}
			return nil
		}))
		listener := quietListener()
		listener.BackgroundError = func(error) {
			if failures.Add(1) >= most {
				broken.Store(false) // or it would never end
			}
		}
		db, err := pebble.Open("db", readWriteOptions(fs, nil, memTableSize, pebbleLogger{log: silentLog()}, listener))
		if err != nil {
			t.Fatal(err)
		}
		fill := func() {
			for i := range 100 {
				must(db.Set(fmt.Appendf(nil, "k%d", i), make([]byte, 100), pebble.NoSync))
			}
			must(db.Flush())
		}
		fill()
		must(db.Compact(t.Context(), []byte("k"), []byte("l"), false))
		broken.Store(true)
		for range 4 {
			fill()
		}
		time.Sleep(10 * compactionPause) //nolint:forbidigo // virtual time
		if n := failures.Load(); n < 2 || n > 2*10 {
			t.Errorf("%d failures in ten pauses", n)
		}
		broken.Store(false)
		time.Sleep(2 * compactionPause) //nolint:forbidigo // virtual time
		synctest.Wait()
		if n := db.Metrics().Levels[0].TablesCount; n >= 4 {
			t.Errorf("%d tables were not compacted when they could be read again", n)
		}
		must(db.Close())
	})
}

// TestFlushThatFailsForEver: nor does a table that can not be written.
func TestFlushThatFailsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSyncData} {
			var broken atomic.Bool
			var failures atomic.Int64
			fs := &guardFS{fatal: func(err error) { t.Error(err) }, dropBallast: func() {}, FS: injectFaults(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && isTable(op.Path) && op.Kind == kind {
					return syscall.EIO
				}
				return nil
			}))}
			listener := quietListener()
			listener.BackgroundError = func(error) {
				if failures.Add(1) >= most {
					broken.Store(false) // or it would never end
				}
			}
			db, err := pebble.Open("db", readWriteOptions(fs, nil, memTableSize, pebbleLogger{log: silentLog()}, listener))
			if err != nil {
				t.Fatal(err)
			}
			broken.Store(true)
			must(db.Set([]byte("k"), []byte("v"), pebble.Sync))
			flushed, err := db.AsyncFlush()
			must(err)
			time.Sleep(10*tablePause + tablePause/2) //nolint:forbidigo // virtual time
			if n := failures.Load(); n < 2 || n > 2*10 {
				t.Errorf("%v: %d failures in ten pauses", kind, n)
			}
			broken.Store(false)
			<-flushed
			must(db.Close())
		}
	})
}
