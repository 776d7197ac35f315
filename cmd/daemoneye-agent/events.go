package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"daemoneye.dev/procmond/bus/agent/operator"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/collect/event"
)

// eventsCommand prints what the stream holds.
type eventsCommand struct {
	clientFlags
	ID     string `name:"id" placeholder:"ID" help:"Only of this collector."`
	Limit  *int   `short:"n" placeholder:"N" help:"At most this many, the newest; 0 is all. Default: 100."`
	Follow bool   `short:"f" help:"Go on with what comes from now on."`
	Output string `short:"o" enum:"table,json" default:"table" placeholder:"FORM" help:"table, or json: one object a line."`
	JSON   bool   `name:"json" help:"The same as -o json."`
}

// Help is what kong shows besides the flags.
func (eventsCommand) Help() string {
	return `Reading takes nothing out of the stream.

Examples:

  daemoneye-agent events --follow

  daemoneye-agent events -o json -n 0 > events.jsonl`
}

func (c *eventsCommand) run(ctx context.Context, p invocation) error {
	query := operator.Query{ID: c.ID, Newest: 100, Follow: c.Follow}
	if c.Limit != nil {
		query.Newest = *c.Limit
	}
	if err := c.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := p.dial(&c.clientFlags, c.Follow, func(connected bool) {
		if connected {
			p.note("the agent is back")
		} else {
			p.note("the agent has gone; waiting for it (Ctrl-C ends)")
		}
	})
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.Events(ctx, query, c.printer(p), func(seq uint64, err error) {
		p.note(fmt.Sprintf("message %d of the stream is no event that this version can read: %v", seq, err))
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// check returns every fault of the flags.
func (c *eventsCommand) check() error {
	var faults cli.Faults
	if c.ID != "" {
		if err := rpc.ValidID(c.ID); err != nil {
			faults = append(faults, cli.Fault{Origin: "flag --id", What: err.Error(), Usage: true})
		}
	}
	if c.Limit != nil && *c.Limit < 0 {
		faults = append(faults, cli.Fault{Origin: "flag --limit", What: fmt.Sprintf("%d: want 0 or more", *c.Limit), Usage: true})
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// printer writes one event.
func (c *eventsCommand) printer(p invocation) func(*operator.Message) error {
	if c.JSON || c.Output == "json" {
		var line []byte
		return func(m *operator.Message) error {
			line = append(event.AppendJSON(line[:0], &m.Event), '\n')
			return cli.Write(p.stdout, string(line)) // at once: a reader of --follow waits for it
		}
	}
	lines := eventLines{paint: cli.Painter(p.colours(p.stdout)), width: cli.Width(p.stdout)}
	first := true
	return func(m *operator.Message) error {
		text := lines.line(m)
		if first {
			first, text = false, lines.header()+text
		}
		return cli.Write(p.stdout, text)
	}
}
