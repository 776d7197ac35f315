package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// eventSource is the part of the store that the live view reads: what it shows
// is durable, and a slow terminal delays nobody.
type eventSource interface {
	Head() uint64
	Wait(ctx context.Context, epoch event.Epoch, after uint64) (uint64, error)
	Read(ctx context.Context, epoch event.Epoch, from uint64, limit int, fn func(seq uint64, encoded []byte) error) error
}

// liveView prints a line for each event as it becomes durable. It is a service
// of the tree; it owns no goroutine. Events that the terminal was too slow for
// are skipped, and the view says how many.
type liveView struct {
	source eventSource
	lines  eventLines
	// out makes the writer of one Serve, which waits until its ctx ends.
	out func(context.Context) io.Writer
	// next is the first sequence not shown. It outlives a restart of Serve.
	next atomic.Uint64
}

// liveLag is how many events the view may be behind before it skips.
const liveLag = 2000

func newLiveView(source eventSource, lines eventLines, out func(context.Context) io.Writer) *liveView {
	v := &liveView{source: source, lines: lines, out: out}
	v.next.Store(source.Head() + 1)
	return v
}

func (v *liveView) String() string { return "live view" }

// Serve prints until ctx ends.
func (v *liveView) Serve(ctx context.Context) error {
	out := v.out(ctx)
	for {
		head, err := v.source.Wait(ctx, event.Epoch{}, v.next.Load()-1)
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		if head+1 < v.next.Load() { // another store has taken its place
			v.next.Store(1)
		}
		if behind := head + 1 - v.next.Load(); behind > liveLag {
			v.next.Store(head + 1)
			if _, err := fmt.Fprintf(out, "%d events are not shown; `procmond events` has them\n", behind); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			continue
		}
		lines, next, err := v.read(ctx)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		// Not while reading: a terminal that stands still must not hold the store.
		if _, err := io.WriteString(out, lines); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		v.next.Store(next)
	}
}

const (
	// liveChunk is how many events are read before they are printed.
	liveChunk = 128
	// viewPieces is how many such pieces may wait for a terminal that does not take
	// them: the view itself waits and skips.
	viewPieces = 1
)

// read returns the next lines, and the first sequence not in them.
func (v *liveView) read(ctx context.Context) (lines string, next uint64, err error) {
	var b strings.Builder
	next = v.next.Load()
	err = v.source.Read(ctx, event.Epoch{}, next, liveChunk, func(seq uint64, encoded []byte) error {
		var e event.Event
		if err := event.Decode(encoded, &e); err != nil {
			return fmt.Errorf("event %d: %w", seq, err)
		}
		e.Seq = seq
		v.lines.now = time.Now()
		line, err := v.lines.line(event.AppendJSON(nil, &e))
		b.WriteString(line)
		next = seq + 1
		return err
	})
	return b.String(), next, err
}
