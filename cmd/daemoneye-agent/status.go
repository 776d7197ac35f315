package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/fsm"
)

// statusCommand tells of the agent itself.
type statusCommand struct {
	clientFlags
	outputFlags
}

// Help is what kong shows besides the flags.
func (statusCommand) Help() string {
	return `Exit code: 0 all is well, 1 degraded, 2 unhealthy or no answer, 3 no agent runs.

Examples:

  daemoneye-agent status

  daemoneye-agent status --json | jq .stream`
}

func (c *statusCommand) run(ctx context.Context, p invocation) error {
	r, err := p.report(ctx, &c.clientFlags)
	if err != nil {
		return err
	}
	if c.json() {
		err = writeJSON(p.stdout, r)
	} else {
		v := newView(p, p.stdout)
		v.status(r)
		err = cli.Write(p.stdout, v.b.String())
	}
	if err != nil {
		return err
	}
	return silently(agentHealth(r))
}

// collectorsCommand lists the collectors.
type collectorsCommand struct {
	clientFlags
	outputFlags
}

// Help is what kong shows besides the flags.
func (collectorsCommand) Help() string {
	return `Exit code: 0 all are healthy, 1 one is degraded, 2 one is unhealthy, silent or missing, 3 no agent runs.`
}

func (c *collectorsCommand) run(ctx context.Context, p invocation) error {
	r, err := p.report(ctx, &c.clientFlags)
	if err != nil {
		return err
	}
	if c.json() {
		err = writeJSON(p.stdout, r.Collectors)
	} else {
		v := newView(p, p.stdout)
		v.collectors(r.Collectors)
		err = cli.Write(p.stdout, v.b.String())
	}
	if err != nil {
		return err
	}
	return silently(collectorsHealth(r.Collectors))
}

// healthCode is the exit code for the health of a collector.
func healthCode(health string) exitCode {
	switch health {
	case "healthy":
		return exitOK
	case "degraded":
		return exitDegraded
	}
	return exitUnhealthy
}

// collectorsHealth is that of the worst. One that nobody expects and that took its
// leave is nobody's worry.
func collectorsHealth(all []rpc.CollectorReport) exitCode {
	worst := exitOK
	for i := range all {
		c := &all[i]
		code := exitUnhealthy
		switch {
		case c.Liveness == rpc.LivenessGone && !c.Expected:
			code = exitOK
		case c.Liveness == rpc.LivenessHealthy && c.Heartbeat != nil:
			code = healthCode(c.Heartbeat.Health)
		case c.Liveness == rpc.LivenessHealthy: // registered, not heard of yet
			code = exitDegraded
		}
		worst = max(worst, code)
	}
	return worst
}

// nearlyFull is the part of the stream's size above which room is made.
const nearlyFull = 0.7

func agentHealth(r *rpc.AgentReport) exitCode {
	worst := collectorsHealth(r.Collectors)
	if !r.Stream.InService || r.State == string(fsm.AgentStartupFailed) {
		return exitUnhealthy
	}
	if r.State != string(fsm.AgentSteady) || float64(r.Stream.Bytes) > nearlyFull*float64(r.Stream.MaxBytes) {
		worst = max(worst, exitDegraded)
	}
	return worst
}

// view is a report for people.
type view struct {
	b     strings.Builder
	paint cli.Painter
	width int // columns, 0 is no limit
	now   time.Time
}

func newView(p invocation, out *os.File) *view {
	return &view{paint: cli.Painter(p.colours(out)), width: cli.Width(out), now: time.Now()}
}

