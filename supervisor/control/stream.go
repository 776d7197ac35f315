package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

const (
	// chunkEvents is how many events are read from the store before they are
	// sent: the store is not held while a client reads.
	chunkEvents = 256
	// chunkBytes ends a chunk early, so that events at their size limit do not
	// add up in memory.
	chunkBytes = 1 << 20
)

// The headers of an answer say where the store stood when it began, so that a
// client that was shown nothing knows where to go on.
const (
	headerEpoch = "Procmond-Epoch"
	headerHead  = "Procmond-Head"
)

// errChunkFull ends a query whose results fill a chunk.
var errChunkFull = errors.New("chunk is full")

// stream sends the events of one query.
type stream struct {
	server *Server
	w      http.ResponseWriter
	sent   int
	last   uint64 // sequence sent last
	buf    bytes.Buffer
	line   []byte
}

func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	q, err := parseRaw(r.URL.RawQuery, ParseQuery)
	if err == nil && q.Newest && q.Limit == 0 {
		err = errors.New("parameter newest needs a limit")
	}
	if err != nil {
		s.fail(w, http.StatusBadRequest, err.Error(), "the parameters are the flags of `procmond events`: see docs/cli.md")
		return
	}
	if q.Follow {
		select {
		case s.followers <- struct{}{}:
			defer func() { <-s.followers }()
		default:
			s.busy.Add(1)
			s.fail(w, http.StatusTooManyRequests, fmt.Sprintf("%d clients follow already", s.limits.followers), "end one of them, or ask again without follow")
			return
		}
	}
	st := stream{server: s, w: w, last: q.After}
	if err := st.run(r.Context(), q); err != nil {
		st.abort(r.Context(), err)
	}
}

// abort tells the client that something failed: by status while nothing was
// sent, else by breaking off the answer so that it is not taken for complete.
// That goes for the end of the server too.
func (st *stream) abort(ctx context.Context, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		st.server.slow.Add(1)
		st.server.cfg.Log.WithField("sent", st.sent).Warn("Client of the control socket dropped: it does not read its events")
	}
	if st.sent > 0 || ctx.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	switch {
	case errors.Is(err, ErrEpoch):
		st.server.fail(st.w, http.StatusConflict, err.Error(), "start again without after")
	case errors.Is(err, ErrUnavailable):
		st.server.fail(st.w, http.StatusServiceUnavailable, err.Error(), "ask /state for the reason, then try again")
	default:
		st.server.fail(st.w, http.StatusInternalServerError, err.Error(), "run procmond store verify")
	}
}

func (st *stream) run(ctx context.Context, q Query) error {
	st.w.Header().Set("Content-Type", "application/x-ndjson")
	if q.AfterEpoch.IsZero() { // all of one answer is of one epoch
		q.AfterEpoch = st.server.cfg.Events.Epoch()
	}
	st.w.Header().Set(headerEpoch, q.AfterEpoch.String())
	st.w.Header().Set(headerHead, strconv.FormatUint(st.server.cfg.Events.Head(), 10))
	if q.Newest {
		if err := st.newest(ctx, q); err != nil || !q.Follow {
			return err
		}
		q.Newest, q.Limit = false, 0
	}
	for {
		over := st.isOver(q.Until)
		done, err := st.all(ctx, q)
		if err != nil || done || over || !q.Follow {
			return err
		}
		if err := st.wait(ctx, q.Until); err != nil {
			return err
		}
	}
}

// isOver reports whether all that was observed until then is durable.
func (st *stream) isOver(until time.Time) bool {
	return !until.IsZero() && time.Since(until) >= st.server.limits.late
}

// wait waits for more events, or until it is over.
func (st *stream) wait(ctx context.Context, until time.Time) error {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if !until.IsZero() {
		waiting, cancel = context.WithDeadline(ctx, until.Add(st.server.limits.late))
	}
	defer cancel()
	_, err := st.server.cfg.Events.Wait(waiting, st.last)
	if waiting.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// newest sends the last q.Limit matches. The first query only finds where they
// begin: they are many, and their text may be long.
func (st *stream) newest(ctx context.Context, q Query) error {
	head := st.server.cfg.Events.Head()
	first, n := uint64(0), 0
	err := st.server.cfg.Events.Query(ctx, q, func(e *event.Event) error {
		if n++; n == 1 {
			first = e.Seq
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n == 0 {
		st.last = max(st.last, head)
		return st.send(0)
	}
	st.last = first - 1
	q.Newest, q.Limit = false, n
	_, err = st.all(ctx, q)
	return err
}

// all sends what matches by now, chunk by chunk. done says that the limit is
// reached.
func (st *stream) all(ctx context.Context, q Query) (done bool, err error) {
	head := st.server.cfg.Events.Head() // what comes later is found by the next round
	limit := q.Limit
	for {
		q.After, q.Limit = st.last, chunkEvents
		if limit > 0 {
			q.Limit = min(chunkEvents, limit-st.sent)
		}
		more, err := st.pass(ctx, q)
		if err != nil {
			return false, err
		}
		if limit > 0 && st.sent >= limit {
			return true, nil
		}
		if !more {
			st.last = max(st.last, head) // nothing up to there matches any more
			return false, nil
		}
	}
}

// pass sends one chunk. more says that it is full.
func (st *stream) pass(ctx context.Context, q Query) (more bool, err error) {
	st.buf.Reset()
	n := 0
	err = st.server.cfg.Events.Query(ctx, q, func(e *event.Event) error {
		st.line = event.AppendJSON(st.line[:0], e)
		st.buf.Write(st.line)
		st.buf.WriteByte('\n')
		st.last = max(st.last, e.Seq)
		if n++; st.buf.Len() >= chunkBytes {
			return errChunkFull
		}
		return nil
	})
	full := errors.Is(err, errChunkFull)
	if err != nil && !full {
		return false, err
	}
	return full || n == q.Limit, st.send(n)
}

// send writes what is collected, within the time that a client has.
func (st *stream) send(n int) error {
	rc := http.NewResponseController(st.w)
	if err := rc.SetWriteDeadline(time.Now().Add(st.server.limits.write)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	st.sent += n
	if _, err := st.w.Write(st.buf.Bytes()); err != nil {
		return fmt.Errorf("send events: %w", err)
	}
	if err := rc.Flush(); err != nil {
		return fmt.Errorf("send events: %w", err)
	}
	return nil
}
