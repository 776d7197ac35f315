package rpc

import (
	"encoding/json"
	"time"
)

// Protocol is the version of these messages. An agent rejects a collector with a
// greater one than its own.
const Protocol = 1

// Registration is the payload of [OpRegister].
type Registration struct {
	Protocol  int       `json:"protocol"`
	ID        string    `json:"id"`       // of the collector; that of the subject
	Instance  string    `json:"instance"` // random, of this process
	Version   string    `json:"version"`
	HostID    string    `json:"host_id"`
	BootID    string    `json:"boot_id"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	State     string    `json:"state"` // of the collector's machine
	Epoch     string    `json:"epoch"` // of its store; empty if that is out of service
	Head      uint64    `json:"head"`
}

// Accepted answers a registration. A rejection is an [Error] with [CodeRejected].
type Accepted struct {
	AgentID             string   `json:"agent_id"` // random, of this run of the agent
	AgentVersion        string   `json:"agent_version"`
	HeartbeatIntervalMS int64    `json:"heartbeat_interval_ms"` // 0: the collector's own choice
	Last                Position `json:"last"`
}

// Position is the last event of a collector that the agent's stream took, which it
// knows even when the event itself has been removed.
type Position struct {
	Epoch         string    `json:"epoch"` // empty: it never took one
	Seq           uint64    `json:"seq"`
	StreamCreated time.Time `json:"stream_created"` // another one is another stream
}

// Farewell is the payload of [OpDeregister].
type Farewell struct {
	Instance    string `json:"instance"`
	Reason      string `json:"reason"`
	Undelivered uint64 `json:"undelivered"` // events left in the collector's store
}

// Begin is the payload of [OpBeginMonitoring].
type Begin struct {
	AgentID string `json:"agent_id,omitempty"`
}

// BeginResult answers it.
type BeginResult struct {
	Changed     bool `json:"changed"` // monitoring began with this request
	Coordinated bool `json:"coordinated"`
}

// UpdateConfig is the payload of [OpUpdateConfig]: all of its values are taken or
// none.
type UpdateConfig struct {
	Values       map[string]json.RawMessage `json:"values"` // a string, number or boolean each
	ValidateOnly bool                       `json:"validate_only,omitempty"`
}

// ConfigResult answers it.
type ConfigResult struct {
	Version         uint64   `json:"version"`          // of the configuration, once what is pending is in force
	Applied         []string `json:"applied"`          // keys in force now
	Pending         []string `json:"pending"`          // in force at the end of the running scan
	RestartRequired []string `json:"restart_required"` // not touched
}

// AdjustInterval is the payload of [OpAdjustInterval]. One of the two is given.
type AdjustInterval struct {
	IntervalMS *int64 `json:"interval_ms,omitempty"` // takes the place of the configured interval
	Clear      bool   `json:"clear,omitempty"`       // back to the configured one
}

// IntervalResult answers it.
type IntervalResult struct {
	ConfiguredMS int64  `json:"configured_ms"`
	CurrentMS    int64  `json:"current_ms"`
	Reason       string `json:"reason"`
}

// Shutdown is the payload of [OpGracefulShutdown].
type Shutdown struct {
	Reason string `json:"reason,omitempty"`
}

// ShutdownResult answers it, as the last thing that the collector says.
type ShutdownResult struct {
	Complete    bool   `json:"complete"` // the last cycle was completed and everything delivered
	Detail      string `json:"detail,omitempty"`
	Delivered   uint64 `json:"delivered"`   // last sequence delivered
	Undelivered uint64 `json:"undelivered"` // events that wait for the next run
}

// HealthReport answers [OpHealthCheck]: the document of `procmond state --json`,
// with RPC beside its other fields.
type HealthReport = json.RawMessage

// OperationStats counts what became of the requests for one operation. Requests
// that could not be read stand under the operation "".
type OperationStats struct {
	Operation Operation `json:"operation"`
	Count     uint64    `json:"count"`
	Errors    uint64    `json:"errors"`
	Timeouts  uint64    `json:"timeouts"` // among Errors
}

// Heartbeat says that a registered collector lives, and how.
type Heartbeat struct {
	ID       string    `json:"id"`
	Instance string    `json:"instance"`
	Sequence uint64    `json:"sequence"` // from 1 in each registration
	At       time.Time `json:"at"`
	Health   string    `json:"health"` // healthy, degraded or unhealthy
	Reasons  []string  `json:"reasons"`

	Collector    string `json:"collector"`    // states of the machines
	Registration string `json:"registration"` //
	Coordinated  bool   `json:"coordinated"`

	Epoch         string  `json:"epoch"`
	Head          uint64  `json:"head"`
	Cursor        uint64  `json:"cursor"` // last event acknowledged by the stream
	BacklogEvents uint64  `json:"backlog_events"`
	BacklogBytes  uint64  `json:"backlog_bytes"`
	BacklogBudget uint64  `json:"backlog_budget"` // bytes; the oldest are shed above it
	BacklogLevel  float64 `json:"backlog_level"`  // bytes by budget, 0 to 1 and more
	Pressure      bool    `json:"pressure"`
	PressureCause string  `json:"pressure_cause,omitempty"`
	IntervalMS    int64   `json:"interval_ms"` // between snapshots, in force

	Connection Connection `json:"connection"`
	Since      Counters   `json:"since_last"` // since the heartbeat before
	// Counted since the process started.
	Registrations        uint64 `json:"registrations"`
	RegistrationFailures uint64 `json:"registration_failures"`
	HeartbeatsSent       uint64 `json:"heartbeats_sent"`
	HeartbeatsFailed     uint64 `json:"heartbeats_failed"`
}

// Connection is how the two links of a collector stand.
type Connection struct {
	Control    string `json:"control"` // connected or reconnecting
	Events     string `json:"events"`
	Reconnects uint64 `json:"reconnects"` // of both
}

// Counters are what a collector did in a time.
type Counters struct {
	Cycles    uint64 `json:"cycles"`
	Events    uint64 `json:"events"`    // made durable
	Delivered uint64 `json:"delivered"` // acknowledged by the stream
	Restarts  uint64 `json:"restarts"`  // of services
}

// Target is the payload of the operator's requests about one collector.
type Target struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"`
}

