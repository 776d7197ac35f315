package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"

	"daemoneye.dev/procmond/collect/event"
)

// Printable makes a line of ours, which may repeat hostile text, harmless. It
// leaves backslashes alone: they are there for a reason.
func Printable(s string) string {
	parts := strings.Split(s, `\`)
	for i := range parts {
		parts[i] = event.Text(parts[i])
	}
	return strings.Join(parts, `\`)
}

// Shorten cuts s to so many characters; 0 is no limit.
func Shorten(s string, most int) string {
	if most == 0 || utf8.RuneCountInString(s) <= most {
		return s
	}
	for i := range s {
		if most--; most == 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// Bytes is a size in the unit that suits it.
func Bytes(n uint64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// IsTerminal reports whether a person sees what is written to f.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Width is the number of columns of f, 0 if it has no end.
func Width(f *os.File) int {
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// Write prints a whole answer.
func Write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return Written(err)
}

// OutputError is a failed write of an answer. No other broken pipe is the reader's.
type OutputError struct{ err error }

func (e *OutputError) Error() string { return "write answer: " + e.err.Error() }
func (e *OutputError) Unwrap() error { return e.err }

// Written marks an error of writing to standard output.
func Written(err error) error {
	if err == nil {
		return nil
	}
	return &OutputError{err}
}

// AnswerWriter marks the errors of standard output.
type AnswerWriter struct{ io.Writer }

func (w AnswerWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, Written(err)
}

// ReaderLeft reports whether a command ended because nobody reads its output any
// more, as in `daemoneye-agent events | head`.
func ReaderLeft(err error) bool {
	var output *OutputError
	return errors.As(err, &output) && errors.Is(output, syscall.EPIPE)
}
