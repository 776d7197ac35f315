package main

import (
	"fmt"
	"strings"

	"daemoneye.dev/procmond/bus/agent/operator"
	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/collect/event"
)

// eventLines writes events for people.
type eventLines struct {
	paint cli.Painter
	width int // columns of the terminal, 0 is no limit
}

const timeFormat = "2006-01-02 15:04:05.000"

func (l eventLines) header() string {
	return l.paint.Bold(fmt.Sprintf("%-*s %-12s %-6s %7s %7s %5s %s", len(timeFormat), "TIME", "COLLECTOR", "KIND", "PID", "PPID", "UID", "WHAT")) + "\n"
}

// line is one event on one line.
func (l eventLines) line(m *operator.Message) string {
	e := &m.Event
	kind := fmt.Sprintf("%-6s", e.Kind)
	pid, ppid, uid := "-", "-", "-"
	if e.Kind.OfProcess() {
		pid, ppid = fmt.Sprint(e.Process.PID), fmt.Sprint(e.Process.PPID)
		if !e.Process.Missing.Absent().Has(event.FieldUID) {
			uid = fmt.Sprint(e.Process.UID)
		}
	}
	columns := fmt.Sprintf(" %7s %7s %5s ", pid, ppid, uid)
	rest := 0
	if l.width > 0 {
		rest = max(20, l.width-len(timeFormat)-len(kind)-len(columns)-14)
	}
	what := cli.Shorten(whatHappened(e), rest)
	return l.paint.Faint(e.Time.Local().Format(timeFormat)) + " " + fmt.Sprintf("%-12s", m.ID) + " " + l.kind(kind) + columns + what + "\n"
}

func (l eventLines) kind(k string) string {
	switch strings.TrimSpace(k) {
	case "start":
		return l.paint.Green(k)
	case "exec":
		return l.paint.Cyan(k)
	case "modify":
		return l.paint.Yellow(k)
	case "stop":
		return l.paint.Blue(k)
	case "loss":
		return l.paint.Red(k)
	}
	return l.paint.Faint(k)
}

// whatHappened says in a line what happened. Text of the host is made printable.
func whatHappened(e *event.Event) string {
	var b strings.Builder
	switch {
	case e.Loss != nil:
		b.WriteString(e.Loss.Cause.String())
		if e.Loss.Known {
			fmt.Fprintf(&b, ": %d lost", e.Loss.Count)
		}
		if e.Loss.Hint != "" {
			b.WriteString(": " + event.Text(e.Loss.Hint))
		}
		return b.String()
	case e.Sensor != nil:
		return e.Sensor.What.String() + reason(e.Sensor.Detail)
	}
	b.WriteString(command(&e.Process))
	if x := e.Exit; x != nil && x.Signal != 0 {
		fmt.Fprintf(&b, " (signal %d)", x.Signal)
	} else if x != nil {
		fmt.Fprintf(&b, " (exit %d)", x.Code)
	} else if e.Cause != "" {
		b.WriteString(" (" + event.Text(e.Cause) + ")")
	}
	for _, c := range e.Changes {
		fmt.Fprintf(&b, " [%s: %s -> %s]", c.Field, cli.Shorten(event.Text(c.Old), 40), cli.Shorten(event.Text(c.New), 40))
	}
	if e.Source == event.SourceRecovered {
		b.WriteString(" (recovered)")
	}
	return b.String()
}

// command is the executable with the arguments behind the first. Brackets are around
// the name of what has neither: a thread of the kernel, as in ps(1).
func command(p *event.Process) string {
	var words []string
	if p.Exe != "" {
		words = append(words, p.Exe)
		words = append(words, p.Args[min(1, len(p.Args)):]...)
	} else {
		words = p.Args
	}
	switch {
	case len(words) > 0:
		return event.Text(strings.Join(words, " "))
	case p.Missing.Absent().Has(event.FieldExe):
		return event.Text(p.Name)
	}
	return "[" + event.Text(p.Name) + "]"
}
