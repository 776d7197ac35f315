package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/control"
)

// e2eSeed is printed, so that a failure can be had again.
func e2eSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("PROCMOND_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("PROCMOND_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// rounds is n, or what `just e2e` asks for.
func rounds(n int) int {
	if k, err := strconv.Atoi(os.Getenv("PROCMOND_E2E_ROUNDS")); err == nil && k > 0 {
		return k
	}
	return n
}

// ask sends a request to the collector and returns its answer.
func ask(t testing.TB, nc *nats.Conn, subject string, op rpc.Operation, payload any) rpc.Response {
	t.Helper()
	r := rpc.Request{RequestID: "e2e", Operation: op, Deadline: time.Now().Add(30 * time.Second)}
	if payload != nil {
		b, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		r.Payload = b
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return askRaw(t, nc, subject, b)
}

func askRaw(t testing.TB, nc *nats.Conn, subject string, request []byte) rpc.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, subject, request)
	if err != nil {
		t.Fatalf("ask %s %.100s: %v", subject, request, err)
	}
	var answer rpc.Response
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		t.Fatalf("answer %.200s: %v", m.Data, err)
	}
	return answer
}

// TestBeginsWithItsAgent: the collector waits for its agent's word, begins within
// a second after it, and hears it twice without harm.
func TestBeginsWithItsAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.collector("--begin-timeout", "never")
	s := r.awaitState("the collector", func(*control.State) bool { return true })
	if s.Collector.State != "waiting_for_agent" || s.Cycle.Count != 0 || s.Coordinated {
		t.Fatalf("without its agent: %+v, head %d", s.Collector, s.Store.Head)
	}
	agent := r.agent("--expect", "procmond", "--expect", "late")
	_ = agent
	r.awaitRegistered()
	nc := r.operator()
	for name, message := range map[string]string{
		"no JSON": "begin", "another operation": `{"request_id":"x","operation":"Begin","deadline":"2099-01-01T00:00:00Z"}`,
		"no operation": `{}`, "trailing text": `{"operation":"BeginMonitoring"} x`,
	} {
		answer := askRaw(t, nc, rpc.CollectorSubject("procmond"), []byte(message))
		if answer.Status != rpc.StatusError {
			t.Errorf("%s: %+v", name, answer)
		}
	}
	if s := r.state(); s == nil || s.Collector.State != "waiting_for_agent" || s.Cycle.Count != 0 {
		t.Fatalf("began without its agent's word: %+v", s)
	}
	asked := time.Now()
	if out, code := r.ask("begin", "procmond"); code != 0 {
		t.Fatalf("begin: exit %d: %s", code, out)
	}
	s = r.awaitState("monitoring", func(s *control.State) bool { return s.Collector.State == "running" && s.Cycle.LastAt != nil })
	if began := s.Cycle.LastAt.Sub(asked); began > time.Second {
		t.Errorf("it began %v after the word", began)
	}
	if !s.Coordinated || s.Mode != "coordinated" {
		t.Errorf("coordinated %v, mode %s", s.Coordinated, s.Mode)
	}
	var again rpc.BeginResult
	answer := ask(t, nc, rpc.CollectorSubject("procmond"), rpc.OpBeginMonitoring, nil)
	if err := json.Unmarshal(answer.Payload, &again); err != nil || answer.Status != rpc.StatusOK || again.Changed {
		t.Errorf("begin again: %+v %v", answer, err)
	}
}

// TestBeginsAlone: without an agent it begins after the timeout, says so, and
// delivers everything once there is one.
func TestBeginsAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.collector("--begin-timeout", "2s")
	s := r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 })
	if s.Coordinated || s.Health != control.HealthDegraded || !strings.Contains(s.Collector.Cause, "no agent") {
		t.Errorf("alone: coordinated %v, %s, %+v", s.Coordinated, s.Health, s.Collector)
	}
	if waited := s.Cycle.LastAt.Sub(*s.StartedAt); waited < 2*time.Second {
		t.Errorf("it began after %v", waited)
	}
	agent := r.agent()
	s = r.awaitState("coordination", func(s *control.State) bool { return s.Coordinated })
	if s.Transitions[len(s.Transitions)-1].To == "running" && s.Transitions[len(s.Transitions)-1].Machine == "collector" {
		t.Errorf("coordination is no transition: %+v", s.Transitions)
	}
	r.awaitDelivered()
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	r.compare(r.inStream(), r.inStore())
	if code := agent.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}

