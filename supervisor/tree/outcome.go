package tree

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// textLimit bounds the texts that are kept of one failure, in bytes.
const textLimit = 1024

// end is how a call of Serve ended.
type end int

const (
	endStopped  end = iota // its context had ended
	endDone                // by ErrDone
	endFailed              // by an error, or by nil without reason
	endPanicked            // by a panic
	endExited              // by runtime.Goexit
)

// outcome is the end of one call of Serve.
type outcome struct {
	end     end
	message string // of the error or the panic; empty: nothing to say
	place   string // of the panic, "folder/file.go:line"
	stack   string // of the panic
}

func (o outcome) failure() bool {
	return o.end == endFailed || o.end == endPanicked || o.end == endExited
}

func (o outcome) panicText() string { return fmt.Sprintf("%s (%s)", o.message, o.place) }

func (o outcome) text() string {
	switch o.end {
	case endPanicked:
		return "panic: " + o.panicText()
	case endExited:
		return "called runtime.Goexit"
	}
	return o.message
}

// judge says what a service meant by returning err, given its own context.
// Errors of other contexts are failures like any other.
func judge(ctx context.Context, err error) outcome {
	foreign := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.Is(err, ErrDone):
		if err == ErrDone { //nolint:errorlint // bare: there is no reason to tell
			return outcome{end: endDone}
		}
		return outcome{end: endDone, message: clip(err)}
	case ctx.Err() != nil && (err == nil || foreign):
		return outcome{end: endStopped}
	case ctx.Err() != nil:
		return outcome{end: endStopped, message: clip(err)}
	case err == nil:
		return outcome{end: endFailed, message: "returned without an error before it was stopped"}
	case foreign:
		return outcome{end: endFailed, message: clip(fmt.Errorf("from a context that is not the service's: %w", err))}
	}
	return outcome{end: endFailed, message: clip(err)}
}

// panicked is called by the deferred function that recovered v: the stack below
// it is still that of the panic.
func panicked(v any) outcome {
	return outcome{end: endPanicked, message: clip(v), place: panicPlace(), stack: string(debug.Stack())}
}

// clip is the text of an error or a panic's value. fmt survives an Error or
// String method that panics.
func clip(v any) string {
	text := fmt.Sprint(v)
	if len(text) > textLimit {
		text = strings.ToValidUTF8(text[:textLimit], "") + "…"
	}
	return text
}

// panicPlace finds the frame that panicked: the first below the newest panic
// that is not the runtime's own (an index check, a nil dereference).
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
			return place(frame)
		}
		if !more {
			return "unknown place"
		}
	}
}

// place is short: the folder tells the package, and the path of the machine
// that built the program is nobody's business.
func place(f runtime.Frame) string {
	folder, file := path.Split(f.File)
	return path.Join(path.Base(folder), file) + ":" + strconv.Itoa(f.Line)
}
