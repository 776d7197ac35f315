package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
)

// The stream of positions: one message for each collector, on a subject that nobody
// but the agent may use.
const (
	positionStream = "AGENT_POSITIONS"
	positionPrefix = "agent.position."
)

// record is a position as it is kept.
type record struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// StreamCreated is that of the stream that took the event: what another one took
	// is of no meaning.
	StreamCreated time.Time `json:"stream_created"`
}

func positionsConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: positionStream, Subjects: []string{positionPrefix + "*"},
		Description: "The last event taken of each collector",
		Storage:     jetstream.FileStorage, Replicas: 1,
		MaxMsgsPerSubject: 1, AllowDirect: true,
	}
}

// Last is the last event that the stream took of a collector, even if it has removed
// it since. Without a server it is [ErrDown].
func (b *Broker) Last(ctx context.Context, id string) (rpc.Position, error) {
	if err := rpc.ValidID(id); err != nil {
		return rpc.Position{}, fmt.Errorf("look up position: %w", err)
	}
	r := b.running.Load()
	if r == nil {
		return rpc.Position{}, ErrDown
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	newest, err := r.newest(ctx, id)
	if errors.Is(err, errNoID) { // its own doing; it must still be able to go on
		b.cfg.Log.WithError(err).Warn("Position taken from its record")
	} else if err != nil {
		return rpc.Position{}, err
	}
	known, err := r.record(ctx, id)
	if err != nil {
		return rpc.Position{}, err
	}
	best := later(newest, known)
	return rpc.Position{Epoch: best.Epoch, Seq: best.Seq, StreamCreated: r.created}, nil
}

// errNoID says that a collector sent something that is no event.
var errNoID = errors.New("it has no message id")

// later returns the event if there is one, for what is in the stream is newer than
// what was removed from it; but not an older one of the same epoch.
func later(newest, known record) record {
	if newest.Epoch == "" || newest.Epoch == known.Epoch && known.Seq > newest.Seq {
		return known
	}
	return newest
}

// newest is the newest event of a collector in the stream; zero if there is none.
func (r *run) newest(ctx context.Context, id string) (record, error) {
	msg, err := r.stream.GetLastMsgForSubject(ctx, rpc.EventSubjectsOf(id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("look for newest event of %s: %w", id, err)
	}
	epoch, seq, err := rpc.ParseMsgID(msg.Header.Get(nats.MsgIdHdr))
	if err != nil {
		return record{}, fmt.Errorf("newest event of %s: %w: %w", id, errNoID, err)
	}
	return record{Epoch: epoch.String(), Seq: seq, StreamCreated: r.created}, nil
}

// record is what was recorded of a collector; zero if nothing was, or of another
// stream.
func (r *run) record(ctx context.Context, id string) (record, error) {
	msg, err := r.positions.GetLastMsgForSubject(ctx, positionPrefix+id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("look for position of %s: %w", id, err)
	}
	var known record
	if err := json.Unmarshal(msg.Data, &known); err != nil {
		return record{}, fmt.Errorf("read position of %s: %w", id, err)
	}
	if !known.StreamCreated.Equal(r.created) {
		return record{}, nil
	}
	return known, nil
}

// savePositions records the position of every collector of which there are events,
// if there are new ones.
func (b *Broker) savePositions(ctx context.Context, r *run) error {
	b.positions.Lock()
	defer b.positions.Unlock()
	info, err := r.stream.Info(ctx, jetstream.WithSubjectFilter(rpc.StreamSubjects))
	if err != nil {
		return fmt.Errorf("list subjects of stream: %w", err)
	}
	if info.State.LastSeq == r.seen {
		return nil
	}
	for id := range collectorsOf(info.State.Subjects) {
		if err := b.savePosition(ctx, r, id); err != nil {
			return err
		}
	}
	r.seen = info.State.LastSeq
	return nil
}

// collectorsOf are the ids in the subjects of events.
func collectorsOf(subjects map[string]uint64) map[string]bool {
	ids := map[string]bool{}
	for subject := range subjects {
		ids[subject[strings.LastIndexByte(subject, '.')+1:]] = true
	}
	return ids
}

func (b *Broker) savePosition(ctx context.Context, r *run, id string) error {
	now, err := r.newest(ctx, id)
	if errors.Is(err, errNoID) { // one collector's fault is not the others'
		b.cfg.Log.WithError(err).Warn("Position not recorded")
		return nil
	}
	if err != nil {
		return err
	}
	if now.Epoch == "" || now == r.recorded[id] {
		return nil
	}
	data, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("encode position of %s: %w", id, err)
	}
	if _, err := r.js.Publish(ctx, positionPrefix+id, data); err != nil {
		return fmt.Errorf("record position of %s: %w", id, err)
	}
	r.recorded[id] = now
	return nil
}
