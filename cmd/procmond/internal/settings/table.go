package settings

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor"
)

// Table returns all settings, in the order in which they are documented.
func Table() []Setting {
	return slices.Concat(dailySettings(), collectionSettings(), sourceSettings(), metadataSettings(), hashSettings(), deliverySettings())
}

// deliverySettings matter only to a daemon that has a broker.
func deliverySettings() []Setting {
	return []Setting{
		{
			Name: "id", Placeholder: "ID", Default: rpc.DefaultID, Limits: "1 to 64 of A-Z a-z 0-9 _ -",
			Help:  "Name of this collector at its agent. Its secret lies beside the broker's socket, in secrets/ID.",
			parse: one(func(v *Values, s string) error { v.ID = s; return rpc.ValidID(s) }),
			show:  func(v *Values) string { return v.ID },
		},
		{
			Name: "begin-timeout", Placeholder: "DURATION", Default: "60s", Limits: "0 to 24h, or never",
			Help:  "Begin without the agent when none has accepted this collector for so long; 0 begins at once.",
			parse: one(parseBeginTimeout),
			show: func(v *Values) string {
				if v.BeginTimeout < 0 {
					return never
				}
				return v.BeginTimeout.String()
			},
		},
		{
			Name: "max-backlog", Placeholder: "SIZE", Default: "512MiB", Limits: "a size from 1MiB to 1TiB",
			Help:  "Events that wait for the agent may take this much; then the oldest are given up, and a loss event says so.",
			parse: one(parseSizeBetween(1<<20, 1<<40, func(v *Values) *uint64 { return &v.MaxBacklog })),
			show:  func(v *Values) string { return fmt.Sprint(v.MaxBacklog) },
		},
		{
			Name: "deliver-from", Placeholder: "WHERE", Default: DeliverOldest, Choices: []string{DeliverOldest, DeliverNow},
			Help:  "What an agent's stream that never had events of this collector gets: the oldest kept ones that fit half of max-backlog and what follows, or what happens from now on.",
			parse: one(func(v *Values, s string) error { v.DeliverFrom = s; return nil }),
			show:  func(v *Values) string { return v.DeliverFrom },
		},
		{
			Name: "max-events-in-flight", Hot: "max_events_in_flight", Placeholder: "N", Default: "1000", Limits: "1 to 1000",
			Help:  "Send the agent no more events than this at once.",
			parse: one(parseInt(1, 1000, func(v *Values) *int { return &v.MaxEventsInFlight })),
			show:  func(v *Values) string { return fmt.Sprint(v.MaxEventsInFlight) },
		},
	}
}

func dailySettings() []Setting {
	return []Setting{
		{
			Name: "database", Placeholder: "PATH", Limits: "a path",
			Help: "Directory of the store. Default: processes.db in $STATE_DIRECTORY, else in /var/lib/daemoneye if that can be written," +
				" else in $XDG_STATE_HOME/daemoneye or ~/.local/state/daemoneye.",
			parse: one(func(v *Values, s string) error { v.Database = s; return path(s) }),
			show:  func(v *Values) string { return v.Database },
		},
		{
			Name: "log-level", Hot: "log_level", Placeholder: "LEVEL", Default: "info",
			Choices: []string{"trace", "debug", "info", "warning", "error"}, Help: "How much to log.",
			parse: one(func(v *Values, s string) error {
				level, err := logrus.ParseLevel(s)
				v.LogLevel = level
				return err
			}),
			show: func(v *Values) string { return v.LogLevel.String() },
		},
		{
			Name: "log-format", Placeholder: "FORMAT", Default: "auto", Choices: []string{"auto", "text", "json"},
			Help:  "Form of the log: text for people, json for machines; auto is text on a terminal.",
			parse: one(func(v *Values, s string) error { v.LogFormat = s; return nil }),
			show:  func(v *Values) string { return v.LogFormat },
		},
		{
			Name: "retention", Placeholder: "AGE,SIZE", Default: "72h,1GiB",
			Limits: "an age (72h, 7d), a size (512MiB, 1GiB), or both with a comma; age from 1m, size from 16MiB; what is left out keeps its default; 0 is no bound",
			Help:   "How long and how much the store keeps.",
			parse:  one(parseRetention),
			show:   func(v *Values) string { return fmt.Sprintf("%v,%d", v.RetentionAge, v.RetentionBytes) },
		},
		{
			Name: "metrics-listen", Placeholder: "ADDRESS", Default: "off", Limits: "off, PORT, :PORT or HOST:PORT",
			Help:  "Serve Prometheus metrics over TCP. Without a host only this machine can reach them.",
			parse: one(parseListen),
			show:  func(v *Values) string { return v.MetricsListen },
		},
		{
			Name: "host-id", Placeholder: "ID", Limits: "1 to 64 of A-Z a-z 0-9 _ -",
			Help:  "Name of this host in events. Default: derived from the machine id.",
			parse: one(func(v *Values, s string) error { v.HostID = s; return event.ValidHostID(s) }),
			show:  func(v *Values) string { return v.HostID },
		},
		{
			Name: "watchdog", Placeholder: "DURATION", Default: "60s", Limits: "15s to 1h; 0 is off",
			Help:  "End the process, with every goroutine in the log, when it has made no progress for this long.",
			parse: one(parseDuration(time.Second, supervisor.MinWatchdog, time.Hour, true, func(v *Values) *time.Duration { return &v.Watchdog })),
			show:  func(v *Values) string { return v.Watchdog.String() },
		},
	}
}

