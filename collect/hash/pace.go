package hash

import (
	"context"
	"sync"
	"time"
)

// burst is for how long the budget may be saved up.
const burst = 100 * time.Millisecond

// pace is a budget of bytes per second, shared by all who read.
type pace struct {
	rate float64 // bytes per second

	mu   sync.Mutex // guards next
	next time.Time  // when all that was read is paid for
}

// spend waits until n bytes that were read are paid for. The error is ctx's.
func (p *pace) spend(ctx context.Context, n int) error {
	wait := p.charge(n, time.Now())
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// charge returns how long to wait.
func (p *pace) charge(n int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if saved := now.Add(-burst); p.next.Before(saved) {
		p.next = saved
	}
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	return p.next.Sub(now)
}
