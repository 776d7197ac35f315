package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/supervisor/control"
)

// requests are what the agent may ask. Its methods are called from any goroutine.
type requests struct{ *Supervisor }

// none is the payload of an operation that has none.
type none struct{}

// healthCheck answers with the state document. Beside what everybody may read
// there, it asks the collector itself, which says after a second what keeps it.
func (r requests) healthCheck(ctx context.Context, _ none) (rpc.HealthReport, error) {
	health, err := r.mailbox.Handle().HealthCheck(ctx)
	state := r.State()
	if err == nil && health.Level == collect.LevelUnhealthy {
		state.Health = control.HealthUnhealthy
		state.Reasons = append(missing(health.Reasons, state.Reasons), state.Reasons...)
	}
	doc, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return doc, nil
}

// missing are those of from that are not among known.
func missing(from, known []string) (news []string) {
	seen := make(map[string]bool, len(known))
	for _, k := range known {
		seen[k] = true
	}
	for _, f := range from {
		if !seen[f] {
			news = append(news, f)
		}
	}
	return news
}

func (r requests) updateConfig(ctx context.Context, u rpc.UpdateConfig) (rpc.ConfigResult, error) {
	values, err := texts(u.Values)
	if err != nil {
		return rpc.ConfigResult{}, err
	}
	result, err := r.mailbox.Handle().UpdateConfig(ctx, collect.Update{Values: values, ValidateOnly: u.ValidateOnly})
	if err != nil {
		return rpc.ConfigResult{}, inWordsOfRPC(err)
	}
	return rpc.ConfigResult{
		Version: result.Version, Applied: orEmpty(result.Applied), Pending: orEmpty(result.Pending),
		RestartRequired: orEmpty(result.RestartRequired),
	}, nil
}

// texts are values as the configuration file would give them. The error names
// every one that is no string, number or boolean.
func texts(values map[string]json.RawMessage) (map[string]string, error) {
	if len(values) == 0 {
		return nil, &rpc.Error{Code: rpc.CodeInvalid, Message: "No values are given."}
	}
	result := make(map[string]string, len(values))
	refusal := &rpc.Error{Code: rpc.CodeInvalid, Message: "Configuration refused; nothing was changed."}
	for key, raw := range values {
		text, ok := scalar(raw)
		if !ok {
			refusal.Details = append(refusal.Details, rpc.Detail{Key: key, Reason: "want a string, a number or a boolean"})
		}
		result[key] = text
	}
	if len(refusal.Details) > 0 {
		return nil, refusal
	}
	return result, nil
}

// scalar is the text of a JSON string, number or boolean.
func scalar(raw json.RawMessage) (string, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil && string(raw) != "null" {
		return text, true
	}
	var number json.Number
	var flag bool
	ok := json.Unmarshal(raw, &number) == nil || json.Unmarshal(raw, &flag) == nil
	return string(raw), ok && string(raw) != "null"
}

func (r requests) beginMonitoring(ctx context.Context, b rpc.Begin) (rpc.BeginResult, error) {
	cause := "agent"
	if b.AgentID != "" {
		cause = "agent " + b.AgentID
	}
	result, err := r.mailbox.Handle().BeginMonitoring(ctx, collect.Begin{Coordinated: true, Cause: cause})
	if err != nil {
		return rpc.BeginResult{}, inWordsOfRPC(err)
	}
	return rpc.BeginResult{Changed: result.Changed, Coordinated: result.Coordinated}, nil
}

func (r requests) adjustInterval(ctx context.Context, a rpc.AdjustInterval) (rpc.IntervalResult, error) {
	adjust := collect.Adjust{Clear: a.Clear}
	if a.IntervalMS != nil {
		if *a.IntervalMS <= 0 || *a.IntervalMS > collect.MaxInterval.Milliseconds() { // before it can overflow
			return rpc.IntervalResult{}, &rpc.Error{
				Code: rpc.CodeInvalid, Message: fmt.Sprintf("Interval of %d ms: want %v to %v.", *a.IntervalMS, collect.MinInterval, collect.MaxInterval),
			}
		}
		value := time.Duration(*a.IntervalMS) * time.Millisecond
		adjust.Value = &value
	}
	if adjust.Value == nil && !adjust.Clear {
		return rpc.IntervalResult{}, &rpc.Error{Code: rpc.CodeInvalid, Message: "Neither interval_ms nor clear is given."}
	}
	if err := adjust.Validate(); err != nil {
		return rpc.IntervalResult{}, &rpc.Error{Code: rpc.CodeInvalid, Message: err.Error()}
	}
	interval, err := r.mailbox.Handle().AdjustInterval(ctx, adjust)
	if err != nil {
		return rpc.IntervalResult{}, inWordsOfRPC(err)
	}
	return rpc.IntervalResult{
		ConfiguredMS: interval.Configured.Milliseconds(), CurrentMS: interval.Current.Milliseconds(), Reason: interval.Why(),
	}, nil
}

// gracefulShutdown asks Run to stop the daemon in order and answers when all but
// the link and the control socket has stopped.
func (r requests) gracefulShutdown(ctx context.Context, order rpc.Shutdown) (rpc.ShutdownResult, error) {
	reason := "asked by the agent"
	if order.Reason != "" {
		reason += ": " + order.Reason
	}
	r.end.ask(reason)
	select {
	case <-r.end.farewell:
		return r.end.result, nil
	case <-ctx.Done():
		return rpc.ShutdownResult{}, fmt.Errorf("the stop goes on, but is not complete: %w", ctx.Err())
	}
}

// inWordsOfRPC is the collector's refusal in words for the agent.
func inWordsOfRPC(err error) error {
	var refused *collect.UpdateError
	switch {
	case errors.As(err, &refused):
		e := &rpc.Error{Code: rpc.CodeInvalid, Message: "Configuration refused; nothing was changed."}
		for _, f := range refused.Faults {
			e.Details = append(e.Details, rpc.Detail{Key: f.Key, Reason: f.Reason})
		}
		return e
	case errors.Is(err, collect.ErrMailboxFull):
		return &rpc.Error{Code: rpc.CodeBusy, Message: "Too many requests wait for the collector already."}
	case errors.Is(err, collect.ErrStopped), errors.Is(err, collect.ErrShuttingDown):
		return &rpc.Error{Code: rpc.CodeShuttingDown, Message: "The collector is shutting down."}
	case errors.Is(err, collect.ErrRestarted):
		return &rpc.Error{Code: rpc.CodeInternal, Message: "The collector was restarted while it handled the request, which may have taken effect or not."}
	}
	return err
}