// TestStreamIsTheStore: while processes come and go the agent is killed again and
// again, once for longer than its duplicate window, then the collector too; in the
// end the stream holds what the store holds.
func TestStreamIsTheStore(t *testing.T) {
	t.Parallel()
	rng := e2eSeed(t)
	r := newRig(t)
	agentArgs := []string{"--duplicate-window", "1s"}
	agent, p := r.agent(agentArgs...), r.collector()
	r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 })
	storm := startStorm(t, 20, time.Second, 8*time.Second, 0)
	kills := rounds(5)
	for kill := range kills {
		head := r.awaitRegistered().Store.Head
		r.awaitState("new events", func(s *control.State) bool { return s.Store.Head > head })
		wait(time.Duration(rng.IntN(800)) * time.Millisecond)
		agent.kill()
		if kill == kills/2 {
			wait(3 * time.Second) // longer than the duplicate window
		}
		agent = r.agent(agentArgs...)
	}
	r.awaitRegistered()
	p.kill()
	p = r.collector()
	s := r.awaitRegistered()
	head := s.Store.Head
	r.awaitState("events of the new run", func(s *control.State) bool { return s.Store.Head > head && s.Cycle.Count > 0 })
	storm.stop()
	t.Logf("%d processes", storm.count())
	if code := p.stop(); code != 0 {
		t.Fatalf("the collector ended with %d", code)
	}
	inStore := r.inStore()
	r.compare(r.inStream(), inStore)
	var decoded event.Event
	if err := event.Decode(inStore[0].data, &decoded); err != nil {
		t.Error(err)
	}
}

// wait lets a random moment pass; nothing is expected of it.
func wait(d time.Duration) { <-time.After(d) }

// TestFullStream: nothing is lost while the agent's stream has no room; the
// collector slows down, says why, and all is as before once there is room.
func TestFullStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	agent := r.agent("--max-bytes", "1MiB")
	p := r.collector()
	startStorm(t, 60, 2*time.Second, 6*time.Second, 3000)
	s := r.awaitState("a full stream", func(s *control.State) bool { return s.Pressure.On && s.Delivery.State == "full" })
	if s.Interval.CurrentS != 7.5 || s.Interval.ConfiguredS != 5 || s.Health != control.HealthDegraded ||
		!strings.Contains(strings.Join(s.Reasons, " "), "full") {
		t.Errorf("under pressure: %+v %s %q", s.Interval, s.Health, s.Reasons)
	}
	head := s.Store.Head
	r.awaitState("events all the same", func(s *control.State) bool { return s.Store.Head > head })
	if code := agent.stop(); code != 0 {
		t.Fatalf("the agent ended with %d", code)
	}
	r.agent("--max-bytes", "64MiB")
	r.awaitState("relief", func(s *control.State) bool {
		return !s.Pressure.On && s.Interval.CurrentS == 5 && s.Registration.State == "registered" && s.Store.BacklogEvents == 0
	})
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	r.compare(r.inStream(), r.inStore())
}

// TestGracefulShutdownByTheAgent: it delivers all, takes its leave, answers, ends.
func TestGracefulShutdownByTheAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.agent()
	p := r.collector()
	r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 })
	answer := ask(t, r.operator(), rpc.CollectorSubject("procmond"), rpc.OpGracefulShutdown, rpc.Shutdown{Reason: "a test"})
	var result rpc.ShutdownResult
	if err := json.Unmarshal(answer.Payload, &result); err != nil || answer.Status != rpc.StatusOK || !result.Complete || result.Undelivered != 0 {
		t.Errorf("%+v %+v %v", answer, result, err)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	out, _ := r.ask("collectors", "-o", "json")
	var known []rpc.CollectorReport
	if err := json.Unmarshal([]byte(out), &known); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, k := range known {
		if k.Liveness != rpc.LivenessGone {
			t.Errorf("it did not take its leave: it is %s", k.Liveness)
		}
	}
	inStore := r.inStore()
	r.compare(r.inStream(), inStore)
	if result.Delivered != uint64(len(inStore)) {
		t.Errorf("delivered up to %d of %d", result.Delivered, len(inStore))
	}
	var last event.Event
	if err := event.Decode(inStore[len(inStore)-1].data, &last); err != nil || last.Sensor == nil || last.Sensor.What != event.SensorStopped ||
		!strings.Contains(last.Sensor.Detail, "a test") {
		t.Errorf("last event %+v %v", last, err)
	}
}

