package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/supervisor/control"
)

// modeCoordinated is the mode in which events are owed to a broker.
const modeCoordinated = "coordinated"

// stateView is a report for people: a screenful.
type stateView struct {
	b     strings.Builder
	paint cli.Painter
	width int // columns, 0 is no limit
	now   time.Time
}

// stateText renders a report. last is the reason of an earlier fatal end, if
// there is one.
func stateText(s *control.State, last *fatalRecord, paint cli.Painter, columns int, now time.Time) string {
	v := &stateView{paint: paint, width: columns, now: now}
	v.headline(s)
	for _, reason := range s.Reasons {
		v.b.WriteString("  " + v.paint.Yellow("•") + " " + cli.Printable(reason) + "\n")
	}
	if last != nil {
		v.row("last fatal", "%s, exit %d: %s", v.ago(&last.Time), last.Code, cli.Printable(last.Reason))
	}
	if s.Health == control.HealthNotResponding || !s.Running && s.Store.Epoch == "" {
		return v.b.String() // nothing more is known
	}
	v.daemon(s)
	v.store(s)
	v.losses(s.Loss)
	v.services(s.Services)
	v.transitions(s.Transitions)
	return v.b.String()
}

// headline says in one line how it is.
func (v *stateView) headline(s *control.State) {
	name := "procmond"
	if s.Version != "" {
		name += " " + cli.Printable(s.Version)
	}
	health := strings.ReplaceAll(s.Health, "_", " ")
	switch s.Health {
	case control.HealthHealthy:
		health = v.paint.Green(health)
	case control.HealthDegraded:
		health = v.paint.Yellow(health)
	case control.HealthNotRunning:
		health = v.paint.Bold(health)
	default:
		health = v.paint.Red(health)
	}
	fmt.Fprintf(&v.b, "%s is %s", v.paint.Bold(name), health)
	var more []string
	if s.Mode != "" {
		more = append(more, cli.Printable(s.Mode))
	}
	if s.PID != 0 {
		more = append(more, fmt.Sprintf("pid %d", s.PID))
	}
	if s.Running && s.StartedAt != nil {
		more = append(more, "up "+span(v.now.Sub(*s.StartedAt)))
	}
	if !s.Running && s.Clean != nil {
		if *s.Clean {
			more = append(more, "stopped in order "+v.ago(s.AsOf))
		} else {
			more = append(more, "ended without order, last record "+v.ago(s.AsOf))
		}
	}
	if len(more) > 0 {
		v.b.WriteString(v.paint.Faint(" (" + strings.Join(more, ", ") + ")"))
	}
	v.b.WriteString("\n")
}

// totals are what is worth knowing of the whole run.
func (v *stateView) totals(t *control.Totals) {
	notes := counted(t.Events, plural(t.Events, "event")+" recorded") + counted(t.ScansFailed, plural(t.ScansFailed, "snapshot")+" failed") + counted(t.ShortLived, "short-lived not reported") +
		counted(t.Outages, plural(t.Outages, "outage")+" of the store") + counted(t.NotesLost, plural(t.NotesLost, "note")+" lost") + counted(t.LogLinesLost, plural(t.LogLinesLost, "log line")+" lost")
	if notes != "" {
		v.row("this run", "%s", strings.TrimPrefix(notes, ", "))
	}
}

// eventsNote says why kernel events have no better source, and what ails this one.
func (v *stateView) eventsNote(s *control.Sources) {
	if s.EventsLimits != "" {
		v.row("", "%s", v.paint.Yellow(cli.Printable(s.Events+": "+s.EventsLimits)))
	}
	if s.EventsNote == "" {
		return
	}
	v.row("", "%s", v.paint.Yellow("not used: "+cli.Printable(s.EventsNote)))
	if s.EventsMend != "" {
		v.row("", "%s", v.paint.Faint(cli.Printable(s.EventsMend)))
	}
}

// kernelEvents says how many were heard, and what was not.
func (v *stateView) kernelEvents(t *control.Totals, waiting int) {
	lost := t.KernelEventsLost
	if t.KernelEvents == 0 && t.LossWindows == 0 {
		return
	}
	v.row("", "%d kernel events%s%s", t.KernelEvents, counted(waiting, "not recorded yet"), counted(t.KernelEventsUnmatched, "of processes unknown"))
	if t.LossWindows > 0 {
		v.row("", "%s", v.paint.Red(fmt.Sprintf("kernel events lost %d %s%s%s%s%s", t.LossWindows, plural(t.LossWindows, "time"),
			counted(lost.Forks, plural(lost.Forks, "fork")), counted(lost.Execs, plural(lost.Execs, "exec")),
			counted(lost.Exits, plural(lost.Exits, "exit")), counted(lost.Other, "of any kind"))))
	}
}

