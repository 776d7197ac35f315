package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
)

// purgeAbove is the part of MaxBytes above which room is made behind the consumers.
const purgeAbove = 0.7

// requestTimeout bounds a request to the own server.
const requestTimeout = 5 * time.Second

// warnEvery is how often an unread stream is logged.
const warnEvery = 10 * time.Minute

func (b *Broker) streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: rpc.Stream, Subjects: []string{rpc.StreamSubjects},
		Description: "Process events of all collectors of this agent",
		Storage:     jetstream.FileStorage, Replicas: 1,
		Discard:  jetstream.DiscardNew,
		MaxBytes: b.cfg.MaxBytes, MaxAge: b.cfg.MaxAge, Duplicates: b.cfg.Duplicates,
		AllowAtomicPublish: true, AllowDirect: true,
	}
}

// upkeep is the state of one call of serveStream.
type upkeep struct {
	broker    *Broker
	run       *run // whose samples they are
	samples   []sample
	recordAt  time.Time
	nextWarn  time.Time
	wasUnread bool
}

// serveStream is the service "stream".
func (b *Broker) serveStream(ctx context.Context, beat func(string)) error {
	u := &upkeep{broker: b}
	defer b.outOfService("")
	tick := time.NewTicker(b.cfg.pace.upkeep)
	defer tick.Stop()
	for {
		r := b.running.Load()
		if r == nil {
			beat("wait for the server")
			b.outOfService("no server is running")
		} else if err := u.look(ctx, r, beat); err != nil {
			b.outOfService(err.Error())
			if r == b.running.Load() && r.fault() == nil { // else it is the server's failure, not this one's
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-b.started:
		}
	}
}

// look sees to the stream once.
func (u *upkeep) look(ctx context.Context, r *run, beat func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if u.run != r {
		u.run, u.samples = r, nil
	}
	beat("look at the stream")
	state, err := u.read(ctx, r)
	if err != nil {
		return err
	}
	if state.durables > 0 && float64(state.info.Bytes) > purgeAbove*float64(u.broker.cfg.MaxBytes) && state.floor >= state.info.FirstSeq {
		beat("make room in the stream")
		if err := u.purge(ctx, r, state.floor); err != nil {
			return err
		}
		if state, err = u.read(ctx, r); err != nil {
			return err
		}
	}
	u.publish(r, state)
	if now := time.Now(); !now.Before(u.recordAt) {
		beat("record positions")
		u.recordAt = now.Add(u.broker.cfg.pace.positions)
		return u.broker.savePositions(ctx, r)
	}
	return nil
}

// streamState is what the stream and its consumers look like.
type streamState struct {
	info     jetstream.StreamState
	durables int
	floor    uint64 // what all durables have done with, if there are any
}

// read looks at the stream first: what a consumer has done with later, it has done
// with.
func (u *upkeep) read(ctx context.Context, r *run) (streamState, error) {
	info, err := r.stream.Info(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !info.Created.Equal(r.created) {
		r.lost.Store(true) // for the server to make it anew
		return streamState{}, jetstream.ErrStreamNotFound
	}
	if err != nil {
		return streamState{}, fmt.Errorf("look at stream: %w", err)
	}
	state := streamState{info: info.State, floor: info.State.LastSeq}
	consumers := r.stream.ListConsumers(ctx)
	for c := range consumers.Info() {
		if c.Config.Durable == "" {
			continue
		}
		state.durables++
		state.floor = min(state.floor, acknowledged(c, info.State.LastSeq))
	}
	if err := consumers.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return streamState{}, fmt.Errorf("list consumers: %w", err)
	}
	return state, nil
}

// acknowledged is the sequence up to which a consumer has done with the stream, whose
// last sequence was last before. One that filters has done with what it never gets,
// but its own count stops at the last event that it got.
func acknowledged(c *jetstream.ConsumerInfo, last uint64) uint64 {
	if c.NumPending == 0 && c.NumAckPending == 0 {
		return last
	}
	return c.AckFloor.Stream
}

// purge removes events up to a sequence, after it has been noted whose they were.
func (u *upkeep) purge(ctx context.Context, r *run, upTo uint64) error {
	if err := u.broker.savePositions(ctx, r); err != nil {
		return err
	}
	request, err := json.Marshal(map[string]uint64{"seq": upTo + 1}) // the first that stays
	if err != nil {
		return fmt.Errorf("encode purge: %w", err)
	}
	reply, err := r.nc.RequestWithContext(ctx, "$JS.API.STREAM.PURGE."+rpc.Stream, request)
	if err != nil {
		return fmt.Errorf("purge stream: %w", err)
	}
	// Asked for directly, because the client library keeps the count to itself.
	var answer struct {
		Error  *jetstream.APIError `json:"error"`
		Purged uint64              `json:"purged"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return fmt.Errorf("decode answer to purge: %w", err)
	}
	if answer.Error != nil {
		return fmt.Errorf("purge stream: %w", answer.Error)
	}
	u.broker.purged.Add(answer.Purged)
	u.samples = nil // the size has stepped
	u.broker.cfg.Log.WithField("events", answer.Purged).WithField("up_to", upTo).Debug("Removed events that all consumers have acknowledged")
	return nil
}

// publish makes a report of the state, and warns if nobody consumes.
func (u *upkeep) publish(r *run, state streamState) {
	b := u.broker
	events, fullIn := u.rates(state.info)
	report := rpc.StreamReport{
		Name: rpc.Stream, Created: &r.created,
		Messages: state.info.Msgs, Bytes: state.info.Bytes,
		MaxBytes: uint64(b.cfg.MaxBytes), MaxAgeS: b.cfg.MaxAge.Seconds(),
		FirstSeq: state.info.FirstSeq, LastSeq: state.info.LastSeq,
		Consumers: state.durables, Purged: b.purged.Load(), FullInS: fullIn, RateEventS: events,
		InService: true, LastFault: r.log.lastFault(),
	}
	if state.durables > 0 {
		report.LowestAck = state.floor
	}
	unread := state.durables == 0 && fills(report)
	b.reporting.Lock()
	b.report, b.unread = report, unread
	b.reporting.Unlock()
	now := time.Now()
	if unread && (!u.wasUnread || now.After(u.nextWarn)) {
		u.nextWarn = now.Add(warnEvery)
		b.cfg.Log.Warn(unreadText(report))
	}
	u.wasUnread = unread
}

// When a stream that nobody consumes is worth a warning: a fleet may well keep events for
// queries alone.
const (
	fullEnough = 0.5       // of MaxBytes, or
	fullStart  = 0.1       // of it, where it is full in
	fullSoon   = time.Hour // or less
)

func fills(r rpc.StreamReport) bool {
	used := float64(r.Bytes) / float64(r.MaxBytes)
	return used >= fullEnough || used >= fullStart && r.FullInS != nil && *r.FullInS < fullSoon.Seconds()
}
