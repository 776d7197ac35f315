package control

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// exampleState has no field at its zero value, so that none can be forgotten.
func exampleState() *State {
	at := func(minute int) *time.Time {
		t := time.Date(2026, 11, 22, 12, minute, 0, 0, time.UTC)
		return &t
	}
	clean := true
	return &State{
		Mode: "standalone", Running: true, Health: HealthDegraded, Reasons: []string{"Something is not as it should be."},
		PID: 4711, Version: "1.0.0", Coordinated: true, HostID: "0f1e2d3c", BootID: "b4a5", StartedAt: at(0), AsOf: at(9), Clean: &clean,
		Collector:    Collector{State: "running", Since: at(1), Cause: "standalone", Activity: "idle", ActivityMS: 12, LastError: "read process 7: I/O error", TableSize: 75, Waiting: 2},
		Registration: Registration{State: "unregistered", Since: at(0), Cause: "initial", Attempts: 1, Failures: 1, Heartbeats: Heartbeats{Sent: 1, Failed: 1}, AgentID: "8899aabbccddeeff", AgentVersion: "1.0.0", HeartbeatIntervalMS: 10000, LastError: "no answer within 2s"},
		Config:       ConfigState{Version: 2, Pending: []string{"collection_interval"}},
		Sources:      Sources{Events: "connector", EventsWanted: "auto", EventsSince: at(1), EventsNote: "ebpf: the daemon has no CAP_BPF", EventsMend: "grant CAP_BPF", EventsLimits: "the kernel queues 208 KiB for it and not 8192", Snapshots: "procfs", EnhancedMetadata: "on", RSSKind: "exact"},
		Interval:     Interval{ConfiguredS: 30, CurrentS: 45, Reason: "configured, stretched by pressure"},
		Cycle:        Cycle{Count: 3, LastAt: at(8), DurationMS: 12.5, Processes: 75, Events: 2, LeftOut: 1, Excluded: 1, Held: 1, Vanished: 1, Hidden: 1, Unreadable: 1, Unconfirmed: 1},
		Totals:       Totals{Events: 80, ScansFailed: 1, ShortLived: 1, Outages: 1, NotesLost: 1, LogLinesLost: 1, KernelEvents: 9, KernelEventsUnmatched: 1, KernelEventsLost: LostEvents{Forks: 1, Execs: 2, Exits: 3, Other: 4}, LossWindows: 1},
		Hashes: &Hashes{
			Hashed: 40, Bytes: 1 << 25, Hits: 30, Misses: 45, Skipped: 1, Deferred: 1, Cached: 39, Waiting: 1, Stuck: 1, Suspended: true,
			Skips: []HashSkip{{Reason: "too big", Count: 1}},
		},
		Store: Store{
			Path: "/var/lib/daemoneye/processes.db", InService: true, Reason: "no space left on the file system", Since: at(1), Epoch: "00112233445566778899aabbccddeeff",
			Head: 80, Floor: 1, Kept: 80, Cursor: 1, BacklogEvents: 1, BacklogBytes: 300, BacklogBudget: 512 << 20, Shed: 1, Sheds: 1, Bytes: 1 << 20, Appends: 5, Syncs: 7, Removed: 1, Reopens: 1,
			QuarantinedTo: "/var/lib/daemoneye/processes.db.corrupt-20261122T115900Z", QuarantinedAt: at(2),
			RewoundTo: "/var/lib/daemoneye/processes.db.rewound-20261122T115900Z", RewoundAt: at(2),
		},
		Services: []Service{{
			Path: "collection/collector", State: "running", Since: at(3), Restarts: 1, Panics: 1, LastError: "panic: boom", LastErrorAt: at(3),
			LastPanic: "boom (collect/table.go:12)", BackoffUntil: at(4), Activity: "idle", BeatAgeMS: 900,
		}},
		Loss:        []Loss{{Cause: "down", Count: 1, Missing: 1}},
		Transitions: []Transition{{Machine: "collector", From: "waiting_for_agent", To: "running", Event: "begin", Cause: "standalone", At: *at(1)}},
		Link: &Link{
			Socket: "/run/daemoneye/broker.sock", ID: "procmond", Refused: 1,
			Control: Connection{State: "connected", Since: at(1), Reconnects: 1, LastError: "connection refused"},
			Events:  Connection{State: "reconnecting", Since: at(2), Reconnects: 2, LastError: "connection refused"},
		},
		Delivery: &Delivery{
			State: "sending", Since: at(3), Window: 1000, LastSeq: 79, Delivered: 78, Batches: 4, Duplicates: 1, Resumes: 2, Full: 1, Unknown: 1,
			InFlightMS: 3, LastAckMS: 4.5, FailingSince: at(4), LastError: "no answer within 10s", LastErrorAt: at(4),
		},
		Pressure: Pressure{On: true, Since: at(5), Cause: "The agent's stream is full.", Switches: 1},
		RPC:      []Operation{{Operation: "HealthCheck", Count: 3, Errors: 1, Timeouts: 1}},
	}
}