func (v *view) row(name, format string, args ...any) {
	fmt.Fprintf(&v.b, "  %s %s\n", v.paint.Faint(fmt.Sprintf("%-12s", name)), strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

func (v *view) table(header string, rows [][]string) {
	w := tabwriter.NewWriter(&v.b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, header) // a strings.Builder never fails
	for _, row := range rows {
		for i := range row {
			if row[i] = cli.Printable(row[i]); row[i] == "" {
				row[i] = "-"
			}
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a strings.Builder never fails
}

func (v *view) status(r *rpc.AgentReport) {
	state := strings.ReplaceAll(r.State, "_", " ")
	switch agentHealth(r) {
	case exitOK:
		state = v.paint.Green(state)
	case exitDegraded:
		state = v.paint.Yellow(state)
	default:
		state = v.paint.Red(state)
	}
	fmt.Fprintf(&v.b, "%s is %s%s\n", v.paint.Bold(program+" "+cli.Printable(r.Version)), state,
		v.paint.Faint(fmt.Sprintf(" (pid %d, up %s)", r.PID, span(v.now.Sub(r.StartedAt)))))
	for _, warning := range r.Warnings {
		v.b.WriteString("  " + v.paint.Yellow("•") + " " + cli.Printable(warning) + "\n")
	}
	v.row("state", "%s for %s%s", cli.Printable(r.State), span(v.now.Sub(r.Since)), reason(r.Cause))
	expected := "none"
	if len(r.Expected) > 0 {
		expected = strings.Join(r.Expected, ", ")
	}
	if len(r.Missing) > 0 {
		expected += "; not ready: " + strings.Join(r.Missing, ", ")
	}
	v.row("expected", "%s", cli.Printable(expected))
	v.stream(&r.Stream)
	for _, refused := range r.Refused {
		v.row("refused", "%d %s, last %s", refused.Count, cli.Printable(refused.Reason), cli.Printable(refused.Last))
	}
	v.b.WriteString("\n")
	v.collectors(r.Collectors)
	v.services(r.Services)
	v.transitions(r.Transitions)
}

func (v *view) stream(s *rpc.StreamReport) {
	if !s.InService {
		v.row("stream", "%s%s", v.paint.Red("out of service"), reason(s.LastFault))
		return
	}
	v.row("stream", "%d events, %s of %s, %.1f events/s", s.Messages, cli.Bytes(s.Bytes), cli.Bytes(s.MaxBytes), s.RateEventS)
	text := fmt.Sprintf("%d durable consumers, %d purged behind them", s.Consumers, s.Purged)
	if s.FullInS != nil {
		text += ", full in " + span(time.Duration(*s.FullInS*float64(time.Second)))
	}
	v.row("", "%s", text)
}

func (v *view) collectors(all []rpc.CollectorReport) {
	if len(all) == 0 {
		v.b.WriteString("No collectors.\n")
		return
	}
	var rows [][]string
	for i := range all {
		rows = append(rows, v.collector(&all[i]))
	}
	v.table("COLLECTOR\tLIVENESS\tHEALTH\tSTATE\tPID\tHEARD\tBACKLOG\tINTERVAL\tCHILD\tNOTE", rows)
}

func (v *view) collector(c *rpc.CollectorReport) []string {
	row := []string{c.ID, string(c.Liveness), "", "", "", "", "", "", "", v.collectorNote(c)}
	if c.Registration != nil {
		row[4] = fmt.Sprint(c.Registration.PID)
	}
	if h := c.Heartbeat; h != nil && c.Liveness != rpc.LivenessGone { // what it said once is history then
		row[2], row[3] = h.Health, strings.ReplaceAll(h.Collector, "_", " ")
		row[6] = fmt.Sprintf("%d (%s)", h.BacklogEvents, cli.Bytes(h.BacklogBytes))
		row[7] = (time.Duration(h.IntervalMS) * time.Millisecond).String()
	}
	if c.HeardAt != nil {
		row[5] = span(v.now.Sub(*c.HeardAt)) + " ago"
	}
	if c.Child != nil {
		row[8] = c.Child.State
		if c.Child.Restarts > 0 {
			row[8] += fmt.Sprintf(" (%d restarts)", c.Child.Restarts)
		}
	}
	return row
}

// collectorNote is the one thing most worth knowing.
func (v *view) collectorNote(c *rpc.CollectorReport) string {
	var note string
	switch {
	case c.Heartbeat != nil && c.Liveness == rpc.LivenessHealthy && len(c.Heartbeat.Reasons) > 0:
		note = c.Heartbeat.Reasons[0]
	case c.Child != nil && c.Child.State != "running" && c.Child.LastExit != "":
		note = "last: " + c.Child.LastExit
	case c.Missed >= 3:
		note = fmt.Sprintf("%d heartbeats missed", c.Missed)
	default:
		note = c.LastError
	}
	return cli.Shorten(strings.Join(strings.Fields(note), " "), v.rest(90))
}

// rest is how many characters are left beside others; 0 is no limit.
func (v *view) rest(others int) int {
	if v.width == 0 {
		return 0
	}
	return max(40, v.width-others)
}

func (v *view) services(all []rpc.ServiceReport) {
	var rows [][]string
	for _, s := range all {
		restarts := fmt.Sprint(s.Restarts)
		if s.Panics > 0 {
			restarts += fmt.Sprintf(" (%d panics)", s.Panics)
		}
		rows = append(rows, []string{s.Path, s.State, restarts, cli.Shorten(strings.Join(strings.Fields(s.LastError), " "), v.rest(50))})
	}
	if len(rows) > 0 {
		v.b.WriteString("\n")
		v.table("SERVICE\tSTATE\tRESTARTS\tLAST ERROR", rows)
	}
}

// mostTransitions keeps the report on a screen.
const mostTransitions = 5

func (v *view) transitions(all []rpc.Transition) {
	all = all[max(0, len(all)-mostTransitions):]
	if len(all) == 0 {
		return
	}
	v.b.WriteString("\n")
	var rows [][]string
	for _, t := range all {
		rows = append(rows, []string{span(v.now.Sub(t.At)) + " ago", t.From + " -> " + t.To, t.Cause})
	}
	v.table("WHEN\tTRANSITION\tCAUSE", rows)
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return ": " + cli.Printable(text)
}

// span is a time in the unit that suits it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
