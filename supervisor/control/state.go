package control

import "time"

// Health words of [State].
const (
	HealthHealthy       = "healthy"
	HealthDegraded      = "degraded"
	HealthUnhealthy     = "unhealthy"
	HealthNotResponding = "not_responding" // a daemon holds the store or the socket and does not answer
	HealthNotRunning    = "not_running"    // the report is of the last run, from its store
)

// State is the JSON document of `procmond state --json` and GET /state. It is a
// contract: fields are added, never renamed or removed. docs/state-json.md
// describes each of them.
type State struct {
	Mode        string   `json:"mode"` // standalone or coordinated
	Running     bool     `json:"running"`
	Health      string   `json:"health"`
	Reasons     []string `json:"reasons"`
	PID         int      `json:"pid"`
	Version     string   `json:"version"`
	Coordinated bool     `json:"coordinated"`
	HostID      string   `json:"host_id"`
	BootID      string   `json:"boot_id"`
	// StartedAt is when the daemon started; AsOf is when this report was made,
	// or for a dead daemon the last moment that its store knows of.
	StartedAt *time.Time `json:"started_at"`
	AsOf      *time.Time `json:"as_of"`
	// Clean says of a dead daemon whether it ended in order.
	Clean *bool `json:"clean"`

	Collector    Collector    `json:"collector"`
	Registration Registration `json:"registration"`
	Config       ConfigState  `json:"config"`
	Sources      Sources      `json:"sources"`
	Interval     Interval     `json:"interval"`
	Cycle        Cycle        `json:"cycle"`
	Totals       Totals       `json:"totals"`
	Hashes       *Hashes      `json:"hashes"` // null while none are computed
	Store        Store        `json:"store"`
	Services     []Service    `json:"services"`
	Loss         []Loss       `json:"loss"`
	Transitions  []Transition `json:"transitions"`

	// Link and Delivery are null in standalone mode.
	Link     *Link       `json:"link"`
	Delivery *Delivery   `json:"delivery"`
	Pressure Pressure    `json:"pressure"`
	RPC      []Operation `json:"rpc"`
}

// Collector is the collector's machine and what its actor does.
type Collector struct {
	State      string     `json:"state"`
	Since      *time.Time `json:"since"`
	Cause      string     `json:"cause"`
	Activity   string     `json:"activity"`
	ActivityMS int64      `json:"activity_ms"` // how long it has been at it
	LastError  string     `json:"last_error"`
	TableSize  int        `json:"table_size"` // processes in the table
	Waiting    int        `json:"waiting"`    // kernel events that were read and are not durable yet
}

// Registration is the registration machine; in standalone mode it stays
// unregistered.
type Registration struct {
	State      string     `json:"state"`
	Since      *time.Time `json:"since"`
	Cause      string     `json:"cause"`
	Attempts   uint64     `json:"attempts"`
	Failures   uint64     `json:"failures"`
	Heartbeats Heartbeats `json:"heartbeats"`
	// Who accepted it, and what was wrong with the last attempt that failed.
	AgentID             string `json:"agent_id"`
	AgentVersion        string `json:"agent_version"`
	HeartbeatIntervalMS int64  `json:"heartbeat_interval_ms"`
	LastError           string `json:"last_error"`
}

// Heartbeats counts since the daemon started.
type Heartbeats struct {
	Sent   uint64 `json:"sent"`
	Failed uint64 `json:"failed"`
}

// ConfigState is the version of the configuration in force and the keys that wait
// for the end of the running cycle.
type ConfigState struct {
	Version uint64   `json:"version"`
	Pending []string `json:"pending"`
}

// Sources is where events and snapshots come from.
type Sources struct {
	Events string `json:"events"` // ebpf, connector or none
	// EventsWanted is what the setting says: auto, off, or the name of a source.
	EventsWanted string `json:"events_wanted"`
	// EventsSince is since when, EventsNote why it is no better source, and EventsMend
	// what to grant for one.
	EventsSince *time.Time `json:"events_since"`
	EventsNote  string     `json:"events_note"`
	EventsMend  string     `json:"events_mend"`
	// EventsLimits says in what respect the source is less than it could be.
	EventsLimits string `json:"events_limits"`

	Snapshots string `json:"snapshots"` // ebpf, procfs or portable
	// EnhancedMetadata is whether it is recorded: MetadataOff, ...
	EnhancedMetadata string `json:"enhanced_metadata"`
	RSSKind          string `json:"rss_kind"` // of events: exact or approximate
}

// Whether enhanced metadata is recorded.
const (
	MetadataOff         = "off"
	MetadataOn          = "on"
	MetadataUnsupported = "unsupported" // asked for, but the source does not have it
)

// Interval is the time between snapshots, in seconds.
type Interval struct {
	ConfiguredS float64 `json:"configured_s"`
	CurrentS    float64 `json:"current_s"`
	Reason      string  `json:"reason"` // why current is not configured
}

// Cycle is what the last snapshot found.
type Cycle struct {
	Count      uint64     `json:"count"`
	LastAt     *time.Time `json:"last_at"`
	DurationMS float64    `json:"duration_ms"`
	Processes  int        `json:"processes"`
	Events     int        `json:"events"`
	// Why Processes is not all there is, and what is known of it.
	LeftOut     int `json:"left_out"`    // by max_processes
	Excluded    int `json:"excluded"`    // by exclude
	Held        int `json:"held"`        // younger than min_process_lifetime
	Vanished    int `json:"vanished"`    // gone between listing and reading
	Hidden      int `json:"hidden"`      // listed, and the host shows nothing of them
	Unreadable  int `json:"unreadable"`  // with fields that could not be read
	Unconfirmed int `json:"unconfirmed"` // missing in the scan, but perhaps still there
}

