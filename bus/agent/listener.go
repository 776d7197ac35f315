package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/supervisor/tree"
)

// errLost ends a service whose connection to the broker has gone: it is started
// again, and waits for the next one.
var errLost = errors.New("connection to the broker lost")

const (
	// beatEvery is at most how long a service is without a beat.
	beatEvery = time.Second
	// connectEvery is the time between two looks for a broker that is down.
	connectEvery = 100 * time.Millisecond
	// flushTimeout is how long the broker may take to hear of a subscription.
	flushTimeout = 5 * time.Second
	// queue is how many messages may wait for a service: a heartbeat of every
	// collector that can be known.
	queue = maxCollectors
)

// dial makes a connection that lives as long as one server does, and fails at once
// where there is none. A service that has lost it is started again: that is counted,
// and leaves nothing of the old server behind.
func dial(broker Connector) (*nats.Conn, error) {
	return broker.Connect(nats.NoReconnect(), nats.RetryOnFailedConnect(false))
}

// connect makes a connection. It waits for a broker that is down.
func connect(ctx context.Context, broker Connector, progress *tree.Progress) (*nats.Conn, error) {
	tick := time.NewTicker(connectEvery)
	defer tick.Stop()
	for {
		progress.Beat("connect to the broker")
		nc, err := dial(broker)
		if err == nil {
			return nc, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the broker: %w (%w)", err, ctx.Err())
		}
	}
}

// listener is how a service listens to one subject until its context ends.
type listener struct {
	broker   Connector
	progress *tree.Progress
	subject  string
	refused  *refusals
	// handle is called with one message after the other. Its error ends the service.
	handle func(ctx context.Context, nc *nats.Conn, msg *nats.Msg) error
}

// serve returns nil when ctx has ended.
func (l *listener) serve(ctx context.Context) error {
	nc, err := connect(ctx, l.broker, l.progress)
	if err != nil {
		return err
	}
	defer nc.Close()
	lost := nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	// Sent to by the connection, which drops and counts what finds no room; never
	// closed.
	messages := make(chan *nats.Msg, queue)
	sub, err := nc.ChanSubscribe(l.subject, messages)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", l.subject, err)
	}
	if err := nc.FlushTimeout(flushTimeout); err != nil {
		return fmt.Errorf("subscribe to %s: %w", l.subject, err)
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	told := 0
	for {
		l.progress.Beat("listen")
		select {
		case msg := <-messages:
			if err := l.handle(ctx, nc, msg); err != nil {
				return err
			}
		case <-beat.C:
			told = l.countDropped(sub, told)
			if !nc.IsConnected() {
				return errLost
			}
		case <-lost:
			return errLost
		case <-ctx.Done():
			l.countDropped(sub, told)
			return nil
		}
	}
}

// countDropped counts the messages that found no room since told were counted.
func (l *listener) countDropped(sub *nats.Subscription, told int) int {
	dropped, err := sub.Dropped()
	if err != nil || dropped <= told {
		return told
	}
	l.refused.add(reasonOverflow, l.subject, uint64(dropped-told))
	return dropped
}
