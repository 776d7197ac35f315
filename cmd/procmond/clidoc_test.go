package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestGeneratedCommands makes docs/cli.md: what is said and shown of a command is in
// testdata/cli, its flags are the grammar's.
func TestGeneratedCommands(t *testing.T) {
	ps, err := newParser(invocation{stdout: os.Stdout, stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Commands\n\n<!-- Made from the grammar and cmd/procmond/testdata/cli; `just generate` makes it again. -->\n\n")
	b.WriteString("Without a command procmond does `run`. How each of them ends is in [exit-codes.md](exit-codes.md). Every command takes:\n\n")
	b.WriteString(flagTable(ps.kong.Model.Flags))
	for _, leaf := range ps.kong.Model.Leaves(true) {
		b.WriteString("\n" + commandSection(t, leaf))
	}
	checkGenerated(t, "cli.md", b.String())
}

func commandSection(t *testing.T, leaf *kong.Node) string {
	t.Helper()
	name := strings.TrimPrefix(leaf.Path(), "procmond ")
	text, err := os.ReadFile(filepath.Join("testdata", "cli", strings.ReplaceAll(name, " ", "-")+".md"))
	if err != nil {
		t.Fatal(err)
	}
	section := fmt.Sprintf("## %s\n\n%s\n\n", name, leaf.Help)
	for _, arg := range leaf.Positional {
		section += fmt.Sprintf("`%s` is %s\n\n", arg.Summary(), arg.Help)
	}
	if table := flagTable(leaf.Flags); table != "" {
		section += table + "\n"
	}
	return section + string(text)
}

// flagTable is empty if there are no flags.
func flagTable(flags []*kong.Flag) string {
	var rows strings.Builder
	for _, flag := range flags {
		if flag.Hidden {
			continue
		}
		form := "--" + flag.Name
		if !flag.IsBool() {
			form += "=" + flag.FormatPlaceHolder()
		}
		form = "`" + form + "`"
		if flag.Short != 0 {
			form = "`-" + string(flag.Short) + "`, " + form
		}
		fmt.Fprintf(&rows, "| %s | %s |\n", form, strings.ReplaceAll(flag.Help, "|", `\|`))
	}
	if rows.Len() == 0 {
		return ""
	}
	return "| flag | meaning |\n|---|---|\n" + rows.String()
}
