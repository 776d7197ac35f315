package store

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
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
