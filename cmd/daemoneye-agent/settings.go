package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
)

// envPrefix begins the name of every environment variable of the agent.
const envPrefix = "DAEMONEYE_AGENT_"

// options are the settings in force.
type options struct {
	socket, store   string // empty: the default place
	collectors      []agent.Command
	collectorArgs   []string
	expect          []string
	ready           time.Duration
	heartbeat       time.Duration
	listen          string // host:port, empty is off
	tlsCert, tlsKey string
	group           string
	allowUIDs       []int
	user            string
	maxBytes        uint64
	maxAge          time.Duration
	duplicates      time.Duration
	logLevel        logrus.Level
	logFormat       string
}

// setting is one row of the table.
type setting struct {
	name        string // the flag without its dashes
	placeholder string
	initial     string // as it would be given; empty for none
	many        bool   // can be given more than once, each time adding a value
	choices     []string
	limits      string // what is accepted, in words
	help        string
	// parse checks texts (one, unless many) and only then stores them.
	parse func(o *options, texts []string) error
}

func (s *setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

func (s *setting) tag() reflect.StructTag {
	help := s.help
	if len(s.choices) > 0 {
		help += " One of " + strings.Join(s.choices, ", ") + "."
	} else if s.limits != "" {
		help += " Accepts " + s.limits + "."
	}
	if s.initial != "" {
		help += " Default: " + s.initial + "."
	}
	if s.many {
		help += " Repeatable."
	}
	return flagTag(s.name, s.placeholder, help)
}

// settings returns the table, in the order in which it is documented.
func settings() []setting {
	return slices.Concat(collectorSettings(), brokerSettings(), logSettings())
}

func settingChoices(flag string) []string {
	for _, s := range settings() {
		if s.name == flag {
			return s.choices
		}
	}
	return nil
}

func collectorSettings() []setting {
	return []setting{
		{
			name: "collector", placeholder: "PATH", many: true,
			help:  "Program to run as a collector and to start again when it ends; ID=PATH gives it another id than " + rpc.DefaultID + ".",
			parse: parseCollectors,
		},
		{
			name: "collector-arg", placeholder: "ARG", many: true,
			help:  "Argument of every --collector, as in --collector-arg=--interval=10.",
			parse: func(o *options, texts []string) error { o.collectorArgs = texts; return nil },
		},
		{
			name: "expect", placeholder: "ID", many: true,
			help:  "Collector that others start, and that is waited for.",
			parse: each(func(o *options, s string) error { o.expect = append(o.expect, s); return rpc.ValidID(s) }),
		},
		{
			name: "ready-timeout", placeholder: "DURATION", initial: "30s", limits: "1s to 1h",
			help:  "How long all collectors may take to be ready, before the start counts as failed.",
			parse: duration(time.Second, time.Hour, func(o *options) *time.Duration { return &o.ready }),
		},
		{
			name: "heartbeat-interval", placeholder: "DURATION", initial: "10s", limits: "1s to 10m",
			help:  "Time between two heartbeats of a collector; it is stale after three missed ones.",
			parse: duration(time.Second, 10*time.Minute, func(o *options) *time.Duration { return &o.heartbeat }),
		},
		{
			name: "user", placeholder: "NAME",
			help:  "Run the broker as this user. Only a small parent, which starts the collectors, stays root.",
			parse: one(func(o *options, s string) error { o.user = s; return nil }),
		},
	}
}

func brokerSettings() []setting {
	return []setting{
		{
			name: "socket", placeholder: "PATH",
			help: "Unix socket of the broker. Default: broker.sock in $RUNTIME_DIRECTORY, else for root in /run/daemoneye," +
				" else in $XDG_RUNTIME_DIR/daemoneye, else in a private directory of the temporary one.",
			parse: one(func(o *options, s string) error { o.socket = s; return plainPath(s) }),
		},
		{
			name: "store", placeholder: "PATH",
			help: "Directory of the stream of events. Default: broker in $STATE_DIRECTORY, else in /var/lib/daemoneye if that can be written," +
				" else in $XDG_STATE_HOME/daemoneye or ~/.local/state/daemoneye.",
			parse: one(func(o *options, s string) error { o.store = s; return plainPath(s) }),
		},
		{
			name: "group", placeholder: "NAME", help: "Let this group reach the socket.",
			parse: one(func(o *options, s string) error { o.group = s; return nil }),
		},
		{
			name: "allow-uid", placeholder: "UID", many: true,
			help:  "Let this user's programs in, besides root's, the agent's own and the group's.",
			parse: each(parseUID),
		},
		{
			name: "listen", placeholder: "HOST:PORT", help: "Serve NATS clients over TCP too, with the same secrets. TLS is required off loopback.",
			parse: one(func(o *options, s string) error { o.listen = s; return nil }),
		},
		{
			name: "tls-cert", placeholder: "FILE", help: "Certificate for --listen (PEM).",
			parse: one(func(o *options, s string) error { o.tlsCert = s; return plainPath(s) }),
		},
		{
			name: "tls-key", placeholder: "FILE", help: "Key of --tls-cert (PEM).",
			parse: one(func(o *options, s string) error { o.tlsKey = s; return plainPath(s) }),
		},
		{
			name: "max-bytes", placeholder: "SIZE", initial: "1GiB", limits: "1MiB to 1024GiB",
			help: "How much the stream keeps. When it is full, collectors keep their events.",
			parse: one(func(o *options, s string) error {
				var err error
				o.maxBytes, err = parseSize(s)
				return err
			}),
		},
		{
			name: "max-age", placeholder: "DURATION", initial: "168h", limits: "1m to 8760h",
			help:  "How long the stream keeps an event.",
			parse: duration(time.Minute, 8760*time.Hour, func(o *options) *time.Duration { return &o.maxAge }),
		},
		{
			name: "duplicate-window", placeholder: "DURATION", initial: "2m", limits: "1s to 1h",
			help:  "How long the stream remembers the ids of events.",
			parse: duration(time.Second, time.Hour, func(o *options) *time.Duration { return &o.duplicates }),
		},
	}
}

func logSettings() []setting {
	return []setting{
		{
			name: "log-level", placeholder: "LEVEL", initial: "info", choices: []string{"trace", "debug", "info", "warning", "error"}, help: "How much to log.",
			parse: one(func(o *options, s string) error {
				var err error
				o.logLevel, err = logrus.ParseLevel(s)
				return err
			}),
		},
		{
			name: "log-format", placeholder: "FORMAT", initial: cli.FormatAuto, choices: []string{cli.FormatAuto, cli.FormatText, cli.FormatJSON},
			help:  "Form of the log: text for people, json for machines; auto is text on a terminal.",
			parse: one(func(o *options, s string) error { o.logFormat = s; return nil }),
		},
	}
}

// one takes the last of the texts.
func one(parse func(o *options, s string) error) func(*options, []string) error {
	return func(o *options, texts []string) error { return parse(o, texts[len(texts)-1]) }
}

// each takes all of them.
func each(parse func(o *options, s string) error) func(*options, []string) error {
	return func(o *options, texts []string) error {
		var faults []error
		for _, text := range texts {
			if err := parse(o, text); err != nil {
				faults = append(faults, err)
			}
		}
		return errors.Join(faults...)
	}
}

func duration(least, most time.Duration, field func(*options) *time.Duration) func(*options, []string) error {
	return one(func(o *options, s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < least || d > most {
			return fmt.Errorf("want a time of %s to %s, as in 90s", least, most)
		}
		*field(o) = d
		return nil
	})
}

func parseUID(o *options, s string) error {
	uid, err := strconv.ParseUint(s, 10, 32)
	if err != nil || uid == 1<<32-1 { // which stands for none
		return errors.New("want the number of a user")
	}
	o.allowUIDs = append(o.allowUIDs, int(uid))
	return nil
}

func parseSize(s string) (uint64, error) {
	units := []struct {
		name string
		size uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}
	for _, unit := range units {
		if number, ok := strings.CutSuffix(s, unit.name); ok {
			n, err := strconv.ParseUint(number, 10, 32)
			if size := n * unit.size; err == nil && size >= 1<<20 && size <= 1<<40 {
				return size, nil
			}
		}
	}
	return 0, errors.New("want a size of 1MiB to 1024GiB, as in 512MiB")
}

func plainPath(s string) error {
	if strings.ContainsRune(s, 0) {
		return errors.New("want a path")
	}
	return nil
}

// parseCollectors reads PATH and ID=PATH. A path with a slash must be a program: to
// find out at each start that it is none would help nobody.
func parseCollectors(o *options, texts []string) error {
	var faults []error
	for _, text := range texts {
		c := agent.Command{ID: rpc.DefaultID, Path: text}
		if id, path, ok := strings.Cut(text, "="); ok && rpc.ValidID(id) == nil {
			c.ID, c.Path = id, path
		}
		if slices.ContainsFunc(o.collectors, func(other agent.Command) bool { return other.ID == c.ID }) {
			faults = append(faults, fmt.Errorf("two collectors have the id %s: give one another with ID=PATH", c.ID))
			continue
		}
		if err := findProgram(&c); err != nil {
			faults = append(faults, err)
			continue
		}
		o.collectors = append(o.collectors, c)
	}
	return errors.Join(faults...)
}

func findProgram(c *agent.Command) error {
	if c.Path == "" {
		return errors.New("want the path of a program")
	}
	if !strings.ContainsRune(c.Path, filepath.Separator) {
		return nil // searched for in PATH when it is started
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", c.Path, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s", path)
	case errors.Is(err, fs.ErrPermission): // whoever starts it may see it: the parent of --user
	case err != nil:
		return err
	case info.IsDir() || info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s is not a program", path)
	}
	c.Path = path
	return nil
}

