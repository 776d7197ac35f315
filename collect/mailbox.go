package collect

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// mailboxCapacity is how many requests may wait.
const mailboxCapacity = 100

// Mailbox takes the requests for a collector. It outlives the actor and keeps
// what must survive its restart.
type Mailbox struct {
	// requests is sent to by handles, received from by the actor and never
	// closed; its capacity is the number of requests that may wait.
	requests chan *request
	// ended is closed, once, when no actor will ever serve the mailbox again.
	ended chan struct{}
	end   sync.Once

	status   atomic.Pointer[Status]
	activity atomic.Pointer[activity]

	// run belongs to the actor, and to the next one after it has returned.
	run run
}

// request is one message on its way.
type request struct {
	body      any             // Begin, Adjust, Update, Shutdown or healthCheck
	cancelled <-chan struct{} // closed when nobody waits for the answer any more
	// answer is sent to once, by the actor, and never closed; its capacity lets
	// the actor go on when nobody waits.
	answer chan answer
}

type answer struct {
	value any
	err   error
}

// NewMailbox makes an empty mailbox.
func NewMailbox() *Mailbox {
	m := &Mailbox{requests: make(chan *request, mailboxCapacity), ended: make(chan struct{})}
	m.status.Store(&Status{})
	m.activity.Store(&activity{name: activityStarting, since: time.Now()})
	return m
}

// Handle is the way in.
func (m *Mailbox) Handle() Handle { return Handle{mailbox: m} }

// Close ends the mailbox for good: requests that wait and all that follow are
// answered with [ErrStopped]. The collector closes it at the end of an orderly
// shutdown; whoever stops it otherwise must close it. It may be called again.
func (m *Mailbox) Close() { m.end.Do(func() { close(m.ended) }) }

// send hands in a request and waits for its answer; see [Handle].
func (m *Mailbox) send(ctx context.Context, body any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &request{body: body, cancelled: ctx.Done(), answer: make(chan answer, 1)}
	select {
	case <-m.ended:
		return nil, ErrStopped
	default:
	}
	select {
	case m.requests <- r:
	default:
		return nil, ErrMailboxFull
	}
	select {
	case a := <-r.answer:
		return a.value, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.ended:
		return r.lastAnswer()
	}
}

// lastAnswer is for a mailbox that has ended: the actor answers before it ends
// the mailbox, so an answer that is not there will not come.
func (r *request) lastAnswer() (any, error) {
	select {
	case a := <-r.answer:
		return a.value, a.err
	default:
		return nil, ErrStopped
	}
}

func (r *request) abandoned() bool {
	select {
	case <-r.cancelled:
		return true
	default:
		return false
	}
}

func (r *request) reply(value any, err error) {
	select {
	case r.answer <- answer{value: value, err: err}:
	default: // answered already
	}
}
