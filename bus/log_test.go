package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

var errReplaced = errors.New("store replaced")

// memLog is an EventLog in memory. It checks what a store would.
type memLog struct {
	mu      sync.Mutex // guards everything below
	epoch   event.Epoch
	events  [][]byte // of sequences from 1 on; nil: shed
	cursor  uint64
	changed signal
	stream  string
	fail    func(op string) error // may panic
	resumed []event.Receipt
	acks    int
	old     map[event.Epoch][][]byte // of epochs that have ended
}

func newMemLog() *memLog {
	return &memLog{epoch: event.NewEpoch(), fail: func(string) error { return nil }, old: map[event.Epoch][][]byte{}}
}

// add appends n events with about size bytes each.
func (l *memLog) add(n, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		seq := uint64(len(l.events) + 1)
		e := event.Event{Seq: seq, Epoch: l.epoch, HostID: testHost, Kind: event.Kind(seq%6 + 1)}
		e.Process.Name = string(make([]byte, size))
		l.events = append(l.events, event.Append(nil, &e))
	}
	l.changed.raise()
}

// replace ends the epoch; the next one begins with nothing.
func (l *memLog) replace() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replaceLocked()
}

func (l *memLog) replaceLocked() {
	l.old[l.epoch] = l.events
	l.epoch, l.events, l.cursor = event.NewEpoch(), nil, 0
	l.changed.raise()
}

// shed forgets the events up to seq, as a store does that has no more room.
func (l *memLog) shed(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.events[:seq])
}

func (l *memLog) setFail(fail func(op string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = fail
}

func (l *memLog) failing(op string) error {
	l.mu.Lock()
	fail := l.fail
	l.mu.Unlock()
	return fail(op)
}

func (l *memLog) Resume(_ context.Context, r event.Receipt) (event.Epoch, uint64, error) {
	if err := l.failing("resume"); err != nil {
		return event.Epoch{}, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resumed = append(l.resumed, r)
	switch {
	case r.Stream != l.stream && r.Epoch.IsZero():
		l.cursor = 0
	case r.Epoch == l.epoch && r.Seq > uint64(len(l.events)):
		l.replaceLocked() // the store is older than the stream
	case r.Epoch == l.epoch:
		l.cursor = r.Seq
	}
	l.stream = r.Stream
	return l.epoch, l.cursor, nil
}

func (l *memLog) Wait(ctx context.Context, epoch event.Epoch, after uint64) (uint64, error) {
	if err := l.failing("wait"); err != nil {
		return 0, err
	}
	for {
		l.mu.Lock()
		head, changed, same := uint64(len(l.events)), l.changed.wait(), epoch == l.epoch
		l.mu.Unlock()
		if !same {
			return 0, errReplaced
		}
		if head > after {
			return head, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (l *memLog) Read(ctx context.Context, epoch event.Epoch, from uint64, limit int, fn func(uint64, []byte) error) error {
	if err := l.failing("read"); err != nil {
		return err
	}
	l.mu.Lock()
	events, same := slices.Clone(l.events[min(from-1, uint64(len(l.events))):]), epoch == l.epoch
	l.mu.Unlock()
	if !same {
		return errReplaced
	}
	scratch := make([]byte, 0, 64<<10)
	for i, e := range events {
		if e == nil {
			continue
		}
		if limit == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		limit--
		scratch = append(scratch[:0], e...) // valid only during the call
		if err := fn(from+uint64(i), scratch); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		clear(scratch)
	}
	return nil
}

func (l *memLog) Ack(_ context.Context, epoch event.Epoch, seq uint64) error {
	if err := l.failing("ack"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case epoch != l.epoch:
		return errReplaced
	case seq > uint64(len(l.events)):
		return fmt.Errorf("acknowledge %d of %d", seq, len(l.events))
	}
	l.acks++
	l.cursor = max(l.cursor, seq)
	return nil
}

func (l *memLog) at() (cursor, head uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursor, uint64(len(l.events))
}

// inStream returns all messages of the stream, in order.
func (b *testBroker) inStream() []jetstream.Msg {
	b.tb.Helper()
	ctx := context.Background()
	c, err := b.js().OrderedConsumer(ctx, rpc.Stream, jetstream.OrderedConsumerConfig{})
	must(b.tb, err)
	var all []jetstream.Msg
	for want := b.info().State.Msgs; uint64(len(all)) < want; {
		some, err := c.FetchNoWait(2000)
		must(b.tb, err)
		for msg := range some.Messages() {
			all = append(all, msg)
		}
		must(b.tb, some.Error())
	}
	return all
}

// same checks that the stream holds what the log has of each epoch, from each one's
// first event on, dense, in order, each once, byte for byte.
func (l *memLog) same(tb testing.TB, b *testBroker) {
	tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[event.Epoch]uint64{}
	var last event.Epoch
	total := 0
	for i, msg := range b.inStream() {
		epoch, seq, err := rpc.ParseMsgID(msg.Headers().Get(nats.MsgIdHdr))
		must(tb, err)
		if epoch != last && next[epoch] != 0 {
			tb.Fatalf("message %d goes back to epoch %v", i, epoch)
		}
		last = epoch
		if seq != next[epoch]+1 {
			tb.Fatalf("message %d is event %d, want %d", i, seq, next[epoch]+1)
		}
		next[epoch] = seq
		want := l.old[epoch]
		if epoch == l.epoch {
			want = l.events
			total++
		}
		if int(seq) > len(want) || string(want[seq-1]) != string(msg.Data()) {
			tb.Fatalf("event %d has other bytes", seq)
		}
		if subject := rpc.EventSubject(event.Kind(seq%6+1), testHost, testID); msg.Subject() != subject {
			tb.Fatalf("event %d stands on %s, want %s", seq, msg.Subject(), subject)
		}
	}
	if total != len(l.events) {
		tb.Fatalf("%d events in the stream, want %d", total, len(l.events))
	}
}
