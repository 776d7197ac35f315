package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"daemoneye.dev/procmond/bus/agent/operator"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
)

// exitCode is how a command ends. The numbers are procmond's.
type exitCode int

const (
	exitOK            exitCode = 0
	exitDegraded      exitCode = 1 // the asked-for is degraded; any other: failed, the message says why
	exitUnhealthy     exitCode = 2 // or it does not answer
	exitNotRunning    exitCode = 3 // no agent, or no such collector
	exitUsage         exitCode = 64
	exitWatchdog      exitCode = 70
	exitInUse         exitCode = 73 // another agent has the socket or the store
	exitStorage       exitCode = 74
	exitPermission    exitCode = 77
	exitConfiguration exitCode = 78
	exitForced        exitCode = 130
)

// final reports whether starting again can not help.
func (c exitCode) final() bool {
	return c == exitUsage || c == exitInUse || c == exitPermission || c == exitConfiguration
}

// exitError is an error that knows its code. hint says what to do.
type exitError struct {
	code exitCode
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitSilently is the code of a command whose output has said it all.
type exitSilently exitCode

func (exitSilently) Error() string { return "" }

// silently is nil for exitOK.
func silently(code exitCode) error {
	if code == exitOK {
		return nil
	}
	return exitSilently(code)
}

// exitCodeOf is the code for what a command returned.
func exitCodeOf(err error) exitCode {
	var silent exitSilently
	var known *exitError
	var faults cli.Faults
	var refused *rpc.Error
	switch {
	case err == nil, cli.ReaderLeft(err):
		return exitOK
	case errors.As(err, &silent):
		return exitCode(silent)
	case errors.As(err, &known):
		return known.code
	case errors.As(err, &faults):
		if faults.Usage() {
			return exitUsage
		}
		return exitConfiguration
	case errors.As(err, &refused):
		return refusedCode(refused.Code)
	case errors.Is(err, operator.ErrNotRunning):
		return exitNotRunning
	case errors.Is(err, operator.ErrForbidden), errors.Is(err, fs.ErrPermission):
		return exitPermission
	case errors.Is(err, operator.ErrSilent):
		return exitUnhealthy
	}
	return exitDegraded
}

func refusedCode(code rpc.Code) exitCode {
	switch code {
	case rpc.CodeNotFound:
		return exitNotRunning
	case rpc.CodeTimeout, rpc.CodeUnavailable, rpc.CodeDeadline:
		return exitUnhealthy
	}
	return exitDegraded
}

// errorText is what a person reads of err: a line for each fault.
func errorText(err error) string {
	if err == nil || err.Error() == "" {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(&b, "%s: %s\n", program, cli.Printable(strings.TrimRight(line, "\n")))
	}
	var refused *rpc.Error
	if errors.As(err, &refused) {
		for _, d := range refused.Details {
			fmt.Fprintf(&b, "  %s: %s\n", cli.Printable(d.Key), cli.Printable(d.Reason))
		}
	}
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(&b, "  %s\n", cli.Printable(hint))
	}
	return b.String()
}

// hintFor says what to do.
func hintFor(err error) string {
	var known *exitError
	var refused *rpc.Error
	switch {
	case errors.As(err, &known) && known.hint != "":
		return known.hint
	case errors.As(err, &refused):
		if refused.Code == rpc.CodeNotFound {
			return "`" + program + " collectors` lists those that are there."
		}
		return ""
	}
	switch exitCodeOf(err) {
	case exitUsage:
		return "Run `" + program + " --help`, or `" + program + " COMMAND --help`."
	case exitNotRunning:
		return "Start it with `" + program + " run`, or name its socket with --socket."
	case exitPermission:
		return "Run as the user that the agent runs as, or as root."
	case exitInUse:
		return "Another agent has it. Ask it with `" + program + " status`, or give this one another --socket and --store."
	}
	return ""
}
