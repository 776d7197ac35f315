package collect

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/kernel"
)

const (
	// holdBack is how long an event waits for one that happened before it.
	holdBack = kernel.Unsent
	// maxWaiting bounds the events that were read and are not durable. What finds no
	// room stays where the kernel keeps it.
	maxWaiting = 1 << 15
)

// heard is what was told by the kernel and is not durable yet. It outlives the actor.
type heard struct {
	batch   kernel.Batch
	order   *kernel.Order
	due     []kernel.Record // in order
	tried   int             // of due, those that are being made durable
	mark    uint64          // of the batch that was made of them; 0: there is none
	asked   bool            // something was read
	since   time.Time       // when that was so first
	base    time.Duration   // until when events waited for the first scan
	began   time.Duration   // since when is listened, on the boot clock; 0 while nobody tells
	known   time.Duration   // the last one that was not 0: whose start came before was never told
	through time.Duration   // until when all was told
	zero    time.Time       // of the boot clock, on the wall clock as it is set now
	next    time.Time       // when to read again
	doubt   time.Time       // when it was last noticed that something may have been missed
	active  time.Time       // when there was something last
	rests   bool            // the first event will call before next
	lost    window
	recent  window // the one that the last scan has made up for

	execs       execs // that were told, and that the scanner may still tell of
	generations generations
}

// window is a time in which events were lost.
type window struct {
	since   time.Time // zero: none was
	count   uint64
	unknown bool // nobody can say how many
}

func newHeard() heard {
	return heard{
		order: kernel.NewOrder(holdBack, maxWaiting), execs: make(execs),
		generations: make(generations),
	}
}

// take puts what was read in order, now.
func (h *heard) take(b *kernel.Batch, now time.Time) {
	if !h.asked {
		h.since = now
	}
	h.asked, h.began = true, b.Began
	if b.Began != 0 {
		h.known = b.Began
	}
	h.zero = now.Add(-b.Now)
	h.order.Add(b.Records, b.Now)
	h.due = h.order.Take(h.newest(b), h.due)
	if !b.Lost.Any() {
		h.through = b.Through
	}
}

// newest is until when b may tell: what comes later happened at most a little before
// that, even if the source is behind the clock.
func (h *heard) newest(b *kernel.Batch) time.Duration {
	until := b.Through
	for i := range b.Records {
		until = max(until, b.Records[i].At)
	}
	if b.Through == 0 {
		return b.Now
	}
	return min(until, b.Now)
}

// takeUntil makes due what happened until then, however short it was held back.
func (h *heard) takeUntil(then time.Duration) {
	all := h.order.All(nil)
	n, _ := slices.BinarySearchFunc(all, then+1, func(r kernel.Record, t time.Duration) int { return cmp.Compare(r.At, t) })
	h.due = append(h.due, all[:n]...)
	h.order.Add(all[n:], then)
}

// lose notes losses that were told now. They can be as old as the last reading, or as
// the source says.
func (h *heard) lose(lost kernel.Lost, now time.Time) {
	from := now
	switch since := h.batch.LostSince; {
	case since > 0 && (h.through == 0 || since < h.through):
		from = h.zero.Add(since)
	case h.through > 0:
		from = h.zero.Add(h.through)
	}
	h.through, h.doubt = h.batch.Through, now
	h.lost.add(lost, from)
}

// add counts what was lost at from or later.
func (w *window) add(lost kernel.Lost, from time.Time) {
	if w.since.IsZero() || from.Before(w.since) {
		w.since = from
	}
	w.count += lost.Forks + lost.Execs + lost.Exits + lost.Other
	w.unknown = w.unknown || lost.Unknown
}

// waiting counts what was read and is not durable.
func (h *heard) waiting() int { return h.order.Held() + len(h.due) }

// durable lets go of what was tried.
func (h *heard) durable() {
	if h.tried > 0 { // a fork is told of a moment after the start
		h.generations.forget(uint64(h.due[h.tried-1].At/procfile.Tick) - 1)
	}
	clear(h.due[:h.tried]) // lets go of the texts
	h.due = h.due[h.tried:]
	h.tried, h.mark = 0, 0
	if len(h.due) == 0 {
		h.due = nil // what a storm has made it must not stay
	}
}

// resolve finds out from the durable table if it has what was tried when the store
// failed. Its sequence would not tell: others write events too.
func (h *heard) resolve(stored *event.Table, epoch event.Epoch) {
	if h.mark != 0 && stored.Epoch == epoch && stored.Mark == h.mark {
		h.durable()
	}
	h.tried, h.mark = 0, 0
}

// abandon gives up what waits after a crash of the actor, of which it may be the
// cause.
func (h *heard) abandon(totals *Totals) {
	if all := h.order.All(h.due); len(all) > 0 {
		lost := kernel.Lost{Other: uint64(len(all))}
		totals.Lost.add(lost)
		h.lost.add(lost, h.zero.Add(all[0].At))
	}
	h.due, h.tried, h.mark = nil, 0, 0
	h.order = kernel.NewOrder(holdBack, maxWaiting)
}

func (l *Lost) add(lost kernel.Lost) {
	l.Forks += lost.Forks
	l.Execs += lost.Execs
	l.Exits += lost.Exits
	l.Other += lost.Other
}

// generations counts the processes that had a PID and started within one clock tick. It
// outlives the table: who is gone from there had an id too. Numbers may be left out:
// a record that is applied again counts again.
type generations map[life]uint32

// life is what processes have in common that only a generation tells apart.
type life struct {
	pid   int32
	ticks uint64
}

// next is the generation of one more process.
func (g generations) next(pid int32, ticks uint64) uint32 {
	n := g[life{pid, ticks}]
	g[life{pid, ticks}] = n + 1
	return n
}

// forget lets go of those that started before a tick: nobody will be told of who did.
func (g generations) forget(before uint64) {
	maps.DeleteFunc(g, func(l life, _ uint32) bool { return l.ticks < before })
}
