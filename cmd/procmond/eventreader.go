package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/control"
)

// rejoinEvery is how often a follower looks for a daemon that has gone.
const rejoinEvery = 500 * time.Millisecond

// eventReader reads events of a running daemon to their end, or follows them. A
// daemon drops a reader that stands still, as a pager does, and one that restarts
// drops all: the reader goes on behind the event that it has shown last.
type eventReader struct {
	places []string
	query  control.Query
	show   func(line []byte) error
	note   func(text string) // says what a reader of the events should know
	every  time.Duration     // see rejoinEvery
	// check is what must hold of a daemon before the first events are asked for.
	check func(context.Context, *control.Client, control.Query) error

	shown int    // since the query was last changed
	last  []byte // the line shown last, if shown is not 0
	// Where the store stood when the answer in work began.
	epoch   event.Epoch
	head    uint64
	met     bool // a daemon has agreed to send events
	resumed bool // the query goes on behind what was shown
	missing bool // the daemon has gone
}

// run returns nil when all was shown, else why it ended. The error is as of
// [askDaemon] if no daemon was met.
func (r *eventReader) run(ctx context.Context) error {
	for {
		err := askDaemon(r.places, func(place string, c *control.Client) error { return r.ask(ctx, place, c) })
		switch {
		case err == nil, !r.met:
			return err
		case errors.Is(err, control.ErrBrokenOff):
			if r.shown == 0 && !r.query.Follow {
				return r.explain(err)
			}
			if r.shown == 0 { // it may do the same again at once
				if err := r.pause(ctx); err != nil {
					return err
				}
			}
			if done, resumeErr := r.resume(); done || resumeErr != nil {
				return resumeErr
			}
		case errors.Is(err, control.ErrEpoch) && r.resumed:
			r.note("another store has taken the place of the one so far; what follows are its events, from the first")
			r.query.After, r.query.AfterEpoch, r.resumed = 0, event.Epoch{}, false
		case r.query.Follow && isAway(err):
			if err := r.await(ctx); err != nil {
				return err
			}
		default:
			return r.explain(err)
		}
	}
}

// ask reads from one daemon.
func (r *eventReader) ask(ctx context.Context, place string, c *control.Client) error {
	if !r.met {
		if err := r.check(ctx, c, r.query); err != nil {
			return err
		}
	}
	stream, err := c.OpenEvents(ctx, r.query)
	if err != nil {
		return err
	}
	defer stream.Close()
	r.met, r.places = true, []string{place}
	r.epoch, r.head = stream.Epoch, stream.Head
	if r.missing {
		r.missing = false
		r.note("the daemon is back")
	}
	return stream.Each(func(line []byte) error {
		if err := r.show(line); err != nil {
			return err
		}
		r.shown++
		r.last = append(r.last[:0], line...)
		return nil
	})
}

// isAway reports whether an error is one of a daemon that may come back.
func isAway(err error) bool {
	return errors.Is(err, control.ErrNotListening) || errors.Is(err, control.ErrBusy) ||
		errors.Is(err, control.ErrUnavailable) || errors.As(err, new(*control.NotRespondingError))
}

// resume makes the query ask for what was not shown yet. done says that there is
// nothing of it left to be asked for.
func (r *eventReader) resume() (done bool, err error) {
	q := &r.query
	if r.shown == 0 {
		r.resumeUnseen()
		return false, nil
	}
	if q.AfterEpoch, q.After, err = r.position(); err != nil {
		return false, err
	}
	switch {
	case q.Newest && q.Follow:
		q.Limit = 0
	case q.Limit > 0:
		q.Limit -= r.shown
		done = q.Limit <= 0
	}
	q.Newest, r.resumed, r.shown = false, true, 0
	return done, nil
}

// resumeUnseen goes on where nothing was shown: nothing up to where the store stood
// was wanted by who follows the newest, and with another epoch it begins anew.
func (r *eventReader) resumeUnseen() {
	q := &r.query
	if r.epoch.IsZero() {
		return
	}
	if q.Newest && q.Follow {
		q.After, q.Newest, q.Limit = r.head, false, 0
	}
	if !q.Newest {
		q.AfterEpoch, r.resumed = r.epoch, true
	}
}

// position is that of the event shown last.
func (r *eventReader) position() (event.Epoch, uint64, error) {
	var at struct {
		Epoch string
		Seq   uint64
	}
	if err := json.Unmarshal(r.last, &at); err != nil {
		return event.Epoch{}, 0, fmt.Errorf("read position of an event: %w", err)
	}
	epoch, err := event.ParseEpoch(at.Epoch)
	return epoch, at.Seq, err
}

// await gives a daemon that has gone some time.
func (r *eventReader) await(ctx context.Context) error {
	if !r.missing {
		r.missing = true
		r.note("the daemon has gone; waiting for it (Ctrl-C ends)")
	}
	return r.pause(ctx)
}

func (r *eventReader) pause(ctx context.Context) error {
	select {
	case <-time.After(r.every):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explain says how to go on after an error.
func (r *eventReader) explain(err error) error {
	if errors.Is(err, control.ErrEpoch) {
		return wrongEpoch(err)
	}
	if hung := new(control.NotRespondingError); errors.As(err, &hung) {
		return &exitError{code: exitUnhealthy, err: err, hint: "Ask `procmond state` what is wrong."}
	}
	epoch, seq := r.query.AfterEpoch, r.query.After
	if r.shown > 0 {
		var positionErr error
		if epoch, seq, positionErr = r.position(); positionErr != nil {
			return err
		}
	}
	if epoch.IsZero() || !r.resumed && !errors.Is(err, control.ErrBrokenOff) {
		return err
	}
	return &exitError{
		code: exitCodeOf(err), err: fmt.Errorf("what is shown is not all: %w", err),
		hint: fmt.Sprintf("Go on with --after %s.%d.", epoch, seq),
	}
}
