package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
)

//go:generate go test -run ^TestGenerated . -update

// exitOf is the exit code in an error of os/exec, "-1" after a signal.
func exitOf(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err.Error()
	}
	return fmt.Sprint(exit.ExitCode())
}

func TestExitCodes(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("open store: %w", err) }
	for _, c := range []struct {
		err  error
		want exitCode
	}{
		{nil, exitOK},
		{wrap(cli.Written(syscall.EPIPE)), exitOK},
		{wrap(syscall.EPIPE), exitDegraded}, // not of standard output
		{wrap(control.ErrBusy), exitBusy},
		{wrap(control.ErrImpostor), exitPermission},
		{exitSilently(exitNotRunning), exitNotRunning},
		{settings.Faults{{Origin: "file x:1"}}, exitConfiguration},
		{settings.Faults{{Origin: "file x:1"}, {Origin: "flag --x", Usage: true}}, exitUsage},
		{wrap(&store.LockedError{Dir: "x", PID: 1}), exitInUse},
		{wrap(store.ErrNotStore), exitNotStore},
		{wrap(store.ErrNewerFormat), exitNewerFormat},
		{wrap(store.ErrPermission), exitPermission},
		{wrap(fs.ErrPermission), exitPermission},
		{wrap(control.ErrForbidden), exitPermission},
		{wrap(store.ErrUnavailable), exitStorage},
		{wrap(&exitError{code: exitStorage, err: store.ErrClosed}), exitStorage},
		{errors.New("anything else"), exitDegraded},
	} {
		if got := exitCodeOf(c.err); got != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, got, c.want)
		}
	}
	if got, want := finalCodes(), "64 65 76 77 78"; got != want {
		t.Errorf("codes that are final: %s, want %s", got, want)
	}
}

// TestInUseHint: what to type must reach the daemon that has the database.
func TestInUseHint(t *testing.T) {
	p := invocation{environ: []string{"HOME=/h"}}
	for dir, want := range map[string]string{
		"/tmp/p.db":                              "`procmond state --database /tmp/p.db`",
		"/tmp/it's mine":                         "`procmond state --database '/tmp/it'\\''s mine'`",
		"/var/lib/daemoneye/processes.db":        "`procmond state`",
		"/h/.local/state/daemoneye/processes.db": "`procmond state`",
	} {
		err := p.pointOut(fmt.Errorf("open: %w", &store.LockedError{Dir: dir}))
		if text := errorText(err); exitCodeOf(err) != exitInUse || !strings.Contains(text, "Ask it with "+want) {
			t.Errorf("%s: exit %d: %s", dir, exitCodeOf(err), text)
		}
	}
	if p.pointOut(nil) != nil {
		t.Error("success has become an error")
	}
}

func TestErrorTextIsHarmless(t *testing.T) {
	text := errorText(fmt.Errorf("open %s: not\x1b[2Jthere\nand more", "a\\b"))
	want := "procmond: open a\\b: not\\x1b[2Jthere\nprocmond: and more\n"
	if text != want {
		t.Errorf("got %q, want %q", text, want)
	}
}

func TestGeneratedDocs(t *testing.T) {
	checkGenerated(t, "exit-codes.md", exitCodesMarkdown())
	checkGenerated(t, "configuration.md", settings.Markdown())
}

func exitCodesMarkdown() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\n<!-- Made from the table in cmd/procmond/exit.go; `just generate` makes it again. -->\n\n")
	b.WriteString("An error is one line that says what, why and, below it, what to do; a wrong command line or configuration has a line for each fault, the first 20 if there are more.\n\n")
	b.WriteString("| code | name | meaning | the service manager |\n|---|---|---|---|\n")
	for _, m := range exitMeanings() {
		again := "starts it again"
		switch {
		case m.code == exitOK:
			again = "is content"
		case m.final:
			again = "leaves it: starting again can not help"
		case m.code <= exitNotRunning:
			again = ""
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", m.code, m.name, m.means, again)
	}
	b.WriteString("\nA reader that goes away (`procmond events | head`) is no error.\n")
	return b.String()
}
