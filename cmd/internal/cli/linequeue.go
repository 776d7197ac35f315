package cli

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// linePatience is how long the end of a run waits for the last lines.
const linePatience = time.Second

// LineQueue stands between those who print and a terminal or a pipe, so that
// nobody waits for a reader that stands still. One goroutine writes, a piece at a
// time.
type LineQueue struct {
	to io.Writer
	// missing makes the line that stands where lines found no room.
	missing func(lines uint64) []byte
	// pieces is sent to by the writers and received from by the goroutine. It is
	// never closed: whoever prints after the end loses nothing but the line.
	pieces chan linePiece
	end    sync.Once
	ended  chan struct{} // closed by Close
	done   chan struct{} // closed by the goroutine when all is written

	mu      sync.Mutex // guards gap, and that a gap is said before what follows it
	gap     uint64     // lines that found no room since the last that did
	dropped atomic.Uint64
}

type linePiece struct {
	gap  uint64 // lines missing before text
	text []byte
}

// NewLineQueue starts the goroutine, which Close ends. It is no service of the
// tree: there are lines before there is a tree and after it.
func NewLineQueue(to io.Writer, capacity int, missing func(lines uint64) []byte) *LineQueue {
	q := &LineQueue{
		to: to, missing: missing, pieces: make(chan linePiece, capacity),
		ended: make(chan struct{}), done: make(chan struct{}),
	}
	go q.run()
	return q
}

func (q *LineQueue) run() {
	defer close(q.done)
	for {
		select {
		case p := <-q.pieces:
			q.print(p)
		case <-q.ended:
			for len(q.pieces) > 0 {
				q.print(<-q.pieces)
			}
			q.print(linePiece{gap: q.takeGap()})
			return
		}
	}
}

func (q *LineQueue) takeGap() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	gap := q.gap
	q.gap = 0
	return gap
}

func (q *LineQueue) print(p linePiece) {
	text := p.text
	if p.gap > 0 {
		text = append(q.missing(p.gap), text...)
	}
	if len(text) == 0 {
		return
	}
	if _, err := q.to.Write(text); err != nil {
		q.dropped.Add(1) // there is nowhere else to say it
	}
}

// Close writes what waits, for linePatience at most.
func (q *LineQueue) Close() {
	q.end.Do(func() { close(q.ended) })
	patience := time.NewTimer(linePatience)
	defer patience.Stop()
	select {
	case <-q.done:
	case <-patience.C:
	}
}

// Lost counts the lines that found no room or could not be written.
func (q *LineQueue) Lost() uint64 { return q.dropped.Load() }

// Write hands over p, a line or more, as one piece. It never waits.
func (q *LineQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case q.pieces <- linePiece{gap: q.gap, text: append([]byte(nil), p...)}:
		q.gap = 0
	default:
		q.gap++
		q.dropped.Add(1)
	}
	return len(p), nil
}

// Patient is a writer that waits for room until ctx ends.
func (q *LineQueue) Patient(ctx context.Context) io.Writer { return &patientLines{queue: q, ctx: ctx} }

type patientLines struct {
	queue *LineQueue
	ctx   context.Context //nolint:containedctx // io.Writer has no place for it
}

// Write hands over p as one piece.
func (w *patientLines) Write(p []byte) (int, error) {
	select {
	case w.queue.pieces <- linePiece{text: append([]byte(nil), p...)}:
		return len(p), nil
	case <-w.ctx.Done():
		return 0, w.ctx.Err()
	}
}
