package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"daemoneye.dev/procmond/cmd/internal/cli"

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
	if text := errorText(err); text != "" && !cli.ReaderLeft(err) {
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

// colours reports whether f may be coloured: https://no-color.org.
func (p invocation) colours(f *os.File) bool {
	return cli.IsTerminal(f) && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb"
}

// note says something beside the answer, on standard error.
func (p invocation) note(text string) {
	_, _ = io.WriteString(p.stderr, "procmond: "+cli.Printable(text)+"\n") // nowhere else to say it
}
