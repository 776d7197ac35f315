package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
)

// healthCommand shows the report of one collector.
type healthCommand struct {
	clientFlags
	outputFlags
	ID string `arg:"" help:"Id of the collector."`
}

// Help is what kong shows besides the flags.
func (healthCommand) Help() string {
	return `With -o json the whole report, as of procmond state --json.

Exit code: 0 healthy, 1 degraded, 2 unhealthy or no answer, 3 no such collector, or no agent.`
}

// healthView is what a few lines show of the report.
type healthView struct {
	Health    string   `json:"health"`
	Reasons   []string `json:"reasons"`
	Version   string   `json:"version"`
	PID       int      `json:"pid"`
	Collector struct {
		State string `json:"state"`
		Cause string `json:"cause"`
	} `json:"collector"`
	Store struct {
		Path          string `json:"path"`
		Head          uint64 `json:"head"`
		Cursor        uint64 `json:"cursor"`
		BacklogEvents uint64 `json:"backlog_events"`
		BacklogBytes  uint64 `json:"backlog_bytes"`
	} `json:"store"`
	Interval struct {
		CurrentS float64 `json:"current_s"`
		Reason   string  `json:"reason"`
	} `json:"interval"`
	RPC []rpc.OperationStats `json:"rpc"`
}

func (c *healthCommand) run(ctx context.Context, p invocation) error {
	var h healthView
	raw, err := p.askCollector(ctx, &c.clientFlags, c.ID, rpc.OpHealthCheck, nil, &h)
	if err != nil {
		return err
	}
	if c.json() {
		err = writeJSON(p.stdout, raw)
	} else {
		err = cli.Write(p.stdout, healthText(newView(p, p.stdout), c.ID, &h))
	}
	if err != nil {
		return err
	}
	return silently(healthCode(h.Health))
}

func healthText(v *view, id string, h *healthView) string {
	health := v.paint.Red(cli.Printable(h.Health))
	switch healthCode(h.Health) {
	case exitOK:
		health = v.paint.Green(h.Health)
	case exitDegraded:
		health = v.paint.Yellow(h.Health)
	}
	fmt.Fprintf(&v.b, "%s is %s%s\n", v.paint.Bold(id), health, v.paint.Faint(fmt.Sprintf(" (procmond %s, pid %d)", cli.Printable(h.Version), h.PID)))
	for _, text := range h.Reasons {
		v.b.WriteString("  " + v.paint.Yellow("•") + " " + cli.Printable(text) + "\n")
	}
	v.row("collector", "%s%s", cli.Printable(h.Collector.State), reason(h.Collector.Cause))
	v.row("interval", "%g s%s", h.Interval.CurrentS, reason(h.Interval.Reason))
	v.row("store", "%s, head %d, cursor %d, undelivered %d (%s)", cli.Printable(h.Store.Path), h.Store.Head, h.Store.Cursor, h.Store.BacklogEvents, cli.Bytes(h.Store.BacklogBytes))
	for _, s := range h.RPC {
		if s.Count > 0 {
			v.row("rpc", "%s: %d, %d failed, %d of them too late", cli.Printable(string(orUnreadable(s.Operation))), s.Count, s.Errors, s.Timeouts)
		}
	}
	return v.b.String()
}

// orUnreadable names what stands under no operation.
func orUnreadable(op rpc.Operation) rpc.Operation {
	if op == "" {
		return "unreadable"
	}
	return op
}

// configCommand changes hot settings.
type configCommand struct {
	clientFlags
	outputFlags
	ID       string   `arg:"" help:"Id of the collector."`
	Values   []string `arg:"" name:"key=value" help:"New values: log_level=debug, collection_interval=10, ..."`
	Validate bool     `help:"Only say what would become of it."`
}

// Help is what kong shows besides the flags.
func (configCommand) Help() string {
	return `The agent says the values again when the collector registers again; they are forgotten when the agent ends.

Examples:

  daemoneye-agent config procmond log_level=debug max_events_in_flight=100

  daemoneye-agent config procmond --validate collection_interval=5`
}

func (c *configCommand) run(ctx context.Context, p invocation) error {
	update := rpc.UpdateConfig{Values: map[string]json.RawMessage{}, ValidateOnly: c.Validate}
	var faults cli.Faults
	for _, pair := range c.Values {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			faults = append(faults, cli.Fault{Origin: "argument " + fmt.Sprintf("%q", pair), What: "want key=value", Usage: true})
			continue
		}
		update.Values[key] = scalar(value)
	}
	if len(faults) > 0 {
		return faults
	}
	var result rpc.ConfigResult
	raw, err := p.askCollector(ctx, &c.clientFlags, c.ID, rpc.OpUpdateConfig, update, &result)
	if err != nil {
		return err
	}
	if c.json() {
		return writeJSON(p.stdout, raw)
	}
	return cli.Write(p.stdout, configText(newView(p, p.stdout), c, &result))
}

