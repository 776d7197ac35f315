package hash

import (
	"context"
	"slices"
	"sync/atomic"

	"daemoneye.dev/procmond/collect"
)

// look is one call of [Hasher.Look].
type look struct {
	targets []collect.HashTarget // the errand's own
	at      *atomic.Int64        // index of the target that is being looked at
	// answer is sent to once, by the errand; its capacity lets the errand end when
	// nobody waits any more. It is never closed.
	answer chan []collect.HashTarget
}

func newLook(targets []collect.HashTarget) look {
	return look{targets: slices.Clone(targets), at: new(atomic.Int64), answer: make(chan []collect.HashTarget, 1)}
}

// do looks at every target.
func (l look) do(ctx context.Context, h *Hasher) {
	for i := range l.targets {
		l.at.Store(int64(i))
		t := &l.targets[i]
		f, err := h.cfg.host.look(t)
		if ctx.Err() != nil {
			return // this one was given up
		}
		t.Hash = h.settle(t, f, err)
	}
	l.answer <- l.targets
}

// hung is the target that does not answer.
func (l look) hung() collect.HashTarget {
	t := &l.targets[l.at.Load()] // its Hash is the errand's, which may go on at any time
	return collect.HashTarget{PID: t.PID, StartTicks: t.StartTicks, StartTime: t.StartTime, Exe: t.Exe}
}
