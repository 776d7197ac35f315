package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/supervisor/control"
)

// statsCommand prints what the database holds.
type statsCommand struct {
	clientFlags
	JSON bool `name:"json" help:"Print JSON: the store part of procmond state --json."`
}

func (c *statsCommand) run(ctx context.Context, p invocation) error {
	places, err := p.clientDatabases(&c.clientFlags)
	if err != nil {
		return err
	}
	r, err := findState(ctx, places)
	if err != nil {
		return err
	}
	if r.state.Health == control.HealthNotResponding {
		return &exitError{code: exitUnhealthy, err: fmt.Errorf("%s", strings.Join(r.state.Reasons, " "))}
	}
	if c.JSON {
		return writeJSON(p.stdout, r.state.Store)
	}
	v := &stateView{paint: cli.Painter(p.colours(p.stdout)), now: time.Now()}
	v.store(r.state)
	v.losses(r.state.Loss)
	return cli.Write(p.stdout, v.b.String())
}