// TestRequestsOfTheAgent: all or nothing, hot and cold keys; the interval can be
// adjusted.
func TestRequestsOfTheAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.agent()
	r.collector()
	r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 && s.Coordinated })
	nc, subject := r.operator(), rpc.CollectorSubject("procmond")
	values := func(pairs ...string) rpc.UpdateConfig {
		u := rpc.UpdateConfig{Values: map[string]json.RawMessage{}}
		for i := 0; i < len(pairs); i += 2 {
			u.Values[pairs[i]] = json.RawMessage(pairs[i+1])
		}
		return u
	}
	bad := ask(t, nc, subject, rpc.OpUpdateConfig, values("max_events_in_flight", "7", "collection_interval", `"1s"`, "nonsense", "1"))
	if bad.Error == nil || bad.Error.Code != rpc.CodeInvalid || len(bad.Error.Details) != 2 {
		t.Errorf("%+v", bad.Error)
	}
	if s := r.state(); s.Delivery.Window != 1000 || s.Config.Version != 1 {
		t.Errorf("a refused update had an effect: %+v %+v", s.Delivery, s.Config)
	}
	good := ask(t, nc, subject, rpc.OpUpdateConfig, values("max_events_in_flight", "7", "cpu_change_threshold", "80", "retention", `"1h"`))
	var result rpc.ConfigResult
	if err := json.Unmarshal(good.Payload, &result); err != nil || result.Version != 2 || strings.Join(result.RestartRequired, "") != "retention" {
		t.Errorf("%+v %s %v", good.Error, good.Payload, err)
	}
	r.awaitState("the new window", func(s *control.State) bool { return s.Delivery.Window == 7 && s.Config.Version == 2 })

	if answer := ask(t, nc, subject, rpc.OpAdjustInterval, map[string]any{"interval_ms": 60000}); answer.Error != nil {
		t.Errorf("%+v", answer.Error)
	}
	if s := r.state(); s.Interval.CurrentS != 60 || s.Interval.ConfiguredS != 5 {
		t.Errorf("%+v", s.Interval)
	}
	health := ask(t, nc, subject, rpc.OpHealthCheck, nil)
	var doc control.State
	if err := json.Unmarshal(health.Payload, &doc); err != nil || doc.PID == 0 || len(doc.RPC) < 2 || doc.Store.Epoch == "" {
		t.Errorf("%s %v", health.Payload, err)
	}
	checkClearAnswers(t, nc, subject)
	r.awaitRegistered()
	if out, code := r.ask("interval", "procmond", "1m30s"); code != 0 || !strings.Contains(out, "every 1m30s (configured: 5s)") {
		t.Errorf("exit %d: %s", code, out)
	}
	s := r.state()
	if s.Collector.State != "running" || s.Interval.CurrentS != 90 {
		t.Errorf("bad requests had an effect: %+v %+v", s.Collector, s.Interval)
	}
}

// checkClearAnswers sends what nobody should.
func checkClearAnswers(t *testing.T, nc *nats.Conn, subject string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute).Format(time.RFC3339)
	past := time.Now().Add(-time.Second).Format(time.RFC3339Nano)
	for name, c := range map[string]struct {
		request string
		code    rpc.Code
	}{
		"wrong JSON":        {`{"operation":`, rpc.CodeMalformed},
		"1 MiB":             {`{"operation":"HealthCheck","correlation_id":"` + strings.Repeat("x", 1<<20-100) + `"}`, rpc.CodeTooLarge},
		"unknown operation": {`{"request_id":"1","operation":"Explode","deadline":"` + deadline + `"}`, rpc.CodeUnknownOperation},
		"past deadline":     {`{"request_id":"1","operation":"GracefulShutdown","deadline":"` + past + `"}`, rpc.CodeDeadline},
		"no deadline":       {`{"request_id":"1","operation":"GracefulShutdown"}`, rpc.CodeMalformed},
		"wrong payload":     {`{"request_id":"1","operation":"AdjustInterval","deadline":"` + deadline + `","payload":[1]}`, rpc.CodeMalformed},
		"negative interval": {`{"request_id":"1","operation":"AdjustInterval","deadline":"` + deadline + `","payload":{"interval_ms":-5}}`, rpc.CodeInvalid},
	} {
		answer := askRaw(t, nc, subject, []byte(c.request))
		if answer.Status != rpc.StatusError || answer.Error == nil || answer.Error.Code != c.code || answer.Error.Message == "" {
			t.Errorf("%s: %+v %+v, want %s", name, answer, answer.Error, c.code)
		}
	}
}

// TestAgentStartsItsCollector is the README's third command, and the agent's crash
// over a living collector.
func TestAgentStartsItsCollector(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	args := []string{"--collector", filepath.Join(r.bin, "procmond"), "--collector-arg=--database=" + r.database, "--collector-arg=--interval=5"}
	agent := r.agent(args...)
	s := r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 && s.Coordinated })
	first := s.PID
	agent.kill()
	agent = r.agent(args...)
	s = r.awaitState("the collector with its new agent", func(s *control.State) bool {
		return s.Registration.State == "registered" && s.Registration.AgentID != "" && s.Delivery.State != "disconnected"
	})
	if s.PID != first {
		t.Errorf("the collector was %d and is %d: it should have lived on", first, s.PID)
	}
	if code := agent.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}
