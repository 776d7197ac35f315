package settings

import (
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// EnvPrefix begins the name of every environment variable of the daemon.
const EnvPrefix = "PROCMOND_"

// DefaultFile is the configuration file that is read if it is there and no other
// is named.
const DefaultFile = "/etc/daemoneye/procmond.yaml"

// Setting is one row of the table.
type Setting struct {
	// Name is the flag without its dashes: interval.
	Name string
	// Hot is the key under which a running daemon accepts a new value; empty if
	// a change needs a restart.
	Hot         string
	Placeholder string // of the value in help: SECONDS
	Default     string // as it would be given; empty for none
	Many        bool   // can be given more than once, each time adding a value
	Switch      bool   // is true or false; the flag alone is true
	Choices     []string
	Limits      string // what is accepted, in words
	Help        string

	// parse checks texts (one, unless Many) and only then stores them in v.
	parse func(v *Values, texts []string) error
	// show is the value in v as text, for comparison, and in the form that a
	// running daemon accepts.
	show func(v *Values) string
}

// Flag is the flag as it is typed.
func (s *Setting) Flag() string { return "--" + s.Name }

// Env is the environment variable.
func (s *Setting) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Key is the key in the configuration file.
func (s *Setting) Key() string { return strings.ReplaceAll(s.Name, "-", "_") }

// Values are the settings in force.
type Values struct {
	// File is the configuration file that was read, or empty.
	File string

	Database           string // empty: the default place
	LogLevel           logrus.Level
	LogFormat          string // "auto", "text" or "json"
	Interval           time.Duration
	MaxProcesses       int // 0 is unlimited
	MinProcessLifetime time.Duration
	MemoryThreshold    float64 // percent
	CPUThreshold       float64 // points of one core
	EventDriven        string  // "auto", "ebpf", "connector" or "off"
	EventBuffer        uint64  // bytes
	Snapshots          string  // SnapshotsAuto, or the name of a source
	ComputeHashes      bool
	HashMaxSize        uint64 // bytes
	HashRate           uint64 // bytes per second
	EnhancedMetadata   bool
	EnvAllow           []string // names of environment variables
	RetentionAge       time.Duration
	RetentionBytes     uint64
	Redact             []string
	Exclude            []string
	MetricsListen      string // host:port, empty is off
	HostID             string // empty: derived from the machine
	Watchdog           time.Duration
	ID                 string        // at the agent
	BeginTimeout       time.Duration // negative: never
	MaxBacklog         uint64        // bytes
	DeliverFrom        string        // DeliverOldest or DeliverNow
	MaxEventsInFlight  int
}

// Sources of snapshots. On Linux auto is procfs, elsewhere it is portable.
const (
	SnapshotsAuto     = "auto"
	SnapshotsProcfs   = "procfs"
	SnapshotsPortable = "portable"
)

// Where delivery begins.
const (
	DeliverOldest = "oldest"
	DeliverNow    = "now"
)

// Hot returns the hot settings of v under their runtime keys.
func Hot(v *Values) map[string]string {
	hot := make(map[string]string)
	for _, s := range Table() {
		if s.Hot != "" {
			hot[s.Hot] = s.show(v)
		}
	}
	return hot
}

// RestartRequired names the settings that differ between the running values and
// the new ones and that a running daemon can not take over.
func RestartRequired(running, next *Values) []string {
	var names []string
	for _, s := range Table() {
		if s.Hot == "" && s.show(running) != s.show(next) {
			names = append(names, s.Key())
		}
	}
	return names
}

// ColdKeys are the keys of the settings that need a restart.
func ColdKeys() []string {
	var keys []string
	for _, s := range Table() {
		if s.Hot == "" {
			keys = append(keys, s.Key())
		}
	}
	return keys
}
