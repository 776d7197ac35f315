package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor"
	"daemoneye.dev/procmond/supervisor/control"
)

// treeCommand prints the process tree, as it is or as it was.
type treeCommand struct {
	clientFlags
	At     string   `placeholder:"WHEN" help:"As it was then: 10m, 2h or 7d ago; 13:45 today, 2026-01-31 or 2026-01-31T13:45, in local time; or 2026-01-31T12:00:00Z."`
	PID    []int32  `name:"pid" placeholder:"PID" sep:"none" help:"Only this process, its ancestors and descendants. Repeatable."`
	User   []string `placeholder:"USER" sep:"none" help:"Only processes of this user (name or id), and their ancestors. Repeatable."`
	Exe    string   `placeholder:"GLOB" help:"Only executables like this, and their ancestors: /usr/bin/*, or ssh* in any directory."`
	Depth  int      `placeholder:"N" help:"So many levels; 0 is all."`
	Kernel bool     `short:"k" help:"Threads of the kernel too."`
	Output string   `short:"o" enum:"table,json" default:"table" placeholder:"FORM" help:"table, or json: one object a line, parents first."`
}

// Help is what kong shows besides the flags.
func (treeCommand) Help() string {
	return `The tree is that of the daemon's last snapshot. With --at it is rebuilt from the events that are kept: who had
started and not ended by then, with the names and parents of that time. A tilde before RSS says that it is the
kernel's approximate counter (see ` + "`rss_kind`" + ` in docs/events-json.md).

Examples:

  procmond tree

  procmond tree --at 03:12 --user www-data

  procmond tree --at 2h --pid 4711

  procmond tree -o json | jq -r 'select(.exe_deleted) | .exe'`
}

// check returns every fault of the flags.
func (c *treeCommand) check() error {
	_, _, err := c.query(time.Now())
	return err
}

// query names every fault of the flags.
func (c *treeCommand) query(now time.Time) (at time.Time, q *treeFilter, err error) {
	q = &treeFilter{pids: c.PID, exe: c.Exe, kernel: c.Kernel}
	var faults []error
	check := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("flag --%s: %w", flag, err))
		}
	}
	at, err = moment(c.At, now)
	check("at", err)
	if c.At != "" && at.IsZero() {
		at = at.Add(1) // the zero time would ask for the newest table
	}
	if at.After(now) {
		check("at", fmt.Errorf("%s is still to come", at.Format(time.RFC3339)))
	}
	for _, pid := range c.PID {
		if pid < 0 {
			check("pid", fmt.Errorf("%d is not a PID", pid))
		}
	}
	for _, name := range c.User {
		uid, err := userID(name)
		check("user", err)
		q.uids = append(q.uids, uid)
	}
	_, err = control.ParseGlob(c.Exe)
	check("exe", err)
	if c.Depth < 0 {
		check("depth", fmt.Errorf("%d: want 0 or more", c.Depth))
	}
	if len(faults) > 0 {
		return at, q, &exitError{code: exitUsage, err: errors.Join(faults...)}
	}
	return at, q, nil
}

// userID is the id of a user, by name or number. A number needs no user here: the
// process may be of a container.
func userID(name string) (uint32, error) {
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(uid), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("%q is no user of this host", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("user %q has no number: %q", name, u.Uid)
	}
	return uint32(uid), nil
}

func (c *treeCommand) run(ctx context.Context, p invocation) error {
	now := time.Now()
	at, filter, err := c.query(now)
	if err != nil {
		return err
	}
	places, err := p.clientDatabases(&c.clientFlags)
	if err != nil {
		return err
	}
	f, err := p.readForest(ctx, places, at)
	if err != nil {
		return explainPast(err, at)
	}
	f.plant()
	selected, kernel := f.choose(filter)
	if c.Output == "json" {
		return c.printJSON(p, f)
	}
	view := &treeView{
		paint: cli.Painter(p.colours(p.stdout)), width: cli.Width(p.stdout), lines: p.treeLines(), now: now,
		users: make(map[uint32]string), lookup: userName,
	}
	return c.print(p, f, view, selected, view.summary(f, selected, kernel, filter))
}