// Wish is the payload of what the operator asks a collector for through its agent,
// on [SubjectAgent]: [OpUpdateConfig], [OpAdjustInterval] and [OpHealthCheck]. The
// agent passes Payload on and answers with the collector's answer. Values that the
// collector took are wishes: it hears them again after each registration, until
// another takes their place or the agent ends.
type Wish struct {
	ID      string          `json:"id"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Wishes are the values that a collector hears again after each registration.
type Wishes struct {
	IntervalMS *int64                     `json:"interval_ms,omitempty"`
	Config     map[string]json.RawMessage `json:"config,omitempty"`
}

// AgentReport answers [OpCollectors].
type AgentReport struct {
	AgentID    string            `json:"agent_id"`
	Version    string            `json:"version"`
	PID        int               `json:"pid"`
	State      string            `json:"state"`
	Since      time.Time         `json:"since"`
	Cause      string            `json:"cause"`
	StartedAt  time.Time         `json:"started_at"`
	Expected   []string          `json:"expected"`
	Missing    []string          `json:"missing"` // expected and not ready
	Collectors []CollectorReport `json:"collectors"`
	Stream     StreamReport      `json:"stream"`
	Services   []ServiceReport   `json:"services"`
	Refused    []Refusal         `json:"refused"` // connections, by reason
	Warnings   []string          `json:"warnings"`
	// Transitions are the newest of the agent's machine, newest last.
	Transitions []Transition `json:"transitions"`
}

// Liveness is how the agent sees a collector.
type Liveness string

// A collector is stale after three missed heartbeats, and gone when it took its
// leave, or has been stale for ten times its interval.
const (
	LivenessHealthy Liveness = "healthy" // heartbeats come
	LivenessStale   Liveness = "stale"
	LivenessGone    Liveness = "gone"
	LivenessUnknown Liveness = "unknown" // expected, never seen
)

// CollectorReport is what the agent knows of a collector.
type CollectorReport struct {
	ID           string        `json:"id"`
	Liveness     Liveness      `json:"liveness"`
	Expected     bool          `json:"expected"`
	Ready        bool          `json:"ready"`
	Begun        bool          `json:"begun"`
	RegisteredAt *time.Time    `json:"registered_at"`
	HeardAt      *time.Time    `json:"heard_at"` // last heartbeat
	Missed       uint64        `json:"missed"`   // heartbeats, by now
	Registration *Registration `json:"registration"`
	Heartbeat    *Heartbeat    `json:"heartbeat"` // the last one
	Child        *Child        `json:"child"`     // null if the agent did not start it
	Wishes       *Wishes       `json:"wishes,omitempty"`
	LastError    string        `json:"last_error,omitempty"`
}

// Child is a collector that the agent runs.
type Child struct {
	Command   string     `json:"command"`
	State     string     `json:"state"` // running, backoff, stopped; waiting: for one that may be there already; adopted: it is
	PID       int        `json:"pid"`
	Restarts  uint64     `json:"restarts"`
	LastExit  string     `json:"last_exit"` // what the last end was, in words
	StartedAt *time.Time `json:"started_at"`
	RetryAt   *time.Time `json:"retry_at"`
}

// StreamReport is the state of the stream of events.
type StreamReport struct {
	Name       string     `json:"name"`
	Created    *time.Time `json:"created"`
	Messages   uint64     `json:"messages"`
	Bytes      uint64     `json:"bytes"`
	MaxBytes   uint64     `json:"max_bytes"`
	MaxAgeS    float64    `json:"max_age_s"`
	FirstSeq   uint64     `json:"first_seq"`
	LastSeq    uint64     `json:"last_seq"`
	Consumers  int        `json:"consumers"` // durable ones
	Purged     uint64     `json:"purged"`    // removed behind all consumers, since the agent started
	FullInS    *float64   `json:"full_in_s"` // at the rate of late; null if it does not fill
	InService  bool       `json:"in_service"`
	LastFault  string     `json:"last_fault,omitempty"`
	LowestAck  uint64     `json:"lowest_ack"` // of the durable consumers
	RateEventS float64    `json:"rate_event_s"`
}

// ServiceReport is one service of the agent's tree.
type ServiceReport struct {
	Path      string `json:"path"`
	State     string `json:"state"`
	Restarts  uint64 `json:"restarts"`
	Panics    uint64 `json:"panics"`
	LastError string `json:"last_error,omitempty"`
}

// Refusal counts connections, or requests, that were turned away.
type Refusal struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
	Last   string `json:"last"` // who, the last time
}

// Transition is one change of state of a machine.
type Transition struct {
	From  string    `json:"from"`
	To    string    `json:"to"`
	Event string    `json:"event"`
	Cause string    `json:"cause"`
	At    time.Time `json:"at"`
}
