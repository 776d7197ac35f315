package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
)

// newLogger makes the daemon's log on standard error, and the queue that it goes
// through.
func (p invocation) newLogger(v *settings.Values) (*logrus.Logger, *lineQueue) {
	logger := logrus.New()
	formatter := p.logFormatter(v, p.stderr)
	queue := newLineQueue(p.stderr, logLines, missingLogLines(formatter))
	logger.SetOutput(queue)
	logger.SetLevel(v.LogLevel)
	logger.SetFormatter(formatter)
	return logger, queue
}

// missingLogLines returns what makes the line that stands for lost ones. The
// formatter keeps no state, so it may be used beside the logger.
func missingLogLines(f logrus.Formatter) func(lines uint64) []byte {
	return func(lines uint64) []byte {
		line, err := f.Format(&logrus.Entry{
			Time: time.Now(), Level: logrus.WarnLevel, Data: logrus.Fields{"lines": lines},
			Message: "Lines are missing here: nobody took them in time",
		})
		if err != nil {
			return nil
		}
		return line
	}
}

func (p invocation) logFormatter(v *settings.Values, out *os.File) logrus.Formatter {
	if v.LogFormat == "json" || v.LogFormat == "auto" && !isTerminal(out) {
		return &logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00"}
	}
	return &lineFormatter{paint: painter(p.colours(out))}
}

// lineFormatter is a log for people: time, level, message, fields. Whatever is
// in a message or a field stays on its line and does nothing to the terminal.
type lineFormatter struct {
	paint painter
}

// Format is called with the logger's lock held.
func (f *lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(f.paint.faint(e.Time.Format("15:04:05.000")))
	b.WriteString(" ")
	b.WriteString(f.level(e.Level))
	b.WriteString(" ")
	b.WriteString(flatten(e.Message))
	keys := make([]string, 0, len(e.Data))
	for key := range e.Data {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		value := flatten(fmt.Sprint(e.Data[key]))
		if strings.ContainsAny(value, " \"") {
			value = `"` + strings.ReplaceAll(value, `"`, `\"`) + `"`
		}
		b.WriteString(" " + f.paint.faint(flatten(key)+"="+value))
	}
	b.WriteString("\n")
	return b.Bytes(), nil
}

func (f *lineFormatter) level(l logrus.Level) string {
	name := fmt.Sprintf("%-5.5s", strings.ToUpper(l.String()))
	switch {
	case l <= logrus.ErrorLevel:
		return f.paint.red(name)
	case l == logrus.WarnLevel:
		return f.paint.yellow("WARN ")
	}
	return name
}

// flatten keeps text on one line and printable.
func flatten(s string) string {
	return printable(strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", " | "))
}

// painter colours text if it is true.
type painter bool

func (p painter) sgr(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p painter) faint(s string) string  { return p.sgr("2", s) }
func (p painter) bold(s string) string   { return p.sgr("1", s) }
func (p painter) red(s string) string    { return p.sgr("31", s) }
func (p painter) green(s string) string  { return p.sgr("32", s) }
func (p painter) yellow(s string) string { return p.sgr("33", s) }
func (p painter) blue(s string) string   { return p.sgr("34", s) }
func (p painter) cyan(s string) string   { return p.sgr("36", s) }