// readForest reads the processes of the daemon, or of its store if there is none.
func (p invocation) readForest(ctx context.Context, places []string, at time.Time) (*forest, error) {
	f := new(forest)
	progress := p.progress("read %d of %d events")
	defer progress.clear()
	reader := control.TableReader{
		Progress: progress.show,
		Table:    func(h control.TableHead) error { f.head = h; return nil },
		Process:  f.add,
	}
	err := askDaemon(places, func(_ string, c *control.Client) error { return c.Processes(ctx, at, reader) })
	if err == nil {
		return f, nil
	}
	place, err := noDaemon(places, err)
	if err != nil {
		return nil, err
	}
	return f, p.forestOfStore(ctx, place, at, reader)
}

// forestOfStore reads a copy of a dead daemon's store.
func (p invocation) forestOfStore(ctx context.Context, place string, at time.Time, r control.TableReader) (err error) {
	c, err := p.openCopy(ctx, place)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	p.note("no daemon runs on " + place + ": this is what the last one left")
	past, err := c.Past(ctx, at, r.Progress)
	if err != nil {
		return err
	}
	t := supervisor.ProcessTable(past)
	if err := r.Table(t.Head()); err != nil {
		return err
	}
	for i := range t.Processes {
		if err := r.Process(event.AppendProcessJSON(nil, t.Processes[i].Process), t.Processes[i].Doubts); err != nil {
			return err
		}
	}
	if damage := c.Damage(); damage != nil {
		p.note("what is shown may not be all: " + damage.Error() + "; `procmond store verify` says what is left")
	}
	return nil
}

// explainPast says which moments can be asked for.
func explainPast(err error, at time.Time) error {
	var oldest time.Time
	var live *control.BeforeRecordError
	var dead *store.BeforeRecordError
	switch {
	case errors.As(err, &live):
		oldest = live.Oldest
	case errors.As(err, &dead):
		oldest = dead.Oldest
	default:
		return err
	}
	e := &exitError{code: exitDegraded, err: fmt.Errorf("nothing is kept of %s: %w", at.Format(time.RFC3339), err)}
	if !oldest.IsZero() {
		e.hint = fmt.Sprintf("Ask for --at %s or later; `--retention` of the daemon says how long events are kept.", oldest.Local().Truncate(time.Second).Add(time.Second).Format(time.RFC3339))
	}
	return e
}

// print writes the tree, in pieces: a reader may leave.
func (c *treeCommand) print(p invocation, f *forest, v *treeView, selected int, summary string) error {
	if selected == 0 {
		return cli.Write(p.stdout, summary)
	}
	if err := cli.Write(p.stdout, summary+v.header()); err != nil {
		return err
	}
	var b strings.Builder
	err := f.walk(c.Depth, func(n *treeNode, last []bool, hidden int) error {
		b.WriteString(v.line(n, last, hidden))
		if b.Len() < 64<<10 {
			return nil
		}
		defer b.Reset()
		return cli.Write(p.stdout, b.String())
	})
	return errors.Join(err, cli.Write(p.stdout, b.String()))
}

// printJSON writes one object for each process that is shown, with its depth and what
// is not certain before the keys that events have.
func (c *treeCommand) printJSON(p invocation, f *forest) error {
	var b bytes.Buffer
	err := f.walk(c.Depth, func(n *treeNode, last []bool, _ int) error {
		doubts, err := json.Marshal(append([]control.Doubt{}, n.doubts...))
		if err != nil {
			return fmt.Errorf("encode doubts: %w", err)
		}
		fmt.Fprintf(&b, `{"depth":%d,"selected":%t,"doubts":%s,%s`+"\n", len(last)-1, n.selected, doubts, n.encoded[1:])
		if b.Len() < 64<<10 {
			return nil
		}
		_, err = b.WriteTo(p.stdout)
		return cli.Written(err)
	})
	if err != nil {
		return err
	}
	_, err = b.WriteTo(p.stdout)
	return cli.Written(err)
}

// treeLines are drawn lines where the locale can show them (locale(7)).
func (p invocation) treeLines() treeLines {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(p.getenv(name)); value != "" {
			if strings.Contains(value, "utf-8") || strings.Contains(value, "utf8") {
				return lightLines()
			}
			break
		}
	}
	return asciiLines()
}
