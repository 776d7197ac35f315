package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/supervisor"
	"daemoneye.dev/procmond/supervisor/control"
)

// stateCommand reports the state of the daemon, running or not.
type stateCommand struct {
	clientFlags
	JSON bool `name:"json" help:"Print the whole report as JSON; see docs/state-json.md."`
}

// Help is what kong shows besides the flags.
func (stateCommand) Help() string {
	return `Asks the running daemon, or reads the store of one that does not run. Answers within a second.

Exit code: 0 healthy, 1 degraded, 2 unhealthy or not responding, 3 not running.

Examples:

  procmond state

  procmond state --json | jq .reasons`
}

const (
	// askDeadline and inspectDeadline leave time to start and to print within the
	// second that state may take. They do not add up: where nobody listens that is
	// known at once, and a daemon that is silent ends the search.
	askDeadline     = 750 * time.Millisecond
	inspectDeadline = 750 * time.Millisecond
)

// report is what state found out.
type report struct {
	state    *control.State
	database string
}

func (c *stateCommand) run(ctx context.Context, p invocation) error {
	places, err := p.clientDatabases(&c.clientFlags)
	if err != nil {
		return err
	}
	r, err := findState(ctx, places)
	var none *errNoDatabase
	if errors.As(err, &none) {
		r = report{state: supervisor.NoState(places[0]), database: places[0]}
		r.state.Reasons = []string{"No daemon runs, and " + none.Error() + "."}
	} else if supervisor.IsNoStore(err) {
		r = report{state: supervisor.NoState(places[0]), database: places[0]}
		r.state.Reasons = []string{"No daemon runs, and " + err.Error() + "."}
	} else if err != nil {
		return asStorage(err) // 1 would say that a daemon works
	}
	if c.JSON {
		err = writeJSON(p.stdout, r.state)
	} else {
		err = cli.Write(p.stdout, stateText(r.state, readFatal(r.database), cli.Painter(p.colours(p.stdout)), cli.Width(p.stdout), time.Now()))
	}
	if err != nil {
		return err
	}
	if code := exitCode(r.state.ExitCode()); code != exitOK {
		return exitSilently(code)
	}
	return nil
}

// writeJSON prints one indented document.
func writeJSON(f *os.File, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return cli.Write(f, string(text)+"\n")
}

// findState asks the first daemon that runs on one of the places, else reads the
// first place that holds something. That no place does is an [errNoDatabase].
func findState(ctx context.Context, places []string) (report, error) {
	askCtx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	var r report
	err := askDaemon(places, func(place string, client *control.Client) error {
		r.database = place
		var err error
		r.state, err = client.State(askCtx)
		if hung := new(control.NotRespondingError); errors.As(err, &hung) {
			r.state, err = supervisor.SilentState(place, hung.PID), nil
		}
		if errors.Is(err, control.ErrBusy) {
			r.state, err = supervisor.SilentState(place, 0), nil
			r.state.Reasons = []string{"A daemon runs and turns connections away: too many clients ask it at once."}
		}
		return err
	})
	if err == nil {
		return r, nil
	}
	place, err := noDaemon(places, err)
	if err != nil {
		return report{}, err
	}
	return deadState(ctx, place)
}

// deadState reads the store of a daemon that does not run.
func deadState(ctx context.Context, place string) (report, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectDeadline)
	defer cancel()
	state, err := supervisor.DeadState(ctx, place)
	if errors.Is(err, context.DeadlineExceeded) {
		state, err = supervisor.SilentState(place, 0), nil
		state.Reasons = []string{"The store " + place + " can not be read in time."}
	}
	return report{state, place}, err
}
