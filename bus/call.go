package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// handlerPanic is what Serve panics with when a handler did.
type handlerPanic struct {
	operation rpc.Operation
	value     string
	place     string // "folder/file.go:line"
}

func (p handlerPanic) Error() string {
	return fmt.Sprintf("handler of %s panicked: %s (%s)", p.operation, p.value, p.place)
}

// call is one message that the server took.
type call struct {
	run     *serverRun
	msg     *nats.Msg
	request rpc.Request // as far as it can be given back
	began   time.Time
	order   bool // from SubjectLifecycle: nobody is answered

	answered sync.Once
}

// carryOut runs the handler and answers, at the deadline at the latest. It holds
// the call's slot until the handler has returned.
func (c *call) carryOut() {
	defer func() { <-c.run.slots }()
	ctx, cancel := c.context()
	defer cancel()
	overdue := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(overdue)
		c.answer(nil, interruption(ctx))
	})
	defer func() {
		if !stop() {
			<-overdue
		}
	}()
	result, err := c.handle(ctx)
	c.answer(result, c.failure(ctx, err))
}

// context ends at the request's deadline, and when the server says so.
func (c *call) context() (context.Context, context.CancelFunc) {
	ctx, cancel := c.run.start()
	deadline := c.began.Add(longestHandle)
	if !c.request.Deadline.IsZero() && c.request.Deadline.Before(deadline) {
		deadline = c.request.Deadline
	}
	ctx, cancelTimer := context.WithDeadline(ctx, deadline)
	return ctx, func() { cancelTimer(); cancel() }
}

// handle calls the handler. A panic, and runtime.Goexit, become an answer and crash
// the server.
func (c *call) handle(ctx context.Context) (result json.RawMessage, err error) {
	returned := false
	defer func() {
		v := recover()
		if returned {
			return
		}
		crash := handlerPanic{operation: c.request.Operation, value: "runtime.Goexit", place: "unknown place"}
		if v != nil {
			crash.value, crash.place = clip(fmt.Sprint(v)), panicPlace()
		}
		err = &rpc.Error{Code: rpc.CodeInternal, Message: "the handler panicked; see the collector's state"}
		c.answer(nil, c.failure(ctx, err)) // also if runtime.Goexit goes on ending this goroutine
		select {
		case c.run.crashed <- crash:
		default: // one is enough
		}
	}()
	result, err = c.run.s.cfg.Operations[c.request.Operation](ctx, c.request.Payload)
	returned = true
	return result, err
}

// panicPlace finds the frame that panicked: the first below the panic that is not
// the runtime's own.
func panicPlace() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	below := false
	for {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.gopanic":
			below = true
		case below && !strings.HasPrefix(frame.Function, "runtime."):
			folder, file := path.Split(frame.File)
			return fmt.Sprintf("%s:%d", path.Join(path.Base(folder), file), frame.Line)
		}
		if !more {
			return "unknown place"
		}
	}
}

// failure is the answer to an error of the handler, nil if there is none.
func (c *call) failure(ctx context.Context, err error) *rpc.Error {
	var failure *rpc.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failure) && failure != nil:
		return failure
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return interruption(ctx)
	}
	return &rpc.Error{Code: rpc.CodeInternal, Message: describe(err)}
}

// interruption is the answer to a request whose context has ended.
func interruption(ctx context.Context) *rpc.Error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errStopping):
		return &rpc.Error{Code: rpc.CodeShuttingDown, Message: "the collector stopped before this was done"}
	case errors.Is(cause, errCrashed):
		return &rpc.Error{Code: rpc.CodeUnavailable, Message: "the service that carried this out crashed over another request"}
	}
	return &rpc.Error{Code: rpc.CodeTimeout, Message: "the deadline passed before this was done"}
}

// answer counts the call and, unless nobody asked, answers it; only the first time.
func (c *call) answer(payload json.RawMessage, failure *rpc.Error) {
	c.answered.Do(func() {
		code := rpc.Code("")
		if failure != nil {
			code = failure.Code
		}
		c.run.s.stats.add(c.request.Operation, code)
		if failure != nil {
			c.run.s.cfg.Log.WithField("operation", clip(string(c.request.Operation))).Debugf("Request failed: %s", clip(failure.Error()))
		}
		if c.order || c.msg.Reply == "" {
			return
		}
		err := c.send(payload, failure)
		if err != nil && failure == nil { // too big for the broker, or no JSON
			err = c.send(nil, &rpc.Error{Code: rpc.CodeInternal, Message: fmt.Sprintf("the answer of %d bytes could not be sent: %s", len(payload), describe(err))})
		}
		if err != nil {
			c.run.s.cfg.Log.WithField("cause", describe(err)).Debug("An answer could not be sent")
		}
	})
}

func (c *call) send(payload json.RawMessage, failure *rpc.Error) error {
	response := rpc.Response{
		RequestID:       c.request.RequestID,
		Operation:       rpc.Operation(clip(string(c.request.Operation))),
		CorrelationID:   c.request.CorrelationID,
		Status:          rpc.StatusOK,
		Error:           failure,
		ExecutionTimeMS: float64(time.Since(c.began).Microseconds()) / 1000,
		Payload:         payload,
	}
	if failure != nil {
		response.Status = rpc.StatusError
	}
	encoded, err := json.Marshal(&response)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.run.nc.Publish(c.msg.Reply, encoded)
}
