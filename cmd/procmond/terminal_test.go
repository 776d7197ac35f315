package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// standstill is a terminal that takes nothing until it is released.
type standstill struct {
	release chan struct{}
	bytes.Buffer
}

func (s *standstill) Write(p []byte) (int, error) {
	<-s.release
	return s.Buffer.Write(p)
}

// TestTerminalThatStandsStillDelaysNobody: logging goes on, what finds no room is
// counted, and the end waits for a bounded time only.
func TestTerminalThatStandsStillDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &standstill{release: make(chan struct{})}
		shared := newTerminal()
		log := shared.stream(out)
		for i := range terminalLines + 11 {
			_, _ = fmt.Fprintf(log, "line %d\n", i)
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := io.WriteString(shared.patientStream(ctx, out), "event\n"); err == nil {
			t.Error("a patient writer does not end with its context")
		}
		shared.close() // in virtual time, or the test would not end
		close(out.release)
		synctest.Wait()
		_, _ = io.WriteString(log, "after the end\n")

		text := out.String()
		if !strings.HasPrefix(text, "line 0\n10 lines are missing here") || strings.Count(text, "\nline ") != terminalLines {
			t.Errorf("%d lines were written, beginning %.100q", strings.Count(text, "line "), text)
		}
	})
}