func collectionSettings() []Setting {
	return []Setting{
		{
			Name: "interval", Hot: "collection_interval", Placeholder: "SECONDS", Default: "30", Limits: "5 to 3600 seconds (or 5s to 1h)",
			Help:  "Time between two snapshots.",
			parse: one(parseDuration(time.Second, 5*time.Second, time.Hour, false, func(v *Values) *time.Duration { return &v.Interval })),
			show:  func(v *Values) string { return fmt.Sprint(int64(v.Interval / time.Second)) },
		},
		{
			Name: "max-processes", Placeholder: "N", Default: "0", Limits: "0 to 4194304; 0 is unlimited",
			Help:  "Watch no more processes than this. What is left out is reported.",
			parse: one(parseInt(0, 1<<22, func(v *Values) *int { return &v.MaxProcesses })),
			show:  func(v *Values) string { return fmt.Sprint(v.MaxProcesses) },
		},
		{
			Name: "min-process-lifetime", Hot: "min_process_lifetime", Placeholder: "MS", Default: "0", Limits: "0 to 3600000 milliseconds (or 0s to 1h); 0 is off",
			Help: "Hold a start back for this long, and only count a process that ends earlier.",
			parse: one(parseDuration(time.Millisecond, 0, time.Hour, true,
				func(v *Values) *time.Duration { return &v.MinProcessLifetime })),
			show: func(v *Values) string { return fmt.Sprint(v.MinProcessLifetime.Milliseconds()) },
		},
		{
			Name: "memory-change-threshold", Hot: "memory_change_threshold", Placeholder: "PERCENT", Default: "50", Limits: "0 to 100000 percent; 0 is off",
			Help:  "Report a process whose memory changed by this much.",
			parse: one(parseNumber(100000, func(v *Values) *float64 { return &v.MemoryThreshold })),
			show:  func(v *Values) string { return fmt.Sprint(v.MemoryThreshold) },
		},
		{
			Name: "cpu-change-threshold", Hot: "cpu_change_threshold", Placeholder: "POINTS", Default: "50", Limits: "0 to 100000 points of one core; 0 is off",
			Help:  "Report a process whose use of processors changed by this much.",
			parse: one(parseNumber(100000, func(v *Values) *float64 { return &v.CPUThreshold })),
			show:  func(v *Values) string { return fmt.Sprint(v.CPUThreshold) },
		},
		{
			Name: "redact", Placeholder: "PATTERN", Many: true, Limits: "a regular expression for keys, or value:REGEX for values",
			Help: "Replace argument values of matching keys, and matching values, by a mark; besides the built-in patterns.",
			parse: func(v *Values, texts []string) error {
				v.Redact = texts
				return checkRedact(texts)
			},
			show: func(v *Values) string { return strings.Join(v.Redact, "\x00") },
		},
		{
			Name: "exclude", Placeholder: "WHAT", Many: true, Limits: "pid:N, uid:N, exe:GLOB or name:GLOB",
			Help: "Leave processes out. Children are not left out with them.",
			parse: func(v *Values, texts []string) error {
				v.Exclude = texts
				return checkExclude(texts)
			},
			show: func(v *Values) string { return strings.Join(v.Exclude, "\x00") },
		},
	}
}