// metadata says what is recorded besides what a snapshot always has.
func (v *stateView) metadata(s *control.Sources) {
	switch s.EnhancedMetadata {
	case control.MetadataOn:
		v.row("", "enhanced metadata, %s memory", cli.Printable(s.RSSKind))
	case control.MetadataUnsupported:
		v.row("", "%s", v.paint.Yellow("no enhanced metadata: these snapshots do not have it"))
	}
}

// hashes says what the hasher has done and what it is at.
func (v *stateView) hashes(h *control.Hashes) {
	if h == nil {
		return
	}
	v.row("hashes", "%d computed (%s), %d known%s%s%s", h.Hashed, cli.Bytes(h.Bytes), h.Cached,
		counted(h.Waiting, "waiting"), counted(h.Skipped, "skipped"), counted(h.Deferred, "deferred"))
	var skips []string
	for _, s := range h.Skips {
		skips = append(skips, fmt.Sprintf("%s %d", cli.Printable(s.Reason), s.Count))
	}
	if len(skips) > 0 {
		v.row("", "skipped: %s", strings.Join(skips, ", "))
	}
}

// row is a name and what there is to say about it.
func (v *stateView) row(name, format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	fmt.Fprintf(&v.b, "  %s %s\n", v.paint.Faint(fmt.Sprintf("%-13s", name)), text)
}

func (v *stateView) daemon(s *control.State) {
	c := &s.Collector
	if c.State == "" { // a store that does not tell
		return
	}
	v.row("collector", "%s%s%s", spaced(c.State), v.sinceText(c.Since), because(c.Cause))
	if c.LastError != "" && s.Store.InService { // else it is the store's, and among the reasons
		v.row("", "last error: %s", cli.Printable(c.LastError))
	}
	if !s.Running {
		return
	}
	if c.ActivityMS >= time.Second.Milliseconds() && c.Activity != "" {
		v.row("", "%s for %s", cli.Printable(c.Activity), span(time.Duration(c.ActivityMS)*time.Millisecond))
	}
	v.link(s)
	v.row("sources", "events %s, snapshots %s, every %s%s", cli.Printable(s.Sources.Events), cli.Printable(s.Sources.Snapshots),
		seconds(s.Interval.CurrentS), v.intervalNote(&s.Interval))
	v.eventsNote(&s.Sources)
	v.metadata(&s.Sources)
	v.cycle(&s.Cycle)
	v.totals(&s.Totals)
	v.kernelEvents(&s.Totals, s.Collector.Waiting)
	v.hashes(s.Hashes)
	config := fmt.Sprintf("version %d", s.Config.Version)
	if len(s.Config.Pending) > 0 {
		config += ", pending: " + cli.Printable(strings.Join(s.Config.Pending, ", "))
	}
	v.row("config", "%s", config)
}

func (v *stateView) intervalNote(i *control.Interval) string {
	if i.ConfiguredS == i.CurrentS {
		return ""
	}
	return fmt.Sprintf(" (configured %s%s)", seconds(i.ConfiguredS), because(i.Reason))
}

func (v *stateView) cycle(c *control.Cycle) {
	if c.Count == 0 {
		v.row("last cycle", "none yet")
		return
	}
	v.row("last cycle", "#%d %s, %s ms: %d processes, %d events", c.Count, v.ago(c.LastAt), decimal(c.DurationMS), c.Processes, c.Events)
	notes := counted(c.LeftOut, "left out") + counted(c.Excluded, "excluded") + counted(c.Held, "held back") + counted(c.Vanished, "vanished") +
		counted(c.Hidden, "hidden by the host") + counted(c.Unreadable, "not wholly readable") + counted(c.Unconfirmed, "perhaps still there")
	if notes != "" {
		v.row("", "%s", strings.TrimPrefix(notes, ", "))
	}
}

