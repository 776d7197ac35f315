package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

const (
	// setupTimeout bounds each question about the stream.
	setupTimeout = 5 * time.Second
	// forgetAfter is when the broker forgets a reader that has gone without a word.
	forgetAfter = 30 * time.Second
	// idleBeat is how often the broker shows a reader that waits that it is there.
	idleBeat = 5 * time.Second
)

// Query is which events are wanted.
type Query struct {
	ID     string // of the collector; empty: all
	Newest int    // only so many, the newest of those that are there; 0 is all
	Follow bool   // go on with what comes
}

// Message is one event of the stream.
type Message struct {
	ID    string // of the collector
	Event event.Event
}

// Events calls each with one event after the other, in the order of the stream, until
// there are no more; with Follow, until ctx ends or each returns an error. The message
// is valid only during the call. A message that is no event (of a later version) is
// given to strange, with its sequence in the stream.
func (c *Client) Events(ctx context.Context, q Query, each func(*Message) error, strange func(seq uint64, err error)) error {
	js, err := jetstream.New(c.nc)
	if err != nil {
		return fmt.Errorf("use the stream: %w", err)
	}
	r := &reader{js: js, query: q, each: each, strange: strange}
	consumer, err := r.open(ctx)
	if err != nil {
		return streamError(err)
	}
	defer r.forget(consumer)
	return r.read(ctx, consumer)
}

type reader struct {
	js      jetstream.JetStream
	query   Query
	each    func(*Message) error
	strange func(seq uint64, err error)
}

// open makes a consumer that starts where the query does. Where it asks for the newest
// of one collector, the place is found by looking back further and further.
func (r *reader) open(ctx context.Context) (jetstream.Consumer, error) {
	if r.query.Newest <= 0 {
		return r.consumer(ctx, 0)
	}
	stream, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return r.js.Stream(ctx, rpc.Stream) })
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	want := uint64(r.query.Newest)
	for back := want; ; back *= 8 {
		from := state.FirstSeq
		if state.LastSeq >= back && state.LastSeq-back+1 > from {
			from = state.LastSeq - back + 1
		}
		consumer, err := r.consumer(ctx, from)
		if err != nil {
			return nil, err
		}
		if r.query.ID == "" || from <= state.FirstSeq || consumer.CachedInfo().NumPending >= want {
			return consumer, nil
		}
		r.forget(consumer)
	}
}

// consumer makes one from a sequence of the stream on; 0 is its first.
func (r *reader) consumer(ctx context.Context, from uint64) (jetstream.Consumer, error) {
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy, InactiveThreshold: forgetAfter}
	if from > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	if r.query.ID != "" {
		cfg.FilterSubjects = []string{rpc.EventSubjectsOf(r.query.ID)}
	}
	return within(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		return r.js.OrderedConsumer(ctx, rpc.Stream, cfg)
	})
}

func within[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	return do(ctx)
}

// forget takes the consumer away; the broker does that itself if this fails.
func (r *reader) forget(consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.js.DeleteConsumer(ctx, rpc.Stream, consumer.CachedInfo().Name)
}

// read reads to the end, or follows.
func (r *reader) read(ctx context.Context, consumer jetstream.Consumer) error {
	pending := consumer.CachedInfo().NumPending
	if pending == 0 && !r.query.Follow {
		return nil
	}
	skip := uint64(0)
	if want := uint64(max(r.query.Newest, 0)); want > 0 && pending > want {
		skip = pending - want
	}
	messages, err := consumer.Messages(jetstream.PullHeartbeat(idleBeat))
	if err != nil {
		return streamError(err)
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(idleBeat))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, nats.ErrTimeout) && r.query.Follow:
			continue
		case errors.Is(err, nats.ErrTimeout):
			// What was to come may have been removed from the stream meanwhile.
			info, err := within(ctx, consumer.Info)
			if err != nil || info.NumPending == 0 {
				return streamErrorOrNil(err)
			}
			continue
		case errors.Is(err, jetstream.ErrNoHeartbeat) && r.query.Follow:
			continue // the reader looks for the broker by itself
		case err != nil:
			return streamError(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		if skip > 0 {
			skip--
		} else if err := r.show(msg, meta.Sequence.Stream); err != nil {
			return err
		}
		if meta.NumPending == 0 && !r.query.Follow {
			return nil
		}
	}
}

// show decodes one event. Where it stands in its collector's store is in the name of
// the message.
func (r *reader) show(msg jetstream.Msg, seq uint64) error {
	m := Message{ID: lastToken(msg.Subject())}
	err := event.Decode(msg.Data(), &m.Event)
	if err == nil {
		m.Event.Epoch, m.Event.Seq, err = rpc.ParseMsgID(msg.Headers().Get(nats.MsgIdHdr))
	}
	if err != nil {
		r.strange(seq, err)
		return nil
	}
	return r.each(&m)
}

func lastToken(subject string) string {
	for i := len(subject) - 1; i >= 0; i-- {
		if subject[i] == '.' {
			return subject[i+1:]
		}
	}
	return subject
}

func streamErrorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return streamError(err)
}

func streamError(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: its stream of events is out of service", ErrSilent)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%w: its stream of events says nothing", ErrSilent)
	}
	return fmt.Errorf("read the stream of events: %w", err)
}
