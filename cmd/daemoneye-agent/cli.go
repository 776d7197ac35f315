package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"daemoneye.dev/procmond/cmd/internal/cli"
)

// commandLine is the grammar. The flags of run come from the settings table.
type commandLine struct {
	Run        runCommand        `cmd:"" default:"withargs" help:"Run the agent. This is what it does when no command is given."`
	Status     statusCommand     `cmd:"" help:"Say what state the agent is in and why."`
	Collectors collectorsCommand `cmd:"" help:"List the collectors and how they are."`
	Health     healthCommand     `cmd:"" help:"Ask a collector how it is."`
	Config     configCommand     `cmd:"" help:"Change the configuration of a collector: all values or none."`
	Interval   intervalCommand   `cmd:"" help:"Change the time between the snapshots of a collector."`
	Begin      beginCommand      `cmd:"" help:"Have a collector begin now, whether all are ready or not."`
	Shutdown   shutdownCommand   `cmd:"" help:"Have a collector stop in order, and do not start it again."`
	Events     eventsCommand     `cmd:"" help:"Print the events that were delivered, oldest first."`
	Enroll     enrollCommand     `cmd:"" help:"Make the secret of a collector, or of a reader of events."`
	Completion completionCommand `cmd:"" help:"Print a completion script for a shell."`
	Version    versionCommand    `cmd:"" help:"Print the version."`

	VersionFlag bool `name:"version" help:"Print the version, like the command."`
}

// runnable is what every leaf of the grammar is.
type runnable interface {
	run(ctx context.Context, p invocation) error
}

// runFlags receive the values of the settings, as text, in fields that are made from
// the table.
func runFlags() reflect.Value {
	var fields []reflect.StructField
	for i, s := range settings() {
		fields = append(fields, reflect.StructField{
			Name: "Setting" + strconv.Itoa(i), Type: reflect.TypeFor[[]string](), Tag: s.tag(),
		})
	}
	return reflect.New(reflect.StructOf(fields))
}

// flagValues is the reverse of runFlags.
func flagValues(flags reflect.Value) map[string][]string {
	flags = flags.Elem()
	values := make(map[string][]string)
	for i, s := range settings() {
		if given, ok := flags.Field(i).Interface().([]string); ok && len(given) > 0 {
			values[s.name] = given
		}
	}
	return values
}

// parser is kong with our grammar. exited reports whether kong has printed what
// was asked for (--help) and wanted to end the process.
type parser struct {
	kong   *kong.Kong
	line   *commandLine
	flags  reflect.Value
	exited bool
}

func newParser(p invocation) (*parser, error) {
	ps := &parser{line: new(commandLine), flags: runFlags()}
	ps.line.Run.Plugins = kong.Plugins{ps.flags.Interface()}
	var err error
	ps.kong, err = kong.New(ps.line,
		kong.Name(program),
		kong.Description(description),
		kong.Writers(cli.AnswerWriter{Writer: p.stdout}, p.stderr),
		kong.Exit(func(int) { ps.exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100, NoExpandSubcommands: true, NoAppDescFormat: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("build command line: %w", err)
	}
	return ps, nil
}

const description = `Coordinates the collectors of this host and takes their events.

Examples:
  daemoneye-agent run --collector /usr/bin/procmond   run the agent and a collector
  daemoneye-agent status                              how is it, and why?
  daemoneye-agent collectors                          and its collectors?
  daemoneye-agent events --follow                     what is delivered, as it comes
  daemoneye-agent config procmond log_level=debug     change a collector that runs`

// parse returns the command to run, or nil if help was asked for and printed. An
// error names everything that is wrong with the command line.
func parse(p invocation) (runnable, error) {
	first, err := newParser(p)
	if err != nil {
		return nil, err
	}
	ps := first
	kctx, faults, err := cli.Parse(p.args, cli.Commands(first.kong.Model), func(args []string) (*kong.Context, error) {
		if ps, err = newParser(p); err != nil {
			return nil, err
		}
		return ps.kong.Parse(args)
	})
	switch {
	case ps.exited:
		return nil, nil
	case err != nil:
		return nil, err
	case len(faults) == 0:
		return ps.selected(kctx)
	case kctx != nil:
		return nil, ps.withSettings(p, kctx, faults)
	}
	return nil, faults
}

// selected is the leaf that was asked for.
func (ps *parser) selected(kctx *kong.Context) (runnable, error) {
	if ps.line.VersionFlag {
		return &ps.line.Version, nil
	}
	node := kctx.Selected()
	if node == nil || !node.Target.CanAddr() {
		return nil, &exitError{code: exitUsage, err: errors.New("no command")}
	}
	command, ok := node.Target.Addr().Interface().(runnable)
	if !ok {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s is not a command", node.FullPath())}
	}
	if command == runnable(&ps.line.Run) {
		ps.line.Run.values = flagValues(ps.flags)
	}
	return command, nil
}

// withSettings adds what is wrong with the settings of run: whoever mends a command
// line wants to know all of it.
func (ps *parser) withSettings(p invocation, kctx *kong.Context, faults cli.Faults) error {
	command, err := ps.selected(kctx)
	if err != nil || command != runnable(&ps.line.Run) {
		return faults
	}
	_, more := resolve(ps.line.Run.values, p.environ)
	return append(faults, more...)
}

// completionCommand prints a script that is made from the grammar itself.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is what kong shows besides the flags.
func (completionCommand) Help() string {
	return `Examples:

  source <(daemoneye-agent completion bash)

  daemoneye-agent completion zsh > "${fpath[1]}/_daemoneye-agent"

  daemoneye-agent completion fish > ~/.config/fish/completions/daemoneye-agent.fish`
}

func (c *completionCommand) run(_ context.Context, p invocation) error {
	ps, err := newParser(p)
	if err != nil {
		return err
	}
	return cli.Write(p.stdout, cli.Completion(c.Shell, ps.kong.Model, settingChoices))
}

// flagTag tells kong about a flag. Its values are kept whole, and dollars in its
// help are no variables.
func flagTag(name, placeholder, help string) reflect.StructTag {
	help = strings.ReplaceAll(help, "$", "$$")
	return reflect.StructTag(fmt.Sprintf(`name:%q placeholder:%q help:%q sep:"none"`, name, placeholder, help))
}