func (v *stateView) store(state *control.State) {
	s := &state.Store
	if s.Epoch == "" {
		v.row("store", "%s, not opened yet: what it holds is not known", cli.Printable(s.Path))
		v.service(state)
		return
	}
	if !state.Running && s.Reason != "" {
		v.row("store", "%s, damaged: `procmond store verify` says what is left", cli.Printable(s.Path))
		return
	}
	v.row("store", "%s, %s", cli.Printable(s.Path), cli.Bytes(s.Bytes))
	owed := ""
	if state.Mode == modeCoordinated {
		owed = fmt.Sprintf(", cursor %d, undelivered %d (%s)", s.Cursor, s.BacklogEvents, cli.Bytes(s.BacklogBytes))
	}
	v.row("", "%d events kept, head %d%s%s", s.Kept, s.Head, owed, counted(s.Removed, "removed by retention")+counted(s.Shed, "given up undelivered"))
	v.row("", "epoch %s", cli.Printable(s.Epoch))
	v.service(state)
	if s.RewoundTo != "" {
		v.row("", "was an older copy of itself %s; what it held is in %s", v.ago(s.RewoundAt), cli.Printable(s.RewoundTo))
	}
	if s.QuarantinedTo != "" {
		v.row("", "a damaged predecessor was set aside %s: %s", v.ago(s.QuarantinedAt), cli.Printable(s.QuarantinedTo))
	}
}

// service says of a store out of service no more than that: why is among the
// reasons.
func (v *stateView) service(state *control.State) {
	if state.Running && !state.Store.InService {
		v.row("", "%s%s, see above", v.paint.Red("out of service"), v.sinceText(state.Store.Since))
	}
}

func (v *stateView) losses(losses []control.Loss) {
	if len(losses) == 0 {
		return
	}
	var parts []string
	for _, l := range losses {
		part := fmt.Sprintf("%s %d", spaced(l.Cause), l.Count)
		if l.Missing > 0 {
			part += fmt.Sprintf(" (%d missing)", l.Missing)
		}
		parts = append(parts, part)
	}
	v.row("losses", "%s", strings.Join(parts, ", "))
}

func (v *stateView) services(services []control.Service) {
	if len(services) == 0 {
		return
	}
	v.b.WriteString("\n")
	w := tabwriter.NewWriter(&v.b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "  SERVICE\tSTATE\tSINCE\tRESTARTS\tLAST ERROR") // a strings.Builder never fails
	for _, s := range services {
		restarts := fmt.Sprint(s.Restarts)
		if s.Panics > 0 {
			restarts += fmt.Sprintf(" (%d panics)", s.Panics)
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", cli.Printable(s.Path), spaced(s.State), v.ago(s.Since), restarts, v.serviceError(&s))
	}
	_ = w.Flush() // a strings.Builder never fails
}

func (v *stateView) serviceError(s *control.Service) string {
	text := s.LastError
	if s.LastPanic != "" {
		text = s.LastPanic
	}
	if text == "" {
		return "-"
	}
	return cli.Shorten(cli.Printable(strings.Join(strings.Fields(text), " ")), max(30, v.width-60))
}

// mostTransitions keeps the report on a screen.
const mostTransitions = 5

func (v *stateView) transitions(ts []control.Transition) {
	if len(ts) == 0 {
		return
	}
	v.b.WriteString("\n")
	w := tabwriter.NewWriter(&v.b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "  TRANSITION\tMACHINE\tFROM\tTO\tCAUSE") // a strings.Builder never fails
	for _, t := range ts[max(0, len(ts)-mostTransitions):] {
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", v.ago(&t.At), spaced(t.Machine), spaced(t.From), spaced(t.To), orDash(spaced(t.Cause)))
	}
	_ = w.Flush() // a strings.Builder never fails
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (v *stateView) sinceText(at *time.Time) string {
	if at == nil {
		return ""
	}
	return " since " + v.ago(at)
}

// ago is a moment as people say it.
func (v *stateView) ago(at *time.Time) string {
	if at == nil || at.IsZero() {
		return "never"
	}
	d := v.now.Sub(*at)
	switch {
	case d < -time.Second:
		return "at " + at.Local().Format(time.DateTime) + " (in the future: the clock was set)"
	case d < time.Second:
		return "just now"
	}
	return span(d) + " ago"
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func spaced(s string) string { return cli.Printable(strings.ReplaceAll(s, "_", " ")) }

// because is the cause behind a statement.
func because(cause string) string {
	if cause == "" {
		return ""
	}
	return ": " + spaced(cause)
}

// plural is the word for n of them.
func plural(n uint64, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func counted[T int | uint64](n T, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d %s", n, what)
}

func seconds(s float64) string { return decimal(s) + " s" }

// decimal is a number with one decimal, if it is not 0.
func decimal(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") }
