package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor"
	"daemoneye.dev/procmond/supervisor/control"
)

// eventsCommand prints recorded events, of a running daemon or of a dead one's
// store.
type eventsCommand struct {
	clientFlags
	Since   string   `placeholder:"WHEN" help:"Only what was observed since: 10m, 2h or 7d ago; 13:45 today, 2026-01-31 or 2026-01-31T13:45, in local time; or 2026-01-31T12:00:00Z."`
	Until   string   `placeholder:"WHEN" help:"Only what was observed before; forms as for --since."`
	After   string   `placeholder:"EPOCH.SEQ" help:"Only what comes after this event of the store; the first --limit of it."`
	PID     []int32  `name:"pid" placeholder:"PID" sep:"none" help:"Only events of processes with this PID. Repeatable."`
	Process string   `placeholder:"ID" help:"Only of this process id."`
	Exe     string   `placeholder:"GLOB" help:"Only of executables like this: /usr/bin/*, or ssh* in any directory."`
	Kind    []string `placeholder:"KIND" enum:"start,exec,modify,stop,loss,sensor" help:"Only start, exec, modify, stop, loss or sensor. Repeatable."`
	Limit   *int     `short:"n" placeholder:"N" help:"At most this many, the newest; 0 is all. Default: 100, or all with --after and --follow."`
	Follow  bool     `short:"f" help:"Go on with what happens from now on."`
	Output  string   `short:"o" enum:"table,json" default:"table" placeholder:"FORM" help:"table, or json: one object a line."`
}

// Help is what kong shows besides the flags.
func (eventsCommand) Help() string {
	return `Examples:

  procmond events --since 10m --kind exec

  procmond events --exe '/usr/bin/ssh*' --follow

  procmond events -o json --limit 0 > events.jsonl`
}

func (c *eventsCommand) run(ctx context.Context, p invocation) error {
	query, err := c.query(time.Now())
	if err != nil {
		return err
	}
	places, err := p.clientDatabases(&c.clientFlags)
	if err != nil {
		return err
	}
	show := c.printer(p)
	reader := eventReader{places: places, query: query, show: show, note: p.note, every: rejoinEvery, check: p.checkAfterLive}
	err = reader.run(ctx)
	if err == nil || reader.met {
		return err
	}
	place, err := noDaemon(places, err)
	if err != nil {
		return reader.explain(err)
	}
	if c.Follow {
		return &exitError{code: exitNotRunning, err: fmt.Errorf("no daemon runs on %s, so there is nothing to follow", place)}
	}
	return p.eventsOfStore(ctx, place, query, show)
}

// eventsOfStore reads a copy of a dead daemon's store.
func (p invocation) eventsOfStore(ctx context.Context, place string, query control.Query, show func([]byte) error) (err error) {
	c, err := p.openCopy(ctx, place)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	stats := c.Stats()
	if err := p.checkAfter(query, stats.Epoch.String(), stats.Head); err != nil {
		return err
	}
	var buf []byte
	err = c.Query(ctx, supervisor.StoreQuery(query), func(e *event.Event) error {
		buf = event.AppendJSON(buf[:0], e)
		return show(buf)
	})
	if damage := c.Damage(); err == nil && damage != nil {
		return &exitError{code: exitDegraded, err: fmt.Errorf("what is shown may not be all: %w", damage), hint: "`procmond store verify` says what is left."}
	}
	return err
}

// openCopy opens the store of a daemon that is dead, if it is.
func (p invocation) openCopy(ctx context.Context, place string) (*store.Copy, error) {
	c, err := store.OpenCopy(ctx, place)
	if err == nil && c.Direct {
		p.note("reads the store itself: its file system refuses links, so no daemon can start on it meanwhile")
	}
	return c, err
}

// printer writes one event, given in its JSON form.
func (c *eventsCommand) printer(p invocation) func([]byte) error {
	if c.Output == "json" {
		return func(encoded []byte) error {
			// The line is written at once: a reader of --follow waits for it.
			_, err := p.stdout.Write(append(encoded, '\n'))
			return cli.Written(err)
		}
	}
	lines := eventLines{paint: cli.Painter(p.colours(p.stdout)), width: cli.Width(p.stdout), date: true}
	first := true
	return func(encoded []byte) error {
		line, err := lines.line(encoded)
		if err != nil {
			return err
		}
		if first {
			first = false
			line = lines.header() + line
		}
		return cli.Write(p.stdout, line)
	}
}

// limit is how many events are wanted. A follower that goes on behind an event has
// no reason to end unless it says so.
func (c *eventsCommand) limit() int {
	switch {
	case c.Limit != nil:
		return *c.Limit
	case c.Follow && c.After != "":
		return 0
	}
	return 100
}

// check returns every fault of the flags.
func (c *eventsCommand) check() error {
	_, err := c.query(time.Now())
	return err
}

// query names every fault of the flags.
func (c *eventsCommand) query(now time.Time) (control.Query, error) {
	limit := c.limit()
	q := control.Query{Follow: c.Follow, PIDs: c.PID, Exe: c.Exe, Limit: limit, Newest: limit > 0 && c.After == ""}
	var faults []error
	check := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("flag --%s: %w", flag, err))
		}
	}
	var err error
	q.Since, err = moment(c.Since, now)
	check("since", err)
	q.Until, err = moment(c.Until, now)
	check("until", err)
	q.AfterEpoch, q.After, err = position(c.After)
	check("after", err)
	if c.Process != "" {
		q.Process, err = event.ParseID(c.Process)
		check("process", err)
	}
	for _, pid := range c.PID {
		if pid < 0 {
			check("pid", fmt.Errorf("%d is not a PID", pid))
		}
	}
	_, err = control.ParseGlob(c.Exe)
	check("exe", err)
	for _, name := range c.Kind {
		kind, err := event.ParseKind(name)
		check("kind", err)
		q.Kinds = append(q.Kinds, kind)
	}
	if limit < 0 {
		check("limit", fmt.Errorf("%d: want 0 or more", limit))
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		check("until", fmt.Errorf("%s is not after --since", q.Until.Format(time.RFC3339)))
	}
	if len(faults) > 0 {
		return q, &exitError{code: exitUsage, err: errors.Join(faults...)}
	}
	return q, nil
}
