package bus

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// drainers are those who wait until everything is delivered.
type drainers struct {
	mu        sync.Mutex // guards everything below
	waiting   map[chan struct{}]bool
	interrupt context.CancelFunc // ends the wait for events; nil while there is none
}

func (d *drainers) add(done chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = make(map[chan struct{}]bool)
	}
	d.waiting[done] = true
	if d.interrupt != nil {
		d.interrupt()
	}
}

func (d *drainers) remove(done chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, done)
}

func (d *drainers) any() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting) > 0
}

// expect is told how to interrupt the wait for events that begins, nil when it is
// over. It returns who waits already.
func (d *drainers) expect(interrupt context.CancelFunc) []chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.interrupt = interrupt
	return slices.Collect(maps.Keys(d.waiting))
}

// release tells these that everything is delivered.
func (d *drainers) release(those []chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, done := range those {
		if d.waiting[done] {
			close(done)
			delete(d.waiting, done)
		}
	}
}
