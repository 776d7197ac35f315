package collect

import (
	"context"
	"errors"
	"time"
)

// healthPatience is how long a health check waits for the actor before it is
// answered from what the actor has published.
const healthPatience = time.Second

// Handle is the typed way to a collector. Its methods are safe for concurrent
// use and never wait for room: they return [ErrMailboxFull], [ErrStopped],
// [ErrRestarted], ctx's error, or the collector's answer. While the collector is
// down between two restarts a request waits until ctx ends.
type Handle struct {
	mailbox *Mailbox
}

type healthCheck struct{}

// HealthCheck asks how the collector is. One that does not answer within a
// second is unhealthy, and the answer says what keeps it busy.
func (h Handle) HealthCheck(ctx context.Context) (Health, error) {
	if now := time.Now(); h.mailbox.blocked(now) { // another request would only take up room
		return h.mailbox.busy(now), ctx.Err()
	}
	patient, cancel := context.WithTimeoutCause(ctx, healthPatience, errImpatient)
	defer cancel()
	health, err := ask[Health](patient, h.mailbox, healthCheck{})
	if err != nil && errors.Is(context.Cause(patient), errImpatient) && errors.Is(err, context.DeadlineExceeded) {
		return h.mailbox.busy(time.Now()), nil
	}
	return health, err
}

// UpdateConfig changes hot settings, all or none. A refusal is an [*UpdateError].
func (h Handle) UpdateConfig(ctx context.Context, u Update) (UpdateResult, error) {
	return ask[UpdateResult](ctx, h.mailbox, u)
}

// GracefulShutdown completes the running cycle, writes the last event, and ends
// the collector for good. It returns when that is done.
func (h Handle) GracefulShutdown(ctx context.Context, s Shutdown) (ShutdownResult, error) {
	return ask[ShutdownResult](ctx, h.mailbox, s)
}

// BeginMonitoring starts a waiting collector. For one that runs already it only
// notes that an agent coordinates it.
func (h Handle) BeginMonitoring(ctx context.Context, b Begin) (BeginResult, error) {
	return ask[BeginResult](ctx, h.mailbox, b)
}

// AdjustInterval changes the interval in force and returns it.
func (h Handle) AdjustInterval(ctx context.Context, a Adjust) (Interval, error) {
	return ask[Interval](ctx, h.mailbox, a)
}

// Status is what the collector published last. It never waits.
func (h Handle) Status() Status { return h.mailbox.Status() }

var errImpatient = errors.New("health check waited long enough")

func ask[T any](ctx context.Context, m *Mailbox, body any) (T, error) {
	value, err := m.send(ctx, body)
	if err != nil {
		var none T
		return none, err
	}
	return value.(T), nil
}
