package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// Fault is one thing that is wrong, with the place where it stands.
type Fault struct {
	Origin string // "flag --socket", "environment PROCMOND_INTERVAL", "file /etc/x.yaml:3: interval"
	What   string
	// Usage says that it is the command line that is wrong.
	Usage bool
	// Unread says that nothing of the file could be read: what it holds is not known.
	Unread bool
	Line   int // of the file, 0 elsewhere
}

func (f Fault) Error() string { return f.Origin + ": " + f.What }

// Faults is everything that is wrong; it is an error if there is any.
type Faults []Fault

// MostFaults are as many as a person mends before the next try. A file that is
// something else than a configuration may have a hundred thousand.
const MostFaults = 20

// Lines has a line for each of the first faults, and one that counts the others.
func (f Faults) Lines() []string {
	var lines []string
	for i := range f {
		if i == MostFaults {
			return append(lines, fmt.Sprintf("and %d more", len(f)-i))
		}
		lines = append(lines, f[i].Error())
	}
	return lines
}

func (f Faults) Error() string { return strings.Join(f.Lines(), "\n") }

// Usage reports whether one of the faults is the command line's.
func (f Faults) Usage() bool {
	return slices.ContainsFunc(f, func(fault Fault) bool { return fault.Usage })
}

// Parse reads a command line as often as it has faults, to name all of them. parse is
// one attempt, with a grammar of its own. The context is that of the last attempt, nil
// if not even that could be read.
func Parse(args []string, commands []string, parse func(args []string) (*kong.Context, error)) (*kong.Context, Faults, error) {
	var faults Faults
	for {
		kctx, err := parse(args)
		if output := new(OutputError); errors.As(err, &output) {
			return nil, nil, err
		}
		if err == nil {
			return kctx, faults, nil
		}
		fault, rest := usageFault(err, args, commands)
		faults = append(faults, fault)
		if rest == nil {
			return nil, faults, nil
		}
		args = rest
	}
}

// Commands are the names that an argument may be.
func Commands(app *kong.Application) []string {
	var names []string
	for _, node := range app.Leaves(false) {
		names = append(names, strings.Fields(node.Path())...)
	}
	return names
}

// withoutValue is a command line without a flag and its wrong value, with which what
// kong says of it ends; nil if they are not there as such.
func withoutValue(args []string, flag, problem string) []string {
	for i, arg := range args {
		value, attached := strings.CutPrefix(arg, flag+"=")
		switch {
		case attached && strings.HasSuffix(problem, strconv.Quote(value)):
			return slices.Concat(args[:i], args[i+1:])
		case arg == flag && i+1 < len(args) && strings.HasSuffix(problem, strconv.Quote(args[i+1])):
			return slices.Concat(args[:i], args[i+2:])
		}
	}
	return nil
}

// usageFault explains an error of kong. rest is the command line without what is
// wrong, so that the next fault can be found; nil if that can not be said.
func usageFault(err error, args, commands []string) (fault Fault, rest []string) {
	fault = Fault{Origin: "command line", What: err.Error(), Usage: true}
	if got := regexp.MustCompile(`^(--?\S+): expected .* value but got "(.*)" \(.*\)`).FindStringSubmatch(err.Error()); got != nil {
		what := fmt.Sprintf("%q looks like a flag: write %s=%s if it is the value", got[2], got[1], got[2])
		return Fault{Origin: "flag " + got[1], What: what, Usage: true}, withoutValue(args, got[1], strconv.Quote(got[2]))
	}
	if got := regexp.MustCompile(`^(--\S+?):? ((?:expected|must be|bool value) .*)$`).FindStringSubmatch(err.Error()); got != nil {
		return Fault{Origin: "flag " + got[1], What: got[2], Usage: true}, withoutValue(args, got[1], got[2])
	}
	unknown := regexp.MustCompile(`^unknown flag (--?\S+?)(,.*)?$`).FindStringSubmatch(err.Error())
	if unknown == nil {
		return fault, nil
	}
	name := unknown[1]
	fault = Fault{Origin: "flag " + name, What: "unknown flag" + strings.Replace(unknown[2], ",", ":", 1), Usage: true}
	i := slices.IndexFunc(args, func(arg string) bool { return arg == name || strings.HasPrefix(arg, name+"=") })
	if i < 0 {
		return fault, nil
	}
	end := i + 1
	if args[i] == name && end < len(args) && !strings.HasPrefix(args[end], "-") && !slices.Contains(commands, args[end]) {
		end++ // its value, most likely
	}
	return fault, slices.Concat(args[:i], args[end:])
}
