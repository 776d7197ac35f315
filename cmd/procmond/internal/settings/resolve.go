package settings

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/collect/event"
)

// Input is everything that can configure the daemon.
type Input struct {
	// Flags are the values that were given, by the name of the setting.
	Flags map[string][]string
	// Environ is in the form of os.Environ.
	Environ []string
	// ConfigFlag is the value of --config, if one was given.
	ConfigFlag *string
	// DefaultFile stands for [DefaultFile]; a test names another.
	DefaultFile string
}

// Fault is one thing that is wrong with the settings, said like those of a command line.
type Fault = cli.Fault

// Faults is everything that is wrong; it is an error if there is any.
type Faults = cli.Faults

// given are the texts for one setting from one place.
type given struct {
	origin string
	usage  bool
	line   int // of the file, 0 elsewhere
	texts  []string
}

// Resolve returns the settings in force, whatever is wrong, and names in faults
// everything that is, that of the file in its order. Warnings are for what has no effect but was perhaps meant
// to have one. It reads the configuration file and does no other I/O.
func Resolve(in Input) (v Values, faults Faults, warnings []string) {
	table := Table()
	v = defaults(table)
	file, fromFile, fileFaults := in.readFile(table)
	v.File = file
	faults = append(faults, fileFaults...)
	fromEnv, warnings := fromEnvironment(table, in.Environ)
	for i := range table {
		s := &table[i]
		var layers []given
		layers = append(layers, fromFile[s.Name]...)
		layers = append(layers, fromEnv[s.Name]...)
		if texts, ok := in.Flags[s.Name]; ok && len(texts) > 0 {
			layers = append(layers, given{origin: "flag " + s.Flag(), usage: true, texts: texts})
		}
		for _, g := range layers {
			if fault := s.apply(&v, g); fault != nil {
				faults = append(faults, *fault)
			}
		}
	}
	if len(v.EnvAllow) > 0 && !v.EnhancedMetadata {
		warnings = append(warnings, "env-allow has no effect without enhanced-metadata: no environment is recorded")
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return v, faults, warnings
}

func defaults(table []Setting) Values {
	var v Values
	for i := range table {
		if s := &table[i]; s.Default != "" {
			if err := s.parse(&v, []string{s.Default}); err != nil {
				panic(fmt.Sprintf("default of %s: %v", s.Name, err)) // a fault of the table
			}
		}
	}
	return v
}

// apply stores what was given, or says what is wrong with it and leaves v alone.
func (s *Setting) apply(v *Values, g given) *Fault {
	next := *v
	err := s.check(g.texts)
	if err == nil {
		err = s.parse(&next, g.texts)
	}
	if err != nil {
		shown := strings.Join(g.texts, ", ")
		return &Fault{Origin: g.origin, What: fmt.Sprintf("%q: %s", clip(shown), oneLine(err)), Usage: g.usage, Line: g.line}
	}
	*v = next
	return nil
}

// maxText is longer than any sensible value.
const maxText = 4096

func (s *Setting) check(texts []string) error {
	for _, text := range texts {
		switch {
		case text == "":
			return fmt.Errorf("want %s", s.accepts())
		case len(text) > maxText:
			return fmt.Errorf("%d bytes are too long: want at most %d", len(text), maxText)
		case !utf8.ValidString(text):
			return fmt.Errorf("not UTF-8")
		case len(s.Choices) > 0 && !slices.Contains(s.Choices, text):
			return fmt.Errorf("want %s%s", s.accepts(), didYouMean(text, s.Choices))
		}
	}
	return nil
}

// accepts says in words which values are.
func (s *Setting) accepts() string {
	if len(s.Choices) > 0 {
		return strings.Join(s.Choices[:len(s.Choices)-1], ", ") + " or " + s.Choices[len(s.Choices)-1]
	}
	return s.Limits
}

// fromEnvironment finds the settings. An empty variable is as good as none. A
// variable with our prefix that is no setting is only warned about: container
// platforms make such names by themselves.
func fromEnvironment(table []Setting, environ []string) (map[string][]given, []string) {
	found := make(map[string][]given)
	var warnings []string
	names := []string{EnvPrefix + "CONFIG"}
	for i := range table {
		names = append(names, table[i].Env())
	}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		i := slices.Index(names, name)
		if i < 0 {
			if hint := didYouMean(name, names); hint != "" {
				warnings = append(warnings, fmt.Sprintf("environment %s: unknown setting%s", event.Text(clip(name)), hint))
			}
			continue
		}
		if i == 0 || value == "" {
			continue
		}
		s := &table[i-1]
		texts := []string{value}
		if s.Many {
			texts = strings.Split(value, ",")
		}
		found[s.Name] = append(found[s.Name], given{origin: "environment " + name, texts: texts})
	}
	return found, warnings
}

// clip bounds what a message repeats of a hostile value.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
