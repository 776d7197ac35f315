package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// stuckLimit is how many batches in a row may turn out to be incomplete before the
// next one is sent singly, which tells what is wrong with which event: the server
// answers for the first and the last message of a batch only.
const stuckLimit = 2

// delivery is one call of the publisher's Serve. It is used by that goroutine only.
type delivery struct {
	p    *Publisher
	cur  *batch // what is sent next, or in flight
	next *batch // read while cur is in flight

	epoch    event.Epoch
	position uint64 // last event that the stream holds
	seen     uint64 // head when reading found nothing; position or above
	// persisted is the durable cursor, and when it was made so.
	persisted   uint64
	persistedAt time.Time

	limit  int // events in the next batch, at most; grows back to the window
	most   int // events in a batch that the server takes, 0: not known
	singly int // events that are sent one at a time, from position on
	stuck  int // batches in a row that the server says are incomplete

	delays backoff
	sender *sender
}

// during delivers while the session lives. The error is that of the context, or of
// the library when it refuses to subscribe.
func (d *delivery) during(ctx context.Context, s *session) error {
	bound, release := s.bind(ctx)
	defer release()
	sender, err := newSender(d.p, s)
	if err != nil {
		if s.over() {
			return nil
		}
		return err
	}
	defer sender.close()
	d.sender = sender
	for bound.Err() == nil {
		err := d.resume(bound, s)
		if err == nil {
			err = d.run(bound)
			d.persistLast(ctx)
		}
		d.forget()
		if bound.Err() != nil {
			break
		}
		d.failed(err)
		d.pause(bound, DeliveryFailing)
	}
	return ctx.Err()
}

// resume moves the store's cursor to where the stream stands.
func (d *delivery) resume(ctx context.Context, s *session) error {
	d.p.state.enter(DeliveryResuming)
	d.p.cfg.Progress.Beat("asking what the stream holds")
	var last rpc.Position
	if err := ask(ctx, s.nc, rpc.RegistrationSubject(d.p.cfg.Link.ID()), rpc.OpLast, nil, &last); err != nil {
		return err
	}
	r, err := receipt(&last)
	if err != nil {
		return err
	}
	d.p.cfg.Progress.Beat("moving the cursor")
	epoch, cursor, err := d.p.cfg.Log.Resume(ctx, r)
	if err != nil {
		return fmt.Errorf("resume delivery: %w", err)
	}
	d.epoch, d.position, d.seen = epoch, cursor, cursor
	d.persisted, d.persistedAt = cursor, time.Now()
	d.sender.prefix = rpc.MsgIDPrefix(epoch)
	d.p.state.resumed(epoch, cursor)
	return nil
}

// forget drops what was read: where the stream stands is not known any more.
func (d *delivery) forget() {
	d.cur.clear()
	d.next.clear()
	d.singly = 0
}