// Totals count since the daemon started.
type Totals struct {
	Events      uint64 `json:"events"` // made durable
	ScansFailed uint64 `json:"scans_failed"`
	ShortLived  uint64 `json:"short_lived"` // ended before min_process_lifetime
	Outages     uint64 `json:"outages"`     // of the store
	NotesLost   uint64 `json:"notes_lost"`  // events about the daemon that found no room while the store was out of service
	// KernelEvents were read. Those in KernelEventsUnmatched were about processes that
	// had started before and ended before a snapshot saw them.
	KernelEvents          uint64     `json:"kernel_events"`
	KernelEventsUnmatched uint64     `json:"kernel_events_unmatched"`
	KernelEventsLost      LostEvents `json:"kernel_events_lost"`
	LossWindows           uint64     `json:"loss_windows"` // times in which some were lost, each with a loss event
	// LogLinesLost found no room: nobody read the log in time.
	LogLinesLost uint64 `json:"log_lines_lost"`
}

// LostEvents counts what the kernel told and nobody heard, by kind where that is known.
type LostEvents struct {
	Forks uint64 `json:"forks"`
	Execs uint64 `json:"execs"`
	Exits uint64 `json:"exits"`
	Other uint64 `json:"other"`
}

// Hashes counts what the hasher has done since the daemon started, and says what
// it is at.
type Hashes struct {
	Hashed   uint64     `json:"hashed"` // files read to their end
	Bytes    uint64     `json:"bytes"`
	Hits     uint64     `json:"hits"`     // processes whose hash was known
	Misses   uint64     `json:"misses"`   // processes that had to wait for theirs
	Skipped  uint64     `json:"skipped"`  // processes without one
	Deferred uint64     `json:"deferred"` // found no room, and are asked for again
	Cached   int        `json:"cached"`   // hashes kept
	Waiting  int        `json:"waiting"`  // processes that wait for theirs
	Stuck    int        `json:"stuck"`    // calls to files that have not returned
	Skips    []HashSkip `json:"skips"`
	// Suspended says that so many are stuck that no other file is touched.
	Suspended bool `json:"suspended"`
}

// HashSkip is how many processes have no hash for one reason.
type HashSkip struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Store is the durable side.
type Store struct {
	Path          string     `json:"path"`
	InService     bool       `json:"in_service"`
	Reason        string     `json:"reason"` // why it is out of service
	Since         *time.Time `json:"since"`
	Epoch         string     `json:"epoch"`
	Head          uint64     `json:"head"`
	Floor         uint64     `json:"floor"`
	Kept          uint64     `json:"kept"` // from floor to head, less those given up
	Cursor        uint64     `json:"cursor"`
	BacklogEvents uint64     `json:"backlog_events"`
	BacklogBytes  uint64     `json:"backlog_bytes"`
	BacklogBudget uint64     `json:"backlog_budget"` // bytes; 0 if nothing is owed
	Shed          uint64     `json:"shed"`           // given up because the budget was used up
	Sheds         uint64     `json:"sheds"`          // how many times that was done
	Bytes         uint64     `json:"bytes"`
	Appends       uint64     `json:"appends"`
	Syncs         uint64     `json:"syncs"`
	Removed       uint64     `json:"removed"` // by retention
	Reopens       uint64     `json:"reopens"`
	QuarantinedTo string     `json:"quarantined_to"`
	QuarantinedAt *time.Time `json:"quarantined_at"`
	// Where the events were put of a store that was an older copy of itself, and when.
	RewoundTo string     `json:"rewound_to"`
	RewoundAt *time.Time `json:"rewound_at"`
}

// Service is one service of the tree.
type Service struct {
	Path         string     `json:"path"`
	State        string     `json:"state"`
	Since        *time.Time `json:"since"`
	Restarts     uint64     `json:"restarts"`
	Panics       uint64     `json:"panics"`
	LastError    string     `json:"last_error"`
	LastErrorAt  *time.Time `json:"last_error_at"`
	LastPanic    string     `json:"last_panic"`
	BackoffUntil *time.Time `json:"backoff_until"`
	Activity     string     `json:"activity"`
	BeatAgeMS    int64      `json:"beat_age_ms"`
}

// Loss is what is missing, by cause.
type Loss struct {
	Cause string `json:"cause"`
	// Count is how many loss events there are, Missing how much they say was
	// lost where that was known.
	Count   uint64 `json:"count"`
	Missing uint64 `json:"missing"`
}

// Transition is one change of state of a machine.
type Transition struct {
	Machine string    `json:"machine"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Event   string    `json:"event"`
	Cause   string    `json:"cause"`
	At      time.Time `json:"at"`
}

// At returns a pointer to t, nil for the zero time, so that JSON shows null for
// a moment that there was not.
func At(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// ExitCode is the exit code of `procmond state` for this report.
func (s *State) ExitCode() int {
	switch s.Health {
	case HealthHealthy:
		return 0
	case HealthDegraded:
		return 1
	case HealthNotRunning:
		return 3
	default:
		return 2
	}
}