// sourceSettings say where events and snapshots come from.
func sourceSettings() []Setting {
	return []Setting{
		{
			Name: "event-driven", Placeholder: "SOURCE", Default: "auto", Choices: []string{"auto", "ebpf", "connector", "off"},
			Help: "Source of events between snapshots, so that no process is missed, however short it lives (Linux): ebpf needs CAP_BPF and CAP_PERFMON," +
				" connector is the kernel's process connector. auto takes the first that the host lets, off none.",
			parse: one(func(v *Values, s string) error { v.EventDriven = s; return nil }),
			show:  func(v *Values) string { return v.EventDriven },
		},
		{
			Name: "event-buffer", Placeholder: "SIZE", Default: "8MiB", Limits: "a size from 1MiB to 256MiB",
			Help:  "Memory in which the kernel keeps events until procmond has read them. Events that find no room are lost, and a loss event says so.",
			parse: one(parseSizeBetween(1<<20, 256<<20, func(v *Values) *uint64 { return &v.EventBuffer })),
			show:  func(v *Values) string { return fmt.Sprint(v.EventBuffer) },
		},
		{
			Name: "snapshots", Placeholder: "SOURCE", Default: SnapshotsAuto, Choices: []string{SnapshotsAuto, SnapshotsProcfs, SnapshotsPortable},
			Help:  "Source of snapshots: procfs reads Linux's /proc itself, portable uses gopsutil on every system. auto is procfs on Linux, else portable.",
			parse: one(parseSnapshots),
			show:  func(v *Values) string { return v.Snapshots },
		},
	}
}

// metadataSettings are about what is recorded of a process besides what a snapshot
// always has.
func metadataSettings() []Setting {
	return []Setting{
		{
			Name: "enhanced-metadata", Placeholder: "BOOL", Default: "false", Choices: []string{"true", "false"}, Switch: true,
			Help: "Record working directory, control group, container, other namespaces, login and exact memory of each process too;" +
				" on Linux, with snapshots from procfs.",
			parse: one(func(v *Values, s string) error { v.EnhancedMetadata = s == "true"; return nil }),
			show:  func(v *Values) string { return fmt.Sprint(v.EnhancedMetadata) },
		},
		{
			Name: "env-allow", Placeholder: "NAME", Many: true, Limits: "the name of an environment variable; at most 64 of them",
			Help: "Record this environment variable of each process, as it was started with it, with --enhanced-metadata. Secrets are replaced as in arguments.",
			parse: func(v *Values, texts []string) error {
				v.EnvAllow = texts
				return checkEnvNames(texts)
			},
			show: func(v *Values) string { return strings.Join(v.EnvAllow, "\x00") },
		},
	}
}

// hashSettings are about the hashes of executables.
func hashSettings() []Setting {
	return []Setting{
		{
			Name: "compute-hashes", Placeholder: "BOOL", Default: "false", Choices: []string{"true", "false"}, Switch: true,
			Help:  "Compute the SHA-256 of executables, aside. It comes with an event if it is known already, else in a modify soon after.",
			parse: one(func(v *Values, s string) error { v.ComputeHashes = s == "true"; return nil }),
			show:  func(v *Values) string { return fmt.Sprint(v.ComputeHashes) },
		},
		{
			Name: "hash-max-size", Placeholder: "SIZE", Default: "512MiB", Limits: "a size from 1MiB to 1TiB",
			Help:  "Compute no hash of a larger executable; its events say so.",
			parse: one(parseSizeBetween(1<<20, 1<<40, func(v *Values) *uint64 { return &v.HashMaxSize })),
			show:  func(v *Values) string { return fmt.Sprint(v.HashMaxSize) },
		},
		{
			Name: "hash-rate", Placeholder: "SIZE", Default: "32MiB", Limits: "a size from 1MiB to 1TiB",
			Help:  "Read no more than this per second to compute hashes. 32MiB is some 3 % of one core.",
			parse: one(parseSizeBetween(1<<20, 1<<40, func(v *Values) *uint64 { return &v.HashRate })),
			show:  func(v *Values) string { return fmt.Sprint(v.HashRate) },
		},
	}
}
