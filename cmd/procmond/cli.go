package main

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
)

// commandLine is the grammar. The flags of run come from the settings table.
type commandLine struct {
	Run        runCommand        `cmd:"" default:"withargs" help:"Watch this host. This is what procmond does when no command is given."`
	State      stateCommand      `cmd:"" help:"Say what state the daemon is in and why, running or not."`
	Events     eventsCommand     `cmd:"" help:"Print recorded events, oldest first."`
	Tree       treeCommand       `cmd:"" help:"Print the process tree, as it is or as it was."`
	Doctor     doctorCommand     `cmd:"" help:"Say what this host allows, what is missing, and what mends it."`
	Store      storeCommands     `cmd:"" help:"Look into the database."`
	Service    serviceCommands   `cmd:"" help:"Run procmond as a service of the system."`
	Completion completionCommand `cmd:"" help:"Print a completion script for a shell."`
	Version    versionCommand    `cmd:"" help:"Print the version."`

	VersionFlag bool `name:"version" help:"Print the version, like the command."`
}

type storeCommands struct {
	Verify verifyCommand `cmd:"" help:"Check the whole database: checksums, sequences, every record."`
	Stats  statsCommand  `cmd:"" help:"Print what the database holds."`
}

type serviceCommands struct {
	Print servicePrintCommand `cmd:"" help:"Print a systemd unit or a launchd property list."`
}

// runnable is what every leaf of the grammar is.
type runnable interface {
	run(ctx context.Context, p invocation) error
}

// clientFlags say which daemon or database a client command is about.
type clientFlags struct {
	Database *string `placeholder:"PATH" help:"Directory of the store. Default: as for run; all default places are tried."`
	Config   *string `placeholder:"FILE" help:"Configuration file, of which only the database is used."`
}

// runFlags receive the values of the settings, as text, in fields that are made
// from the table.
func runFlags() reflect.Value {
	fields := []reflect.StructField{{
		Name: "Config", Type: reflect.TypeFor[[]string](),
		Tag: flagTag("config", "FILE", "Configuration file (YAML). Default: "+settings.DefaultFile+" if it is there."),
	}}
	for i, s := range settings.Table() {
		help := s.Help
		if s.Switch {
			help += " --" + s.Name + "=false is off."
		} else if len(s.Choices) > 0 {
			help += " One of " + strings.Join(s.Choices, ", ") + "."
		} else if s.Limits != "a path" {
			help += " Accepts " + s.Limits + "."
		}
		if s.Default != "" {
			help += " Default: " + s.Default + "."
		}
		if s.Many {
			help += " Repeatable."
		}
		kind := reflect.TypeFor[[]string]()
		if s.Switch {
			kind = reflect.TypeFor[switchValue]()
		}
		fields = append(fields, reflect.StructField{
			Name: "Setting" + strconv.Itoa(i), Type: kind, Tag: flagTag(s.Name, s.Placeholder, help),
		})
	}
	return reflect.New(reflect.StructOf(fields))
}

// switchValue is a flag that is true without a value. What it is given with one is
// checked with the other settings.
type switchValue struct{ texts []string }

// IsBool tells kong that the value may be left out.
func (*switchValue) IsBool() bool { return true }

// Decode is called by kong.
func (v *switchValue) Decode(ctx *kong.DecodeContext) error {
	text := "true"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		text = ctx.Scan.Pop().String()
	}
	v.texts = append(v.texts, text)
	return nil
}

// flagTexts are what a field of runFlags was given.
func flagTexts(field reflect.Value) []string {
	switch given := field.Interface().(type) {
	case []string:
		return given
	case switchValue:
		return given.texts
	}
	return nil
}

// flagTag tells kong about a flag. Its values are kept whole, and dollars in its
// help are no variables.
func flagTag(name, placeholder, help string) reflect.StructTag {
	help = strings.ReplaceAll(help, "$", "$$")
	return reflect.StructTag(fmt.Sprintf(`name:%q placeholder:%q help:%q sep:"none"`, name, placeholder, help))
}

// flagValues is the reverse of runFlags.
func flagValues(flags reflect.Value) (config *string, values map[string][]string) {
	flags = flags.Elem()
	if given, ok := flags.Field(0).Interface().([]string); ok && len(given) > 0 {
		config = &given[len(given)-1]
	}
	values = make(map[string][]string)
	for i, s := range settings.Table() {
		if given := flagTexts(flags.Field(i + 1)); len(given) > 0 {
			values[s.Name] = given
		}
	}
	return config, values
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
		kong.Name("procmond"),
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

const description = `Records every process of this host in a crash-safe store.

Examples:
  procmond                              watch this host (Ctrl-C stops in order)
  procmond state                        how is it, and why?
  procmond doctor                       what does this host allow, and what is missing?
  procmond events --since 10m           what happened in the last ten minutes
  procmond events --kind exec --follow  what happens, as it happens
  procmond tree --at 2h                 which processes lived two hours ago
  procmond service print --systemd      a unit to run it as a service`

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
		return nil, ps.withSettings(p, append(faults, ps.faultsOf(kctx)...))
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
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("no command")}
	}
	command, ok := node.Target.Addr().Interface().(runnable)
	if !ok {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s is not a command", node.FullPath())}
	}
	if command == runnable(&ps.line.Run) {
		ps.line.Run.config, ps.line.Run.values = flagValues(ps.flags)
	}
	return command, nil
}

// faultsOf is what the command that was asked for finds wrong with the rest of its
// flags.
func (ps *parser) faultsOf(kctx *kong.Context) settings.Faults {
	var faults settings.Faults
	command, _ := ps.selected(kctx) // that there is none is said elsewhere
	checked, ok := command.(interface{ check() error })
	if !ok {
		return nil
	}
	if err := checked.check(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			origin, what, _ := strings.Cut(line, ": ")
			faults = append(faults, settings.Fault{Origin: origin, What: what, Usage: true})
		}
	}
	return faults
}

// withSettings adds what is wrong with the settings: whoever mends a command
// line wants to know all of it.
func (ps *parser) withSettings(p invocation, faults settings.Faults) error {
	config, values := flagValues(ps.flags)
	if config == nil && len(values) == 0 {
		return faults
	}
	_, more, _ := settings.Resolve(settings.Input{
		Flags: values, Environ: p.environ, ConfigFlag: config, DefaultFile: settings.DefaultFile,
	})
	return append(faults, more...)
}