// maxText is longer than any sensible value.
const maxText = 4096

// apply stores what was given, or says what is wrong with it.
func (s *setting) apply(o *options, texts []string) error {
	for _, text := range texts {
		switch {
		case text == "" && s.name != "collector-arg":
			return errors.New("want a value")
		case len(text) > maxText:
			return fmt.Errorf("%d bytes are too long: want at most %d", len(text), maxText)
		case !utf8.ValidString(text):
			return errors.New("not UTF-8")
		case len(s.choices) > 0 && !slices.Contains(s.choices, text):
			return fmt.Errorf("want %s or %s", strings.Join(s.choices[:len(s.choices)-1], ", "), s.choices[len(s.choices)-1])
		}
	}
	return s.parse(o, texts)
}

// resolve returns the settings in force (flag > environment > default), and names
// everything that is wrong. An empty variable is as good as none.
func resolve(flags map[string][]string, environ []string) (*options, cli.Faults) {
	o := new(options)
	var faults cli.Faults
	for _, s := range settings() {
		texts, origin, usage := flags[s.name], "flag --"+s.name, true
		if len(texts) == 0 {
			texts, origin, usage = s.fromEnvironment(environ), "environment "+s.env(), false
		}
		if len(texts) == 0 && s.initial != "" {
			texts, origin = []string{s.initial}, "default of --"+s.name
		}
		if len(texts) == 0 {
			continue
		}
		if err := s.apply(o, texts); err != nil {
			what := strings.ReplaceAll(err.Error(), "\n", "; ")
			faults = append(faults, cli.Fault{Origin: origin, What: fmt.Sprintf("%q: %s", cli.Shorten(strings.Join(texts, ", "), 80), what), Usage: usage})
		}
	}
	for i := range o.collectors {
		o.collectors[i].Args = o.collectorArgs
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		faults = append(faults, cli.Fault{Origin: "flag --tls-cert", What: "a certificate needs a --tls-key, and a key a certificate", Usage: true})
	}
	return o, faults
}

func (s *setting) fromEnvironment(environ []string) []string {
	for _, pair := range slices.Backward(environ) {
		value, ok := strings.CutPrefix(pair, s.env()+"=")
		switch {
		case !ok:
		case value == "":
			return nil
		case s.many:
			return strings.Split(value, ",")
		default:
			return []string{value}
		}
	}
	return nil
}
