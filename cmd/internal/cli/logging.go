package cli

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// Formats of a log.
const (
	FormatAuto = "auto" // text on a terminal, else JSON
	FormatText = "text"
	FormatJSON = "json"
)

// logLines is how many lines of a log may wait for a terminal or a pipe that does not
// take them.
const logLines = 1024

// NewLogger makes a log on a file, and the queue that it goes through, which the
// caller closes.
func NewLogger(out *os.File, format string, level logrus.Level, colours bool) (*logrus.Logger, *LineQueue) {
	var formatter logrus.Formatter = &lineFormatter{paint: Painter(colours)}
	if format == FormatJSON || format == FormatAuto && !IsTerminal(out) {
		formatter = &logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00"}
	}
	logger := logrus.New()
	queue := NewLineQueue(out, logLines, missingLogLines(formatter))
	logger.SetOutput(queue)
	logger.SetLevel(level)
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

// lineFormatter is a log for people: time, level, message, fields. Whatever is
// in a message or a field stays on its line and does nothing to the terminal.
type lineFormatter struct {
	paint Painter
}

// Format is called with the logger's lock held.
func (f *lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(f.paint.Faint(e.Time.Format("15:04:05.000")))
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
		b.WriteString(" " + f.paint.Faint(flatten(key)+"="+value))
	}
	b.WriteString("\n")
	return b.Bytes(), nil
}

func (f *lineFormatter) level(l logrus.Level) string {
	name := fmt.Sprintf("%-5.5s", strings.ToUpper(l.String()))
	switch {
	case l <= logrus.ErrorLevel:
		return f.paint.Red(name)
	case l == logrus.WarnLevel:
		return f.paint.Yellow("WARN ")
	}
	return name
}

// flatten keeps text on one line and printable.
func flatten(s string) string {
	return Printable(strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", " | "))
}

// Painter colours text if it is true.
type Painter bool

func (p Painter) sgr(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Faint text.
func (p Painter) Faint(s string) string { return p.sgr("2", s) }

// Bold text.
func (p Painter) Bold(s string) string { return p.sgr("1", s) }

// Red text.
func (p Painter) Red(s string) string { return p.sgr("31", s) }

// Green text.
func (p Painter) Green(s string) string { return p.sgr("32", s) }

// Yellow text.
func (p Painter) Yellow(s string) string { return p.sgr("33", s) }

// Blue text.
func (p Painter) Blue(s string) string { return p.sgr("34", s) }

// Cyan text.
func (p Painter) Cyan(s string) string { return p.sgr("36", s) }