// run delivers from position on until what the stream holds is not known, or the
// store wants to be asked again. The error says why.
func (d *delivery) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.more(ctx); err != nil {
			return err
		}
		if d.cur.left() == 0 {
			if err := d.idle(ctx); err != nil {
				return err
			}
			continue
		}
		n := d.size()
		if d.p.state.snapshot().State != DeliveryFull {
			d.p.state.enter(DeliverySending)
		}
		o := d.sender.send(ctx, d.cur, n)
		if o.verdict == stored {
			if err := d.meanwhile(ctx, n); err != nil {
				return err
			}
			o = d.sender.await(ctx, d.p.timing.ack)
		}
		if err := d.settle(ctx, n, o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// size is how many events to send at once.
func (d *delivery) size() int {
	if d.singly > 0 {
		return 1
	}
	n := min(d.cur.left(), d.limit, int(d.p.window.Load()))
	if d.most > 0 {
		n = min(n, d.most)
	}
	if d.stuck >= stuckLimit {
		d.singly = n
		return 1
	}
	return n
}

// more sees to it that cur holds something, if there is anything.
func (d *delivery) more(ctx context.Context) error {
	if d.cur.left() > 0 {
		return nil
	}
	d.cur, d.next = d.next, d.cur
	if d.cur.left() > 0 {
		return nil
	}
	return d.read(ctx, d.cur, d.position+1)
}

func (d *delivery) read(ctx context.Context, b *batch, from uint64) error {
	d.p.cfg.Progress.Beat("reading events")
	if err := b.fill(ctx, d.p.cfg.Log, d.epoch, from, int(d.p.window.Load())); err != nil {
		return fmt.Errorf("read events from %d: %w", from, err)
	}
	return nil
}

// meanwhile does what can be done while n events of cur are in flight.
func (d *delivery) meanwhile(ctx context.Context, n int) error {
	d.p.state.sent(n)
	if time.Since(d.persistedAt) >= persistEvery {
		if err := d.persist(ctx); err != nil {
			return err
		}
	}
	if n == d.cur.left() && d.cur.whole && d.next.left() == 0 {
		return d.read(ctx, d.next, d.cur.seq(n-1)+1)
	}
	return nil
}

// settle acts on what became of the first n events of cur. An error means that
// where the stream stands must be asked.
func (d *delivery) settle(ctx context.Context, n int, o outcome) error {
	if o.verdict == stored {
		d.acknowledged(n, o.duplicate)
		return nil
	}
	if ctx.Err() != nil {
		if o.verdict == unknown {
			d.p.state.change(func(s *PublisherStatus) { s.Unknown++ })
		}
		return ctx.Err()
	}
	switch o.verdict {
	case duplicate:
		d.failed(o.err)
		d.singly = n
		return nil
	case tooMany:
		d.failed(o.err)
		d.most = max(n/2, 1)
		return nil
	case full:
		d.failed(o.err)
		d.p.state.change(func(s *PublisherStatus) { s.Full++ })
		d.limit = max(n/2, 1) // what room there is may do for some
		d.pause(ctx, DeliveryFull)
		d.forget() // the store may have shed it meanwhile
		return ctx.Err()
	case refused:
		return d.refused(n, o.err)
	case failing:
		return o.err
	}
	d.p.state.change(func(s *PublisherStatus) { s.Unknown++ })
	if o.incomplete {
		d.stuck++
	}
	return o.err
}

// acknowledged moves on.
func (d *delivery) acknowledged(n int, duplicate bool) {
	duplicates := 0
	if duplicate {
		duplicates = n
	}
	d.position = d.cur.seq(n - 1)
	d.seen = d.position
	d.p.state.acknowledged(n, duplicates, d.position)
	d.p.state.enter(DeliverySending) // it may have been full
	d.cur.advance(n)
	d.delays.reset()
	d.stuck = 0
	if d.singly > 0 {
		d.singly--
		return
	}
	d.limit = min(2*d.limit, MaxWindow)
}

// refused is told that the server will not take one of n events, which is the
// server's fault: an event has a bounded size. The ones before it are sent on their
// own. It is never skipped here; delivery goes on when the server takes it, or the
// store has shed it.
func (d *delivery) refused(n int, err error) error {
	if n > 1 {
		d.singly = n
		return nil
	}
	e, encoded := d.cur.event(0)
	return fmt.Errorf("event %d of %d bytes is refused, and what follows waits for it; the agent must allow messages of %d bytes: %w", e.seq, len(encoded), maxEvent, err)
}

// idle waits for events, and makes the cursor durable when it is time for that.
func (d *delivery) idle(ctx context.Context) error {
	d.p.state.enter(DeliveryIdle)
	d.p.cfg.Progress.Beat("waiting for events")
	d.cur.trim()
	d.next.trim()
	due := beatEvery
	if d.position != d.persisted {
		due = persistEvery - time.Since(d.persistedAt)
	}
	bound, cancel := context.WithTimeout(ctx, max(due, 0))
	defer cancel()
	drainers := d.p.waiters.expect(cancel)
	defer d.p.waiters.expect(nil)
	if len(drainers) > 0 {
		bound, cancel = context.WithTimeout(bound, probeTimeout)
		defer cancel()
	}
	head, err := d.p.cfg.Log.Wait(bound, d.epoch, d.seen)
	switch {
	case err == nil:
		d.seen = head
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case bound.Err() == nil || !isContext(err):
		return fmt.Errorf("wait for events: %w", err)
	}
	d.delays.reset()
	if len(drainers) == 0 && time.Since(d.persistedAt) < persistEvery {
		return nil
	}
	if err := d.persist(ctx); err != nil {
		return err
	}
	d.p.waiters.release(drainers)
	return nil
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// persist makes the cursor durable.
func (d *delivery) persist(ctx context.Context) error {
	if d.position == d.persisted {
		return nil
	}
	d.p.cfg.Progress.Beat("writing the cursor")
	if err := d.p.cfg.Log.Ack(ctx, d.epoch, d.position); err != nil {
		return fmt.Errorf("write cursor %d: %w", d.position, err)
	}
	d.persisted, d.persistedAt = d.position, time.Now()
	return nil
}

// persistLast makes the cursor durable when delivery ends for whatever reason. If
// it fails nothing is lost: the agent is asked next time.
func (d *delivery) persistLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalTimeout)
	defer cancel()
	if err := d.persist(ctx); err != nil {
		d.failed(err)
	}
}

func (d *delivery) failed(err error) {
	if err == nil || isContext(err) && d.sender.s.over() {
		return
	}
	d.p.state.failed(err)
	d.p.cfg.Logger.WithField("cause", describe(err)).Debug("Delivery was interrupted")
}

// pause rests, longer after each failure in a row.
func (d *delivery) pause(ctx context.Context, state DeliveryState) {
	d.p.state.enter(state)
	rest(ctx, d.p.cfg.Progress, "resting before another attempt", d.delays.next(), nil)
}