// scalar is a value in JSON: a number or a boolean where it looks like one, else a
// string.
func scalar(text string) json.RawMessage {
	var v any
	if json.Unmarshal([]byte(text), &v) == nil {
		switch v.(type) {
		case bool, float64:
			return json.RawMessage(text)
		}
	}
	quoted, _ := json.Marshal(text) // a string always can be
	return quoted
}

func configText(v *view, c *configCommand, r *rpc.ConfigResult) string {
	if c.Validate {
		v.b.WriteString("Accepted; nothing was changed.\n")
	} else {
		fmt.Fprintf(&v.b, "Configuration of %s: version %d\n", c.ID, r.Version)
	}
	for _, row := range []struct {
		name string
		keys []string
	}{{"in force", r.Applied}, {"pending", r.Pending}, {"restart", r.RestartRequired}} {
		if len(row.keys) > 0 {
			v.row(row.name, "%s", cli.Printable(strings.Join(row.keys, ", ")))
		}
	}
	if len(r.RestartRequired) > 0 {
		v.b.WriteString("What needs a restart was not touched.\n")
	}
	return v.b.String()
}

// intervalCommand changes the time between snapshots.
type intervalCommand struct {
	clientFlags
	outputFlags
	ID      string `arg:"" help:"Id of the collector."`
	Seconds string `arg:"" optional:"" help:"Time between two snapshots, 5 to 3600, or with a unit: 90s, 5m."`
	Clear   bool   `help:"Back to the configured one."`
}

func (c *intervalCommand) run(ctx context.Context, p invocation) error {
	if (c.Seconds != "") == c.Clear {
		return &exitError{code: exitUsage, err: errors.New("interval: give either SECONDS or --clear")}
	}
	adjust := rpc.AdjustInterval{Clear: c.Clear}
	if c.Seconds != "" {
		d, err := parseSeconds(c.Seconds)
		if err != nil {
			return &exitError{code: exitUsage, err: err}
		}
		ms := d.Milliseconds()
		adjust.IntervalMS = &ms
	}
	var r rpc.IntervalResult
	raw, err := p.askCollector(ctx, &c.clientFlags, c.ID, rpc.OpAdjustInterval, adjust, &r)
	if err != nil {
		return err
	}
	if c.json() {
		return writeJSON(p.stdout, raw)
	}
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	return cli.Write(p.stdout, fmt.Sprintf("%s takes a snapshot every %s (configured: %s)%s\n", c.ID, ms(r.CurrentMS), ms(r.ConfiguredMS), reason(r.Reason)))
}

// parseSeconds reads a number of seconds, or a duration with its unit.
func parseSeconds(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil {
		return 0, fmt.Errorf("interval %q: want seconds, or a duration like 90s or 5m", text)
	}
	return d, nil
}

// beginCommand begins one collector.
type beginCommand struct {
	clientFlags
	outputFlags
	ID string `arg:"" help:"Id of the collector."`
}

func (c *beginCommand) run(ctx context.Context, p invocation) error {
	var r rpc.BeginResult
	raw, err := p.target(ctx, &c.clientFlags, c.ID, rpc.OpBegin, collectorDeadline, &r)
	if err != nil {
		return err
	}
	if c.json() {
		return writeJSON(p.stdout, raw)
	}
	text := "was watching already"
	if r.Changed {
		text = "watches from now on"
	}
	return cli.Write(p.stdout, c.ID+" "+text+".\n")
}

// shutdownCommand ends one collector.
type shutdownCommand struct {
	clientFlags
	outputFlags
	ID     string `arg:"" help:"Id of the collector."`
	Reason string `placeholder:"TEXT" help:"Why, for the collector's journal."`
}

// Help is what kong shows besides the flags.
func (shutdownCommand) Help() string {
	return `The collector completes its cycle, delivers what it has and ends. If the agent started it, it is not started again before the agent is.

Exit code: 0 all was delivered, 1 events wait for the next run.`
}

func (c *shutdownCommand) run(ctx context.Context, p invocation) error {
	var r rpc.ShutdownResult
	raw, err := p.target(ctx, &c.clientFlags, c.ID, rpc.OpStop, shutdownDeadline, &r, c.Reason)
	if err != nil {
		return err
	}
	if c.json() {
		err = writeJSON(p.stdout, raw)
	} else {
		text := fmt.Sprintf("%s stops. Delivered up to %d; %d events wait for its next run.\n", c.ID, r.Delivered, r.Undelivered)
		if r.Detail != "" {
			text += "  " + cli.Printable(r.Detail) + "\n"
		}
		err = cli.Write(p.stdout, text)
	}
	if err == nil && !r.Complete {
		return exitSilently(exitDegraded)
	}
	return err
}

// target asks the agent for something about one collector.
func (p invocation) target(ctx context.Context, f *clientFlags, id string, op rpc.Operation, patience time.Duration, into any, why ...string) (json.RawMessage, error) {
	if err := rpc.ValidID(id); err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	return p.ask(ctx, f, patience, op, rpc.Target{ID: id, Reason: strings.Join(why, " ")}, into)
}
