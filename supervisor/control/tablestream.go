package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

const (
	// progressPause is how often a client is told of progress.
	progressPause = 200 * time.Millisecond
	// headerOldest is where the oldest moment that can be asked for is told.
	headerOldest = "Procmond-Oldest"
)

// serveProcesses sends the process table of a moment.
func (s *Server) serveProcesses(w http.ResponseWriter, r *http.Request) {
	at, err := parseRaw(r.URL.RawQuery, parseAt)
	if err != nil {
		s.fail(w, http.StatusBadRequest, err.Error(), "at is a time like 2026-01-31T12:00:00Z")
		return
	}
	if !at.IsZero() {
		select {
		case s.rebuilds <- struct{}{}:
			defer func() { <-s.rebuilds }()
		default:
			s.busy.Add(1)
			s.fail(w, http.StatusTooManyRequests, "tables of the past are rebuilt for others", "ask again in some seconds")
			return
		}
	}
	st := tableStream{stream{server: s, w: w}}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if err := st.run(r.Context(), at); err != nil {
		st.abort(r.Context(), err)
	}
}

func parseAt(v url.Values) (time.Time, error) {
	p := parser{values: v}
	at := parse(&p, "at", parseTime)
	p.refuseUnknown("at")
	return at, errors.Join(p.faults...)
}

// tableStream sends one table.
type tableStream struct{ stream }

// abort is [stream.abort], with an answer of its own if nothing is kept.
func (st *tableStream) abort(ctx context.Context, err error) {
	var early *BeforeRecordError
	if !errors.As(err, &early) || st.sent > 0 {
		st.stream.abort(ctx, err)
		return
	}
	st.w.Header().Set(headerOldest, early.Oldest.UTC().Format(time.RFC3339Nano))
	st.server.fail(st.w, http.StatusNotFound, err.Error(), "ask for a later moment")
}

func (st *tableStream) run(ctx context.Context, at time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	told := time.Now()
	t, err := st.server.cfg.Processes.ProcessesAt(ctx, at, func(done, total uint64) {
		if time.Since(told) < progressPause {
			return
		}
		told = time.Now()
		if err := st.progress(done, total); err != nil {
			cancel(err) // nobody waits for the table any more
		}
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return st.table(t)
}

func (st *tableStream) progress(done, total uint64) error {
	var line progressLine
	line.Progress.Done, line.Progress.Total = done, total
	if err := st.put(line); err != nil {
		return err
	}
	return st.flush()
}

// table sends the table, chunk by chunk.
func (st *tableStream) table(t *ProcessTable) error {
	if err := st.put(tableLine{t.Head()}); err != nil {
		return err
	}
	for i := range t.Processes {
		st.line = event.AppendProcessJSON(st.line[:0], t.Processes[i].Process)
		if err := st.put(processLine{st.line, t.Processes[i].Doubts}); err != nil {
			return err
		}
		if st.buf.Len() < chunkBytes {
			continue
		}
		if err := st.flush(); err != nil {
			return err
		}
	}
	return st.flush()
}

// put collects a line. No page shows it, so that & and < may stay what they are, as in
// the events.
func (st *tableStream) put(line any) error {
	encoder := json.NewEncoder(&st.buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(line); err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	return nil
}

// flush sends what is collected.
func (st *tableStream) flush() error {
	err := st.send(1)
	st.buf.Reset()
	return err
}
