package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// Headers of JetStream's atomic batches. See the package's documentation for why
// they are written here.
const (
	headerID     = nats.MsgIdHdr
	headerBatch  = "Nats-Batch-Id"
	headerSeq    = "Nats-Batch-Sequence"
	headerCommit = "Nats-Batch-Commit"
)

// maxEvent is what collect/event allows an encoded event, in bytes.
const maxEvent = 64 << 10

var errNoAck = errors.New("publish: no acknowledgement in time")

// sender puts events on the wire of one session and takes the server's answers. It
// is used by one goroutine, one batch at a time. A message and its header are used
// again and again: the library has copied them when Publish returns.
type sender struct {
	p        *Publisher
	s        *session
	prefix   string // of message ids, see [rpc.MsgIDPrefix]
	subjects [event.KindSensor + 1]string

	inbox   string         // under which answers come
	answers chan *nats.Msg // the library sends and never closes; two answers to a batch, and room for late ones
	sub     *nats.Subscription

	number uint64 // of the batch in flight: its answers come on inbox.number
	id     string // of the batch in flight, empty for a single message
	count  int    // its events

	msg    nats.Msg
	values [4]string // what msg's header points to: id, batch, sequence, commit
}

func newSender(p *Publisher, s *session) (*sender, error) {
	e := &sender{p: p, s: s, inbox: s.nc.NewInbox(), answers: make(chan *nats.Msg, 16)}
	for kind := range e.subjects {
		e.subjects[kind] = rpc.EventSubject(event.Kind(kind), p.cfg.HostID, p.cfg.Link.ID())
	}
	sub, err := s.nc.ChanSubscribe(e.inbox+".*", e.answers)
	if err != nil {
		return nil, fmt.Errorf("listen for acknowledgements: %w", err)
	}
	e.sub = sub
	return e, nil
}

func (e *sender) close() { _ = e.sub.Unsubscribe() } // fails only if the connection is closed

// send publishes the first n events of b: a batch that is stored whole or not at
// all, or a single message. The verdict is stored as long as nothing went wrong.
func (e *sender) send(ctx context.Context, b *batch, n int) outcome {
	e.p.cfg.Progress.Beat("sending events")
	e.number++
	e.count, e.id = n, ""
	e.values = [4]string{"", "", "", "1"}
	e.msg = nats.Msg{Header: nats.Header{headerID: e.values[0:1]}}
	if n > 1 {
		e.id = nuid.Next()
		e.values[1] = e.id
		e.msg.Header[headerBatch], e.msg.Header[headerSeq] = e.values[1:2], e.values[2:3]
	}
	for i := range n {
		if i%64 == 0 && ctx.Err() != nil {
			return outcome{verdict: unknown, err: ctx.Err()}
		}
		if err := e.publish(b, i); err != nil {
			if errors.Is(err, nats.ErrMaxPayload) {
				return outcome{verdict: refused, err: err}
			}
			return outcome{verdict: unknown, err: fmt.Errorf("publish: %w", plain(err))}
		}
	}
	return outcome{verdict: stored}
}

// publish sends event i of the batch. The server answers to the first message of a
// batch when it refuses it, and to the last one in any case.
func (e *sender) publish(b *batch, i int) error {
	one, encoded := b.event(i)
	e.values[0] = e.prefix + strconv.FormatUint(one.seq, 10)
	e.values[2] = strconv.Itoa(i + 1)
	e.msg.Subject, e.msg.Data, e.msg.Reply = e.subjects[one.kind], encoded, ""
	last := i == e.count-1
	switch {
	case last:
		e.msg.Reply = e.inbox + "." + e.commitToken()
		if e.id != "" {
			e.msg.Header[headerCommit] = e.values[3:4]
		}
	case i == 0:
		e.msg.Reply = e.inbox + "." + e.stagedToken()
	}
	return e.s.nc.PublishMsg(&e.msg)
}

func (e *sender) commitToken() string { return strconv.FormatUint(e.number, 10) }
func (e *sender) stagedToken() string { return e.commitToken() + "s" }

// await returns what became of what was sent.
func (e *sender) await(ctx context.Context, timeout time.Duration) outcome {
	over := time.NewTimer(timeout)
	defer over.Stop()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	commit, staged := e.inbox+"."+e.commitToken(), e.inbox+"."+e.stagedToken()
	for {
		e.p.cfg.Progress.Beat("waiting for an acknowledgement")
		select {
		case msg := <-e.answers:
			switch msg.Subject {
			case commit:
				return judgeBatch(msg, e.id, e.count)
			case staged:
				if o, bad := judgeStaged(msg); bad {
					return o
				}
			}
		case <-tick.C:
		case <-over.C:
			return outcome{verdict: unknown, err: fmt.Errorf("%w: %d events, %v", errNoAck, e.count, timeout)}
		case <-ctx.Done():
			return outcome{verdict: unknown, err: ctx.Err()}
		}
	}
}
