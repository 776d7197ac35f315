package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor"
	"daemoneye.dev/procmond/supervisor/control"
)

// exitCode is how a command ends; see docs/exit-codes.md.
type exitCode int

const (
	exitOK            exitCode = 0
	exitDegraded      exitCode = 1
	exitUnhealthy     exitCode = 2
	exitNotRunning    exitCode = 3
	exitUsage         exitCode = 64
	exitNotStore      exitCode = 65
	exitWatchdog      exitCode = 70
	exitInUse         exitCode = 73
	exitStorage       exitCode = 74
	exitBusy          exitCode = 75
	exitNewerFormat   exitCode = 76
	exitPermission    exitCode = 77
	exitConfiguration exitCode = 78
	exitForced        exitCode = 130
)

// exitMeaning is one row of docs/exit-codes.md.
type exitMeaning struct {
	code  exitCode
	name  string
	means string
	// final says that starting again can not help: the service manager leaves it.
	final bool
}

// exitMeanings returns all codes, in order.
func exitMeanings() []exitMeaning {
	return []exitMeaning{
		{exitOK, "ok", "done; `run`: stopped in order; `state`: healthy; `store verify`: nothing is wrong; `doctor`: no check failed", false},
		{exitDegraded, "degraded", "`state`: degraded, the reasons are listed; `store verify`: the store is damaged; `doctor`: a check failed; any other: failed, the message says why", false},
		{exitUnhealthy, "unhealthy", "`state`: unhealthy, or it does not answer", false},
		{exitNotRunning, "not running", "`state`: no daemon runs here; `events`, `tree` and `store`: there is no store", false},
		{exitUsage, "usage", "the command line is wrong; every fault is named", true},
		{exitNotStore, "not a store", "the database path holds something else, and nothing there was touched", true},
		{exitWatchdog, "watchdog", "no progress; the log holds every goroutine", false},
		{exitInUse, "in use", "another process has the database open", false},
		{exitStorage, "storage", "an I/O error of the database; the reason is in `<database>.fatal` too", false},
		{exitBusy, "busy", "too many clients ask the daemon at once; ask again later", false},
		{exitNewerFormat, "newer format", "a later version wrote the database; nothing was touched", true},
		{exitPermission, "permission", "this user may not do that; nothing was touched", true},
		{exitConfiguration, "configuration", "the configuration is wrong; every fault is named", true},
		{exitForced, "forced", "a second signal ended the process at once; the next start recovers", false},
	}
}

// finalCodes are the codes after which a service manager must not start again.
func finalCodes() string {
	var codes []string
	for _, m := range exitMeanings() {
		if m.final {
			codes = append(codes, fmt.Sprint(int(m.code)))
		}
	}
	return strings.Join(codes, " ")
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

// exitCodeOf is the code for what a command returned.
func exitCodeOf(err error) exitCode {
	var silent exitSilently
	var known *exitError
	var faults settings.Faults
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
	}
	return storeCode(err)
}

func storeCode(err error) exitCode {
	switch {
	case errors.Is(err, store.ErrLocked):
		return exitInUse
	case errors.Is(err, store.ErrNotStore):
		return exitNotStore
	case errors.Is(err, store.ErrNewerFormat):
		return exitNewerFormat
	case errors.Is(err, store.ErrPermission), errors.Is(err, control.ErrForbidden), errors.Is(err, control.ErrImpostor), errors.Is(err, fs.ErrPermission):
		return exitPermission
	case errors.Is(err, control.ErrBusy):
		return exitBusy
	case supervisor.IsNoStore(err):
		return exitNotRunning
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, control.ErrUnavailable):
		return exitStorage
	}
	return exitDegraded
}

// asStorage gives an error without a code of its own that of storage.
func asStorage(err error) error {
	if code := exitCodeOf(err); code == exitDegraded || code == exitNotRunning {
		return &exitError{code: exitStorage, err: err}
	}
	return err
}

// errorText is what a person reads of err: a line for each fault.
func errorText(err error) string {
	if err == nil || err.Error() == "" {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(&b, "procmond: %s\n", cli.Printable(strings.TrimRight(line, "\n")))
	}
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(&b, "  %s\n", cli.Printable(hint))
	}
	return b.String()
}

// pointOut adds to the error of a database in use how to ask its daemon, where
// `procmond state` alone would look elsewhere.
func (p invocation) pointOut(err error) error {
	var locked *store.LockedError
	if !errors.As(err, &locked) || slices.Contains(p.databasePlaces(), locked.Dir) {
		return err
	}
	return &exitError{code: exitCodeOf(err), err: err, hint: inUseHint(" --database " + cli.ShellWord(locked.Dir))}
}

func inUseHint(database string) string {
	return "Another procmond has this database. Ask it with `procmond state" + database + "`, or give this one another --database."
}

// hintFor says what to do.
func hintFor(err error) string {
	var known *exitError
	if errors.As(err, &known) && known.hint != "" {
		return known.hint
	}
	if errors.Is(err, control.ErrUnavailable) {
		return "Ask `procmond state` what the daemon lacks."
	}
	switch exitCodeOf(err) {
	case exitUsage:
		return "Run `procmond --help`, or `procmond COMMAND --help`."
	case exitNotRunning:
		return "Start the daemon with `procmond`, or name its database with --database."
	case exitInUse:
		return inUseHint("")
	case exitNotStore:
		return "Nothing was touched. Give the path of a procmond database with --database."
	case exitNewerFormat:
		return "Nothing was touched. Run the version that wrote it, or a later one."
	case exitPermission:
		return "Nothing was touched. Run as the user that owns it (root for a system service), or give another --database."
	}
	return ""
}
