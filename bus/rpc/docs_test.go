package rpc

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

var update = flag.Bool("update", false, "write the examples into docs/messages.md again")

const page = "../../docs/messages.md"

// raw is a payload of an example.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// examples are the messages that docs/messages.md shows, by their mark there. No
// field is left out, so that none goes without mention.
func examples() map[string]any {
	at := func(second int) time.Time { return time.Date(2026, 11, 23, 12, 0, second, 0, time.UTC) }
	then := func(second int) *time.Time { t := at(second); return &t }
	epoch := "00112233445566778899aabbccddeeff"
	position := Position{Epoch: epoch, Seq: 79, StreamCreated: at(0)}
	registration := Registration{
		Protocol: Protocol, ID: "procmond", Instance: "8899aabbccddeeff", Version: "1.0.0", HostID: "web-1", BootID: "b4a5",
		PID: 4711, StartedAt: at(1), State: "waiting_for_agent", Epoch: epoch, Head: 80,
	}
	heartbeat := Heartbeat{
		ID: "procmond", Instance: "8899aabbccddeeff", Sequence: 7, At: at(40), Health: "degraded", Reasons: []string{"Snapshots are taken less often: the backlog is at 71 %."},
		Collector: "running", Registration: "registered", Coordinated: true,
		Epoch: epoch, Head: 180, Cursor: 80, BacklogEvents: 100, BacklogBytes: 30000, BacklogBudget: 42000, BacklogLevel: 0.71,
		Pressure: true, PressureCause: "The backlog is at 71 %.", IntervalMS: 45000,
		Connection: Connection{Control: "connected", Events: "connected", Reconnects: 1},
		Since:      Counters{Cycles: 1, Events: 100, Delivered: 20, Restarts: 1}, Registrations: 1, RegistrationFailures: 1, HeartbeatsSent: 7, HeartbeatsFailed: 1,
	}
	request := func(op Operation, payload any) Request {
		r := Request{RequestID: "4f1c", Operation: op, Deadline: at(45), CorrelationID: "ticket-12"}
		if payload != nil {
			r.Payload = raw(payload)
		}
		return r
	}
	response := func(op Operation, payload any) Response {
		r := Response{RequestID: "4f1c", Operation: op, CorrelationID: "ticket-12", Status: StatusOK, ExecutionTimeMS: 0.8}
		if payload != nil {
			r.Payload = raw(payload)
		}
		return r
	}
	refusal := response(OpUpdateConfig, nil)
	refusal.Status = StatusError
	refusal.Error = &Error{
		Code: CodeInvalid, Message: "Configuration refused; nothing was changed.",
		Details: []Detail{{Key: "collection_interval", Reason: "value is 1s: want 5s to 1h0m0s"}},
	}
	interval, full := int64(60000), 3600.0
	report := AgentReport{
		AgentID: "77665544", Version: "1.0.0", PID: 4700, State: "steady", Since: at(5), Cause: "all collectors were told to begin", StartedAt: at(0),
		Expected: []string{"procmond"}, Missing: []string{"web-2"}, Warnings: []string{"Nobody consumes the stream: it is full in 1 h."},
		Collectors: []CollectorReport{{
			ID: "procmond", Liveness: LivenessHealthy, Expected: true, Ready: true, Begun: true, RegisteredAt: then(2), HeardAt: then(40), Missed: 1,
			Registration: &registration, Heartbeat: &heartbeat, LastError: "begin: no answer within 2s",
			Child: &Child{Command: "/usr/bin/procmond run", State: "running", PID: 4711, Restarts: 1, LastExit: "exit status 70", StartedAt: then(1), RetryAt: then(9)},
		}},
		Stream: StreamReport{
			Name: Stream, Created: then(0), Messages: 80, Bytes: 24000, MaxBytes: 1 << 30, MaxAgeS: 604800, FirstSeq: 1, LastSeq: 80, Consumers: 1, Purged: 10,
			FullInS: &full, InService: true, LastFault: "no space left on device", LowestAck: 10, RateEventS: 2.5,
		},
		Services:    []ServiceReport{{Path: "broker/server", State: "running", Restarts: 1, Panics: 1, LastError: "panic: boom"}},
		Refused:     []Refusal{{Reason: "wrong secret", Count: 1, Last: "user procmond"}},
		Transitions: []Transition{{From: "ready", To: "steady", Event: "begin", Cause: "all collectors were told to begin", At: at(5)}},
	}
	return map[string]any{
		"register":          request(OpRegister, registration),
		"registered":        response(OpRegister, Accepted{AgentID: "77665544", AgentVersion: "1.0.0", HeartbeatIntervalMS: 10000, Last: position}),
		"last":              request(OpLast, nil),
		"last-answer":       response(OpLast, position),
		"deregister":        request(OpDeregister, Farewell{Instance: "8899aabbccddeeff", Reason: "stopped by the operator", Undelivered: 1}),
		"heartbeat":         heartbeat,
		"begin-all":         Request{RequestID: "4f1c", Operation: OpBeginMonitoring, Deadline: at(45), Payload: raw(Begin{AgentID: "77665544"})},
		"begin":             request(OpBeginMonitoring, Begin{AgentID: "77665544"}),
		"begun":             response(OpBeginMonitoring, BeginResult{Changed: true, Coordinated: true}),
		"health":            request(OpHealthCheck, nil),
		"update":            request(OpUpdateConfig, UpdateConfig{Values: map[string]json.RawMessage{"collection_interval": raw("60s"), "max_events_in_flight": raw(500)}, ValidateOnly: true}),
		"updated":           response(OpUpdateConfig, ConfigResult{Version: 2, Applied: []string{"max_events_in_flight"}, Pending: []string{"collection_interval"}, RestartRequired: []string{"retention"}}),
		"refused":           refusal,
		"adjust":            request(OpAdjustInterval, AdjustInterval{IntervalMS: &interval}),
		"adjust-clear":      request(OpAdjustInterval, AdjustInterval{Clear: true}),
		"adjusted":          response(OpAdjustInterval, IntervalResult{ConfiguredMS: 30000, CurrentMS: 90000, Reason: "adjusted, stretched by pressure"}),
		"shutdown":          request(OpGracefulShutdown, Shutdown{Reason: "host is going down"}),
		"shut-down":         response(OpGracefulShutdown, ShutdownResult{Complete: true, Detail: "1 event waits for the next run", Delivered: 179, Undelivered: 1}),
		"collectors":        request(OpCollectors, nil),
		"collectors-answer": response(OpCollectors, report),
		"operator-begin":    request(OpBegin, Target{ID: "procmond"}),
		"operator-stop":     request(OpStop, Target{ID: "procmond", Reason: "maintenance"}),
	}
}

