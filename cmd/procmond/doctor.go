package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/procmond/internal/doctor"
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/supervisor"
)

// doctorCommand examines this host.
type doctorCommand struct {
	clientFlags
	JSON bool `name:"json" help:"Print the report as JSON."`
}

// Help is what kong shows besides the flags.
func (doctorCommand) Help() string {
	return `Checks what this host allows the daemon that runs, or one that you would start: kernel, rights, what /proc hides,
limits, clock, disk, store, control socket, agent. Each check is pass, note (it works, and could be better) or fail, with
what that costs and what mends it. It changes nothing.

Run it as the user that the daemon runs as: others do not see everything.

Exit code: 0 no check failed, 1 one failed.

Examples:

  sudo procmond doctor

  procmond doctor --json | jq '.checks[] | select(.status != "pass")'`
}

func (c *doctorCommand) run(ctx context.Context, p invocation) error {
	report, err := c.examine(ctx, p)
	if err != nil {
		return err
	}
	if c.JSON {
		err = writeJSON(p.stdout, report)
	} else {
		err = cli.Write(p.stdout, doctorText(&report, cli.Painter(p.colours(p.stdout)), cli.Width(p.stdout)))
	}
	if err == nil && report.Status == doctor.Fail {
		err = exitSilently(exitDegraded)
	}
	return err
}

func (c *doctorCommand) examine(ctx context.Context, p invocation) (doctor.Report, error) {
	places, err := p.clientDatabases(&c.clientFlags)
	if err != nil {
		return doctor.Report{}, err
	}
	in := settings.Input{Environ: p.environ, ConfigFlag: c.Config, DefaultFile: settings.DefaultFile}
	values, faults, _ := settings.Resolve(in)
	broker, err := brokerSocket(p.getenv(rpc.EnvSocket))
	if err != nil {
		faults = append(faults, settings.Fault{Origin: "environment " + rpc.EnvSocket, What: err.Error()})
	}
	daemon, database := askForDoctor(ctx, places)
	return doctor.Examine(ctx, doctor.Config{
		Version: readBuild().version, Self: os.Getpid(), Proc: "/proc", Sys: "/sys",
		Database: database, Daemon: daemon, Broker: broker, ID: values.ID,
		Listen: func() kernel.Status { return examineEvents(kernel.Mode(values.EventDriven)) },
		Faults: faultLines(faults), KeepBytes: values.RetentionBytes,
	}), nil
}

// examineEvents opens sources of kernel events for a moment.
func examineEvents(m kernel.Mode) kernel.Status {
	s, err := kernel.Examine(m)
	if err != nil {
		s.Why = strings.TrimPrefix(s.Why+"; "+err.Error(), "; ")
	}
	return s
}

// faultLines is empty if there are none.
func faultLines(faults settings.Faults) []string {
	if len(faults) == 0 {
		return nil
	}
	return faults.Lines()
}

// askForDoctor asks the daemon, and says which place of a database it is about:
// where there is none yet, the one that a daemon started now would take.
func askForDoctor(ctx context.Context, places []string) (doctor.Daemon, string) {
	r, err := findState(ctx, places)
	var none *errNoDatabase
	switch {
	case errors.As(err, &none), supervisor.IsNoStore(err):
		i := slices.IndexFunc(places, func(place string) bool { return writable(filepath.Dir(place)) })
		place := places[max(0, i)]
		return doctor.Daemon{State: supervisor.NoState(place)}, place
	case err != nil:
		place, _, placeErr := existing(places)
		if placeErr != nil {
			place = places[0]
		}
		return doctor.Daemon{Err: err}, place
	}
	return doctor.Daemon{State: r.state}, r.database
}

// doctorText is the report for people: a line for each check, and what follows from
// it below.
func doctorText(r *doctor.Report, paint cli.Painter, columns int) string {
	var b strings.Builder
	longest := 0
	for i := range r.Checks {
		longest = max(longest, len(r.Checks[i].Name))
	}
	margin := len("pass") + 2 + longest + 2
	for i := range r.Checks {
		c := &r.Checks[i]
		fmt.Fprintf(&b, "%s  %-*s  ", paintStatus(paint, c.Status), longest, c.Name)
		paragraph(&b, cli.Printable(c.Finding), margin, columns)
		for _, more := range []struct{ label, text string }{{"costs  ", c.Cost}, {"mend   ", c.Mend}} {
			if more.text != "" {
				b.WriteString(strings.Repeat(" ", margin) + paint.Faint(more.label))
				paragraph(&b, cli.Printable(more.text), margin+len(more.label), columns)
			}
		}
	}
	notes, failures := r.Count(doctor.Note), r.Count(doctor.Fail)
	fmt.Fprintf(&b, "\n%d checks: %d passed, %d %s, %d failed\n", len(r.Checks), r.Count(doctor.Pass), notes, plural(uint64(notes), "note"), failures)
	return b.String()
}

func paintStatus(paint cli.Painter, s doctor.Status) string {
	switch s {
	case doctor.Pass:
		return paint.Green(string(s))
	case doctor.Note:
		return paint.Yellow(string(s))
	}
	return paint.Red(string(s))
}

// paragraph writes words that begin and go on behind a margin.
func paragraph(b *strings.Builder, text string, margin, columns int) {
	room := columns - margin
	if columns == 0 || room < 30 {
		room = len(text)
	}
	used := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case used+1+len(word) > room:
			b.WriteString("\n" + strings.Repeat(" ", margin))
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += len(word)
	}
	b.WriteByte('\n')
}
