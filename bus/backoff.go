package bus

import (
	"math/rand/v2"
	"time"
)

// backoff gives growing delays between attempts: first, twice that, and so on up
// to most, each times a random factor in [0.5, 1) so that many clients of one
// restarted agent don't come back as one. Not safe for concurrent use.
type backoff struct {
	first, most time.Duration
	failures    int // since the last success
}

// next is the delay after one more failure.
func (b *backoff) next() time.Duration {
	b.failures++
	return b.after(b.failures)
}

// after is the delay after the n-th failure in a row.
func (b *backoff) after(n int) time.Duration {
	d := b.first
	for range n - 1 {
		if d >= b.most {
			break
		}
		d *= 2
	}
	d = min(d, b.most)
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}

// reset is told of a success.
func (b *backoff) reset() { b.failures = 0 }