// TestExamplesAreCurrent: each example of the page is what the types say, and each
// type has one.
func TestExamplesAreCurrent(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	all := examples()
	block := regexp.MustCompile("(?s)<!-- example: ([a-z-]+) -->\n```json\n(.*?)```\n")
	shown := map[string]bool{}
	now := block.ReplaceAllStringFunc(string(text), func(old string) string {
		name := block.FindStringSubmatch(old)[1]
		if all[name] == nil {
			t.Errorf("example %q is on the page and does not exist", name)
			return old
		}
		shown[name] = true
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(all[name]); err != nil {
			t.Fatal(err)
		}
		return "<!-- example: " + name + " -->\n```json\n" + b.String() + "```\n"
	})
	for name := range all {
		if !shown[name] {
			t.Errorf("example %q is not on the page", name)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(now), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), now); diff != "" {
		t.Errorf("the page is not current (-page +types): go test ./bus/rpc -update\n%s", diff)
	}
}

// TestExamplesSayEverything: no field of a message is at its zero value in all
// examples.
func TestExamplesSayEverything(t *testing.T) {
	for _, v := range []any{
		Registration{},
		Accepted{},
		Position{},
		Farewell{},
		Begin{},
		BeginResult{},
		UpdateConfig{},
		ConfigResult{},
		AdjustInterval{},
		IntervalResult{},
		Shutdown{},
		ShutdownResult{},
		Heartbeat{},
		AgentReport{},
		Target{},
		Request{},
		Response{},
		Error{},
	} {
		typ := reflect.TypeOf(v)
		var keys strings.Builder
		for _, example := range examples() {
			keys.Write(raw(example))
		}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(keys.String(), `"`+name+`":`) {
				t.Errorf("%s.%s is in no example", typ.Name(), name)
			}
		}
	}
}

// TestPageNamesEverySubject: the subjects of the page are those of the code.
func TestPageNamesEverySubject(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		SubjectLifecycle, SubjectAgent, RegistrationSubject("<id>"), CollectorSubject("<id>"), HeartbeatSubject("<id>"),
		strings.Replace(EventSubject(event.KindStart, "<host>", "<id>"), "start", "<kind>", 1), InboxPrefix("<id>") + ".>", InboxPrefix(ReaderUser("siem")) + ".>",
	} {
		if !bytes.Contains(text, []byte("`"+subject+"`")) {
			t.Errorf("%s is not on the page", subject)
		}
	}
	for _, code := range []Code{
		CodeMalformed, CodeTooLarge, CodeUnknownOperation, CodeDeadline, CodeTimeout, CodeBusy, CodeInvalid, CodeShuttingDown,
		CodeUnavailable, CodeRejected, CodeNotFound, CodeUnauthorized, CodeInternal,
	} {
		if !bytes.Contains(text, []byte("| `"+string(code)+"` |")) {
			t.Errorf("code %s is not on the page", code)
		}
	}
}
