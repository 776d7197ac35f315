package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"daemoneye.dev/procmond/collect"
)

func main() {
	os.Exit(int(invocation{
		args: os.Args[1:], environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr,
	}.main()))
}

// invocation is one invocation with everything that it sees of the outside.
type invocation struct {
	args           []string
	environ        []string
	stdout, stderr *os.File
	// scanner is where snapshots come from; nil is this host.
	scanner func() (collect.Scanner, error)
}

// main runs the command and prints what is wrong, a line for each fault.
func (p invocation) main() exitCode {
	// A reader that has gone (`procmond events | head`) is an error of a write
	// here, and no reason to die by a signal.
	signal.Ignore(syscall.SIGPIPE)
	ctx := context.Background()
	inv, err := parse(p)
	if err == nil {
		if inv == nil { // help was printed
			return exitOK
		}
		err = p.pointOut(inv.run(ctx, p))
	}
	code := exitCodeOf(err)
	if text := errorText(err); text != "" && !readerLeft(err) {
		_, _ = io.WriteString(p.stderr, text) // nowhere else to say it
	}
	return code
}

// getenv is os.Getenv on the program's own environment.
func (p invocation) getenv(name string) string {
	for i := len(p.environ) - 1; i >= 0; i-- {
		if e := p.environ[i]; len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:]
		}
	}
	return ""
}

// isTerminal reports whether a person sees what is written to f.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// colours reports whether f may be coloured: https://no-color.org.
func (p invocation) colours(f *os.File) bool {
	return isTerminal(f) && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb"
}

// width is the number of columns of f, 0 if it has no end.
func width(f *os.File) int {
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// write prints a whole answer.
func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return written(err)
}

// outputError is a failed write of an answer. No other broken pipe is the reader's.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write answer: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// written marks an error of writing to standard output.
func written(err error) error {
	if err == nil {
		return nil
	}
	return &outputError{err}
}

// answerWriter marks the errors of standard output.
type answerWriter struct{ io.Writer }

func (w answerWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, written(err)
}

// readerLeft reports whether a command ended because nobody reads its output any
// more, as in `procmond events | head`.
func readerLeft(err error) bool {
	var output *outputError
	return errors.As(err, &output) && errors.Is(output, syscall.EPIPE)
}

// note says something beside the answer, on standard error.
func (p invocation) note(text string) {
	_, _ = io.WriteString(p.stderr, "procmond: "+printable(text)+"\n") // nowhere else to say it
}