// TestStateContract holds the document to its golden form. A difference that
// removes or renames a field breaks whoever reads it.
func TestStateContract(t *testing.T) {
	const golden = "testdata/state.json"
	got, err := json.MarshalIndent(exampleState(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the contract changed (-golden +now):\n%s", diff)
	}
	assertNoZero(t, reflect.ValueOf(*exampleState()), "State")
}

func assertNoZero(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	if v.IsZero() {
		t.Errorf("%s is zero in the example: the golden file does not show it", path)
	}
	if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() {
		for i := range v.NumField() {
			assertNoZero(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	}
	if v.Kind() == reflect.Slice && v.Len() > 0 {
		assertNoZero(t, v.Index(0), path+"[0]")
	}
}

// fieldNames lists the JSON names of a type, with their paths.
func fieldNames(typ reflect.Type, prefix string) []string {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
		return nil
	}
	var names []string
	for i := range typ.NumField() {
		field := typ.Field(i)
		name := prefix + field.Tag.Get("json")
		suffix := "."
		if field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct {
			suffix = "[]."
		}
		names = append(names, name)
		names = append(names, fieldNames(field.Type, name+suffix)...)
	}
	return names
}

// TestStateIsDocumented: each field has a row in docs/state-json.md, and each
// row a field.
func TestStateIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/state-json.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			documented = append(documented, name)
		}
	}
	actual := fieldNames(reflect.TypeFor[State](), "")
	for _, name := range actual {
		if !slices.Contains(documented, name) {
			t.Errorf("%s is not documented", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(actual, name) {
			t.Errorf("%s is documented and does not exist", name)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for health, want := range map[string]int{HealthHealthy: 0, HealthDegraded: 1, HealthUnhealthy: 2, HealthNotResponding: 2, HealthNotRunning: 3} {
		if got := (&State{Health: health}).ExitCode(); got != want {
			t.Errorf("%s: exit code %d, want %d", health, got, want)
		}
	}
}

func TestMetricsAreValidAndTellTheState(t *testing.T) {
	r := serve(t, nil)
	r.daemon.set(func(s *State) { s.Services[0].Path = "bad\xff\"\n\\path" })
	body, err := r.client.request(t.Context(), "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		t.Fatalf("not Prometheus text: %v", err)
	}
	for name, want := range map[string]float64{
		"procmond_store_head": 80, "procmond_processes": 75, "procmond_cycles_total": 3,
		"procmond_loss_events_total": 1, "procmond_service_restarts_total": 1,
	} {
		family := families[name]
		if family == nil || len(family.Metric) != 1 {
			t.Errorf("%s: %v, want one metric", name, family)
			continue
		}
		m := family.Metric[0]
		if got := m.GetGauge().GetValue() + m.GetCounter().GetValue(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if path := families["procmond_service_restarts_total"].Metric[0].Label[0].GetValue(); path != "bad\uFFFD\"\n\\path" {
		t.Errorf("label came as %q", path)
	}
	present := map[string]float64{}
	for _, m := range families["procmond_machine_state"].GetMetric() {
		present[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = m.GetGauge().GetValue()
	}
	want := map[string]float64{
		"collector waiting_for_agent": 0, "collector running": 1, "collector shutting_down": 0, "collector stopped": 0,
		"registration unregistered": 1, "registration registering": 0, "registration registered": 0, "registration deregistering": 0, "registration failed": 0,
	}
	if diff := cmp.Diff(want, present); diff != "" {
		t.Errorf("machine states (-want +got):\n%s", diff)
	}
}
