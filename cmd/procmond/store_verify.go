package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/store"
)

// verifyCommand checks a whole database.
type verifyCommand struct {
	clientFlags
}

// Help is what kong shows besides the flags.
func (verifyCommand) Help() string {
	return `Reads a copy (by hard links) of the database and changes nothing. Exit code 0: nothing is wrong; 1: the database
is damaged, and every problem is named; 73: a running daemon has it, stop that first.`
}

func (c *verifyCommand) run(ctx context.Context, p invocation) error {
	place, err := p.database(&c.clientFlags)
	if err != nil {
		return err
	}
	progress := p.progress("verified %d of %d")
	v, err := store.Verify(ctx, place, progress.show)
	progress.clear()
	if err != nil {
		return err
	}
	if err := cli.Write(p.stdout, verifyText(place, v, cli.Painter(p.colours(p.stdout)))); err != nil {
		return err
	}
	if !v.OK() {
		return exitSilently(exitDegraded)
	}
	return nil
}

func verifyText(place string, v *store.Verification, paint cli.Painter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d events, sequences %d to %d\n", cli.Printable(event.Text(place)), v.Events, v.FirstSeq, v.LastSeq)
	fmt.Fprintf(&b, "%d in the table of processes, %d in the journal of transitions\n", v.Processes, v.Transitions)
	for _, problem := range v.Problems {
		fmt.Fprintf(&b, "%s %s\n", paint.Red("problem:"), cli.Printable(problem.String()))
	}
	if v.More > 0 {
		fmt.Fprintf(&b, "and %d problems more\n", v.More)
	}
	if v.OK() {
		b.WriteString(paint.Green("Nothing is wrong.") + "\n")
	} else {
		fmt.Fprintf(&b, "%s Where the daemon needs what is damaged, it sets the database aside and begins a new one.\n", paint.Red("The database is damaged."))
	}
	return b.String()
}

// database is the one place that a command for stores is about.
func (p invocation) database(f *clientFlags) (string, error) {
	places, err := p.clientDatabases(f)
	if err != nil {
		return "", err
	}
	place, _, err := existing(places)
	return place, err
}

// progressLine is a line on standard error that overwrites itself; without a
// terminal it is silent.
type progressLine struct {
	p     invocation
	text  string // with room for how much is done, and of how much
	on    bool
	shown time.Time
}

func (p invocation) progress(text string) *progressLine {
	return &progressLine{p: p, text: text, on: cli.IsTerminal(p.stderr)}
}

func (l *progressLine) show(done, total uint64) {
	const every = 100 * time.Millisecond
	if !l.on || time.Since(l.shown) < every {
		return
	}
	l.shown = time.Now()
	_, _ = fmt.Fprintf(l.p.stderr, "\r\x1b[K"+l.text, done, max(done, total)) // only decoration
}

func (l *progressLine) clear() {
	if l.on && !l.shown.IsZero() {
		_, _ = fmt.Fprint(l.p.stderr, "\r\x1b[K") // only decoration
	}
}
