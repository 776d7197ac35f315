package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// terminalLines is how many lines may wait for a terminal or a pipe that does
	// not take them.
	terminalLines = 1024
	// terminalPatience is how long the end of a run waits for the last lines.
	terminalPatience = time.Second
)

// terminal is where log lines and live events meet. One goroutine writes, a line
// at a time, so that they never mangle each other and that nobody who logs waits
// for a terminal that stands still: what finds no room is counted and said later.
type terminal struct {
	// lines is sent to by streams and received from by the writer. It is never
	// closed: whoever logs after the end loses nothing but the line.
	lines chan terminalLine
	end   sync.Once
	ended chan struct{} // closed by close
	done  chan struct{} // closed by the writer when all is written
	lost  atomic.Uint64 // lines that found no room
}

type terminalLine struct {
	to   io.Writer
	text []byte
}

// newTerminal starts the writer, which close ends. It is no service of the tree:
// there are lines before there is a tree and after it.
func newTerminal() *terminal {
	t := &terminal{lines: make(chan terminalLine, terminalLines), ended: make(chan struct{}), done: make(chan struct{})}
	go t.write()
	return t
}

func (t *terminal) write() {
	defer close(t.done)
	for {
		select {
		case l := <-t.lines:
			t.print(l)
		case <-t.ended:
			for len(t.lines) > 0 {
				t.print(<-t.lines)
			}
			return
		}
	}
}

func (t *terminal) print(l terminalLine) {
	if lost := t.lost.Swap(0); lost > 0 {
		_, _ = fmt.Fprintf(l.to, "%d lines are missing here: nobody took them in time\n", lost)
	}
	_, _ = l.to.Write(l.text) // there is nowhere else to say it
}

// close writes what waits, for terminalPatience at most.
func (t *terminal) close() {
	t.end.Do(func() { close(t.ended) })
	select {
	case <-t.done:
	case <-time.After(terminalPatience):
	}
}

// stream is a writer that never waits.
func (t *terminal) stream(w io.Writer) io.Writer { return &terminalStream{terminal: t, to: w} }

// patientStream is a writer that waits for room until ctx ends.
func (t *terminal) patientStream(ctx context.Context, w io.Writer) io.Writer {
	return &terminalStream{terminal: t, to: w, ctx: ctx}
}

type terminalStream struct {
	terminal *terminal
	to       io.Writer
	ctx      context.Context //nolint:containedctx // io.Writer has no place for it; nil does not wait
}

// Write hands over p as one piece.
func (s *terminalStream) Write(p []byte) (int, error) {
	line := terminalLine{to: s.to, text: append([]byte(nil), p...)}
	if s.ctx != nil {
		select {
		case s.terminal.lines <- line:
			return len(p), nil
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
	select {
	case s.terminal.lines <- line:
	default:
		s.terminal.lost.Add(1)
	}
	return len(p), nil
}
