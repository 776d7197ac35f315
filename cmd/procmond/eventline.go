package main

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"
)

// eventRow is what a line for people shows of an event: it is read from the JSON
// form, whose text is printable already.
type eventRow struct {
	Seq      uint64            `json:"seq"`
	Kind     string            `json:"kind"`
	Source   string            `json:"source"`
	Time     time.Time         `json:"time"`
	Cause    string            `json:"cause"`
	PID      *int32            `json:"pid"`
	PPID     *int32            `json:"ppid"`
	UID      *uint32           `json:"uid"`
	Name     string            `json:"name"`
	Exe      string            `json:"exe"`
	Args     []string          `json:"args"`
	ExitCode *int32            `json:"exit_code"`
	Signal   int32             `json:"signal"`
	Missing  map[string]string `json:"missing"`
	Changes  []struct {
		Field string `json:"field"`
		Old   string `json:"old"`
		New   string `json:"new"`
	} `json:"changes"`
	Loss *struct {
		Cause string  `json:"cause"`
		Count *uint64 `json:"count"`
		Hint  string  `json:"hint"`
	} `json:"loss"`
	Sensor *struct {
		What   string `json:"what"`
		Detail string `json:"detail"`
	} `json:"sensor"`
}

// eventLines writes events for people.
type eventLines struct {
	paint cli.Painter
	width int  // columns of the terminal, 0 is no limit
	date  bool // the day too, not only the time
	// now is what times without a day are read against; zero is no matter.
	now time.Time
}

const (
	clockFormat   = "15:04:05.000"
	longAgoFormat = "Jan _2 15:04" // as long
	dayFormat     = "2006-01-02 15:04:05.000"
)

// header names the columns.
func (l eventLines) header() string {
	layout := clockFormat
	if l.date {
		layout = dayFormat
	}
	return l.paint.Bold(fmt.Sprintf("%-*s %-6s %7s %7s %5s %s", len(layout), "TIME", "KIND", "PID", "PPID", "UID", "WHAT")) + "\n"
}

// line is one event on one line.
func (l eventLines) line(encoded []byte) (string, error) {
	var e eventRow
	if err := json.Unmarshal(encoded, &e); err != nil {
		return "", fmt.Errorf("decode event: %w", err)
	}
	layout := l.layout(e.Time)
	kind := fmt.Sprintf("%-6s", cli.Printable(e.Kind))
	columns := fmt.Sprintf(" %7s %7s %5s ", number(e.PID), number(e.PPID), number(e.UID))
	rest := 0
	if l.width > 0 {
		rest = max(20, l.width-len(layout)-1-len(kind)-len(columns))
	}
	what := cli.Shorten(cli.Printable(e.what()), rest)
	return l.paint.Faint(e.Time.Local().Format(layout)) + " " + l.kind(kind) + columns + what + "\n", nil
}

// layout is how a time is written. Where the day is left out and the time is not
// of the last hours (the start of an old process), the day is what matters, as in
// ls(1).
func (l eventLines) layout(at time.Time) string {
	switch {
	case l.date:
		return dayFormat
	case !l.now.IsZero() && l.now.Sub(at).Abs() > 12*time.Hour:
		return longAgoFormat
	}
	return clockFormat
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

// what says in a line what happened.
func (e *eventRow) what() string {
	switch {
	case e.Loss != nil:
		return e.lossText()
	case e.Sensor != nil:
		if e.Sensor.Detail == "" {
			return e.Sensor.What
		}
		return e.Sensor.What + ": " + e.Sensor.Detail
	}
	text := e.command()
	switch e.Kind {
	case "stop":
		text += e.end()
	case "modify", "exec":
		for _, c := range e.Changes {
			text += fmt.Sprintf(" [%s: %s -> %s]", c.Field, cli.Shorten(c.Old, 40), cli.Shorten(c.New, 40))
		}
	}
	if e.Source == "recovered" {
		text += " (recovered)"
	}
	return text
}

func (e *eventRow) lossText() string {
	text := e.Loss.Cause
	if e.Loss.Count != nil {
		text += fmt.Sprintf(": %d lost", *e.Loss.Count)
	}
	if e.Loss.Hint != "" {
		text += ": " + e.Loss.Hint
	}
	return text
}

func (e *eventRow) end() string {
	switch {
	case e.Signal != 0:
		return fmt.Sprintf(" (signal %d)", e.Signal)
	case e.ExitCode != nil:
		return fmt.Sprintf(" (exit %d)", *e.ExitCode)
	case e.Cause != "":
		return " (" + e.Cause + ")"
	}
	return ""
}

// command is the executable with the arguments behind the first, which most
// often repeats it. Brackets are around the name of what has neither: a thread of
// the kernel, as in ps(1).
func (e *eventRow) command() string {
	args := strings.Join(e.Args, " ")
	_, unknown := e.Missing["exe"]
	switch {
	case e.Exe != "":
		return e.Exe + e.arguments()
	case args != "":
		return args
	case unknown:
		return e.Name
	}
	return "[" + e.Name + "]"
}

// arguments are those behind the first, and the first if the process calls itself
// by another name than that of its executable, or a short form of it.
func (e *eventRow) arguments() string {
	if len(e.Args) == 0 {
		return ""
	}
	self, rest := strings.TrimPrefix(path.Base(e.Args[0]), "-"), e.Args[1:]
	title := strings.Contains(e.Args[0], " ") // "nginx: master process /usr/sbin/nginx"
	if e.Args[0] == e.Exe || !title && strings.HasPrefix(path.Base(e.Exe), self) {
		if len(rest) == 0 {
			return ""
		}
		return " " + strings.Join(rest, " ")
	}
	return " as " + strings.Join(e.Args, " ")
}

func number[T int32 | uint32](n *T) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}
