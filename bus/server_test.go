package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// desk is a server with the operations of a test.
type desk struct {
	*Server
	b       *testBroker
	begun   atomic.Int64
	entered chan struct{} // one value for each request that waits
	release chan struct{} // closed by the test
	missed  atomic.Int64  // handlers whose context ended
}

const (
	opEcho  rpc.Operation = "Echo"
	opWait  rpc.Operation = "Wait"  // until released, or its context ends
	opStone rpc.Operation = "Stone" // until released
	opPanic rpc.Operation = "Panic"
	opExit  rpc.Operation = "Exit"
	opFail  rpc.Operation = "Fail"
	opBig   rpc.Operation = "Big"
)

func newDesk(tb testing.TB) *desk {
	tb.Helper()
	b := newTestBroker(tb)
	b.start()
	d := &desk{b: b, entered: make(chan struct{}, 100), release: make(chan struct{})}
	s, err := NewServer(ServerConfig{Link: b.link(), Log: quiet(), Operations: d.operations()})
	must(tb, err)
	s.grace = 200 * time.Millisecond
	d.Server = s
	return d
}

func (d *desk) operations() map[rpc.Operation]Operation {
	type none struct{}
	return map[rpc.Operation]Operation{
		rpc.OpBeginMonitoring: Handle(func(context.Context, rpc.Begin) (rpc.BeginResult, error) {
			return rpc.BeginResult{Changed: d.begun.Add(1) == 1}, nil
		}),
		opEcho: Handle(func(_ context.Context, p map[string]string) (map[string]string, error) { return p, nil }),
		opWait: Handle(func(ctx context.Context, _ none) (none, error) {
			d.entered <- struct{}{}
			select {
			case <-d.release:
				return none{}, nil
			case <-ctx.Done():
				d.missed.Add(1)
				return none{}, fmt.Errorf("wait: %w", ctx.Err())
			}
		}),
		opStone: Handle(func(context.Context, none) (none, error) { d.entered <- struct{}{}; <-d.release; return none{}, nil }),
		opPanic: Handle(func(context.Context, none) (none, error) { panic("at the disco") }),
		opExit:  Handle(func(context.Context, none) (none, error) { runtime.Goexit(); return none{}, nil }),
		opFail: Handle(func(_ context.Context, kind string) (none, error) {
			switch kind {
			case "rpc":
				return none{}, fmt.Errorf("wrapped: %w", &rpc.Error{Code: rpc.CodeInvalid, Message: "no", Details: []rpc.Detail{{Key: "k", Reason: "r"}}})
			case "foreign":
				return none{}, context.Canceled
			}
			return none{}, errors.New("disk on fire")
		}),
		opBig: Handle(func(context.Context, none) (string, error) { return strings.Repeat("x", 2<<20), nil }),
	}
}

// listening waits until the broker knows the server.
func (d *desk) listening() {
	eventually(d.b.tb, "the server listens", func() bool {
		_, err := d.b.nc().Request(rpc.CollectorSubject(testID), []byte("{}"), time.Second)
		return err == nil
	})
}

// raw sends bytes and returns the answer.
func (d *desk) raw(data []byte) rpc.Response {
	d.b.tb.Helper()
	msg, err := d.b.nc().Request(rpc.CollectorSubject(testID), data, 10*time.Second)
	must(d.b.tb, err)
	var r rpc.Response
	must(d.b.tb, json.Unmarshal(msg.Data, &r))
	return r
}

func request(op rpc.Operation, payload string, in time.Duration) []byte {
	r := rpc.Request{RequestID: "r1", CorrelationID: "c1", Operation: op, Deadline: time.Now().Add(in), Payload: json.RawMessage(payload)}
	data, _ := json.Marshal(&r)
	return data
}

func (d *desk) ask(op rpc.Operation, payload string) rpc.Response {
	d.b.tb.Helper()
	return d.raw(request(op, payload, 10*time.Second))
}

func codeOf(r rpc.Response) rpc.Code {
	if r.Error == nil {
		return ""
	}
	return r.Error.Code
}

func (d *desk) stat(op rpc.Operation) rpc.OperationStats {
	stats := d.Stats()
	return stats[slices.IndexFunc(stats, func(s rpc.OperationStats) bool { return s.Operation == op })]
}

func TestServerAnswers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	run(t, d)
	d.listening()
	r := d.ask(opEcho, `{"a":"b"}`)
	if r.ExecutionTimeMS < 0 || r.ExecutionTimeMS > 1000 {
		t.Error(r.ExecutionTimeMS)
	}
	r.ExecutionTimeMS = 0
	if diff := cmp.Diff(rpc.Response{RequestID: "r1", CorrelationID: "c1", Operation: opEcho, Status: rpc.StatusOK, Payload: json.RawMessage(`{"a":"b"}`)}, r); diff != "" {
		t.Error(diff)
	}
	for payload, want := range map[string]string{"": "null", "null": "null", "{}": "{}"} {
		if r := d.ask(opEcho, payload); string(r.Payload) != want || r.Status != rpc.StatusOK {
			t.Errorf("%q: %+v", payload, r)
		}
	}
	if s := d.stat(opEcho); s.Count != 4 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
	if r := d.ask(rpc.OpBeginMonitoring, ""); string(r.Payload) != `{"changed":true,"coordinated":false}` {
		t.Errorf("%s", r.Payload)
	}
}

func TestServerRefuses(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	run(t, d)
	d.listening()
	now := time.Now().Add(time.Minute).Format(time.RFC3339)
	deep := strings.Repeat("[", 30000) + strings.Repeat("]", 30000)
	for name, c := range map[string]struct {
		data string
		want rpc.Code
	}{
		"nothing":           {"", rpc.CodeMalformed},
		"no JSON":           {"hello", rpc.CodeMalformed},
		"no object":         {"[]", rpc.CodeMalformed},
		"null":              {"null", rpc.CodeMalformed},
		"half":              {`{"request_id":"a"`, rpc.CodeMalformed},
		"garbage after":     {`{"request_id":"a","operation":"Echo","deadline":"` + now + `"}x`, rpc.CodeMalformed},
		"two":               {`{"request_id":"a","operation":"Echo","deadline":"` + now + `"}{}`, rpc.CodeMalformed},
		"wrong type":        {`{"request_id":7,"operation":"Echo","deadline":"` + now + `"}`, rpc.CodeMalformed},
		"bad time":          {`{"request_id":"a","operation":"Echo","deadline":"tomorrow"}`, rpc.CodeMalformed},
		"deep":              {`{"request_id":"a","operation":"Echo","deadline":"` + now + `","payload":` + deep + `}`, rpc.CodeMalformed},
		"not UTF-8":         {`{"request_id":"a` + "\xff" + `","operation":"Echo","deadline":"` + now + `"}`, rpc.CodeMalformed},
		"no id":             {`{"operation":"Echo","deadline":"` + now + `"}`, rpc.CodeMalformed},
		"no operation":      {`{"request_id":"a","deadline":"` + now + `"}`, rpc.CodeMalformed},
		"long id":           {`{"request_id":"` + strings.Repeat("a", 129) + `","operation":"Echo","deadline":"` + now + `"}`, rpc.CodeMalformed},
		"no deadline":       {`{"request_id":"a","operation":"Echo"}`, rpc.CodeMalformed},
		"past deadline":     {`{"request_id":"a","operation":"Echo","deadline":"2020-01-01T00:00:00Z"}`, rpc.CodeDeadline},
		"wrong payload":     {`{"request_id":"a","operation":"Echo","deadline":"` + now + `","payload":[1]}`, rpc.CodeMalformed},
		"unknown operation": {`{"request_id":"a","operation":"` + strings.Repeat("E", 5000) + `","deadline":"` + now + `"}`, rpc.CodeUnknownOperation},
		"1 MiB":             {`{"request_id":"a","operation":"Echo","payload":"` + strings.Repeat("x", 1<<20-100) + `"}`, rpc.CodeTooLarge},
	} {
		r := d.raw([]byte(c.data))
		if codeOf(r) != c.want || r.Status != rpc.StatusError || r.Error.Message == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if raw, _ := json.Marshal(r); len(raw) > 4096 {
			t.Errorf("%s: an answer of %d bytes", name, len(raw))
		}
	}
	if s := d.stat(opEcho); s.Count != s.Errors || s.Count != 3 { // no deadline, past deadline, wrong payload
		t.Errorf("%+v", s)
	}
	if d.stat("").Errors < 16 {
		t.Errorf("%+v", d.Stats())
	}
}

func TestServerMapsErrors(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	run(t, d)
	d.listening()
	if r := d.ask(opFail, `"rpc"`); codeOf(r) != rpc.CodeInvalid || len(r.Error.Details) != 1 || r.Error.Message != "no" {
		t.Errorf("%+v", r.Error)
	}
	if r := d.ask(opFail, `"foreign"`); codeOf(r) != rpc.CodeInternal {
		t.Errorf("%+v", r.Error)
	}
	if r := d.ask(opFail, `"other"`); codeOf(r) != rpc.CodeInternal || r.Error.Message != "disk on fire" {
		t.Errorf("%+v", r.Error)
	}
	if r := d.ask(opBig, ""); codeOf(r) != rpc.CodeInternal || !strings.Contains(r.Error.Message, "could not be sent") {
		t.Errorf("%+v", r.Error)
	}
}

func TestServerHoldsDeadlines(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	r := run(t, d)
	d.listening()
	for _, op := range []rpc.Operation{opWait, opStone} {
		began := time.Now()
		if r := d.raw(request(op, "", 100*time.Millisecond)); codeOf(r) != rpc.CodeTimeout || time.Since(began) > time.Second {
			t.Errorf("%s: %+v after %v", op, r, time.Since(began))
		}
		if s := d.stat(op); s.Timeouts != 1 || s.Errors != 1 || s.Count != 1 {
			t.Errorf("%+v", s)
		}
	}
	r.cancel()
	select {
	case <-r.done:
		t.Error("Serve leaves a handler behind")
	case <-time.After(50 * time.Millisecond):
	}
	close(d.release)
	r.stop()
}

func TestServerIsBusy(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	run(t, d)
	d.listening()
	var busy, ok atomic.Int64
	var all sync.WaitGroup
	for range maxRequests {
		all.Go(func() {
			if codeOf(d.ask(opWait, "")) == "" {
				ok.Add(1)
			}
		})
	}
	for range maxRequests {
		<-d.entered
	}
	for range 50 {
		all.Go(func() {
			if codeOf(d.ask(opWait, "")) == rpc.CodeBusy {
				busy.Add(1)
			}
		})
	}
	eventually(t, "refusals", func() bool { return busy.Load() == 50 })
	close(d.release)
	all.Wait()
	if ok.Load() != maxRequests {
		t.Errorf("%d answers", ok.Load())
	}
	if r := d.ask(opWait, ""); codeOf(r) != "" {
		t.Errorf("%+v", r)
	}
}

func TestServerSurvivesAFlood(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	service := run(t, d)
	d.listening()
	inbox := d.b.nc().NewInbox()
	var answers atomic.Int64
	_, err := d.b.nc().Subscribe(inbox, func(*nats.Msg) { answers.Add(1) })
	must(t, err)
	const n = 20000
	for i := range n {
		data := request(opEcho, `{}`, time.Minute)
		if i%3 == 0 {
			data = []byte("{")
		}
		must(t, d.b.nc().PublishRequest(rpc.CollectorSubject(testID), inbox, data))
	}
	must(t, d.b.nc().Flush())
	eventually(t, "an answer after the flood", func() bool {
		_, err := d.b.nc().Request(rpc.CollectorSubject(testID), request(opEcho, "{}", time.Minute), 200*time.Millisecond)
		return err == nil // the first ones may be dropped with the flood
	})
	service.stop()
	var counted uint64
	for _, s := range d.Stats() {
		counted += s.Count
	}
	if counted < uint64(answers.Load()) || counted+d.Dropped() < n || counted+d.Dropped() > n+1000 {
		t.Errorf("%d counted, %d dropped, %d answered", counted, d.Dropped(), answers.Load())
	}
}

func TestServerTakesOrders(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	run(t, d)
	d.listening()
	inbox, err := d.b.nc().SubscribeSync(d.b.nc().NewInbox())
	must(t, err)
	say := func(data string) {
		t.Helper()
		must(t, d.b.nc().PublishRequest(rpc.SubjectLifecycle, inbox.Subject, []byte(data)))
	}
	bad := []string{
		"", "{}", `{"operation":"BeginMonitoring"}`, `{"request_id":"a","operation":"GracefulShutdown"}`, `{"request_id":"a","operation":"Echo"}`,
		`{"request_id":"a","operation":"BeginMonitoring"}}`, `{"request_id":"a","operation":"beginmonitoring"}`, strings.Repeat("x", rpc.MaxRequest+1),
		`{"request_id":"a","operation":"BeginMonitoring","deadline":"2020-01-01T00:00:00Z"}`,
		`{"request_id":"a","operation":"BeginMonitoring","payload":7}`,
	}
	before := d.stat("").Errors
	for _, data := range bad {
		say(data)
	}
	eventually(t, "all counted", func() bool {
		return d.stat("").Errors-before+d.stat(rpc.OpBeginMonitoring).Errors == uint64(len(bad))
	})
	if d.begun.Load() != 0 {
		t.Fatal("a malformed order had an effect")
	}
	say(`{"request_id":"a","operation":"BeginMonitoring","payload":{"agent_id":"x"}}`)
	eventually(t, "begun", func() bool { return d.begun.Load() == 1 })
	say(`{"request_id":"a","operation":"BeginMonitoring","deadline":"` + time.Now().Add(time.Hour).Format(time.RFC3339Nano) + `"}`)
	eventually(t, "begun twice", func() bool { return d.begun.Load() == 2 })
	if msg, err := inbox.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("an order was answered: %s", msg.Data)
	}
}

// Whoever may ask must not be able to make the collector publish where he may not.
func TestServerAnswersToInboxesOnly(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	run(t, d)
	d.listening()
	must(t, d.b.nc().Publish(rpc.CollectorSubject(testID), request(rpc.OpBeginMonitoring, "", time.Minute)))
	replies := []string{"events.process.start.x." + testID, rpc.HeartbeatSubject(testID), rpc.InboxPrefix(testID) + ".abc"}
	seen, err := d.b.nc().SubscribeSync(">")
	must(t, err)
	for _, reply := range replies {
		must(t, d.b.nc().PublishRequest(rpc.CollectorSubject(testID), reply, request(rpc.OpBeginMonitoring, "", time.Minute)))
	}
	eventually(t, "counted", func() bool { return d.Unanswerable() == uint64(len(replies)+1) })
	d.ask(opEcho, "{}")
	if d.begun.Load() != 0 {
		t.Error("a request that can not be answered had an effect")
	}
	for range len(replies) + 2 {
		msg, err := seen.NextMsg(time.Second)
		must(t, err)
		if slices.Contains(replies, msg.Subject) {
			t.Errorf("published on %s", msg.Subject)
		}
	}
}

func TestServerCrashesWithItsHandler(t *testing.T) {
	t.Parallel()
	for _, op := range []rpc.Operation{opPanic, opExit} {
		d := newDesk(t)
		service := run(t, d)
		d.listening()
		other := make(chan rpc.Response, 1)
		go func() { other <- d.ask(opWait, "") }()
		<-d.entered
		if r := d.ask(op, ""); codeOf(r) != rpc.CodeInternal {
			t.Errorf("%+v", r)
		}
		if r := <-other; codeOf(r) != rpc.CodeUnavailable {
			t.Errorf("%+v", r)
		}
		<-service.done
		if d.missed.Load() != 1 {
			t.Error("Serve leaves a handler behind")
		}
		crash, ok := service.panics.(handlerPanic)
		if !ok || crash.operation != op || (op == opPanic && (!strings.Contains(crash.Error(), "at the disco") || !strings.Contains(crash.place, "bus/server_test.go:"))) {
			t.Errorf("%v", service.panics)
		}
		run(t, d)
		d.listening()
		if r := d.ask(opEcho, "{}"); codeOf(r) != "" || d.stat(op).Errors != 1 {
			t.Errorf("%+v", r)
		}
	}
}

func TestServerFinishesWhatItHasBegun(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.grace = 10 * time.Second
	service := run(t, d)
	d.listening()
	answer := make(chan rpc.Response, 1)
	go func() { answer <- d.ask(opWait, "") }()
	<-d.entered
	service.cancel()
	eventually(t, "nobody listens any more", func() bool {
		_, err := d.b.nc().Request(rpc.CollectorSubject(testID), []byte("{}"), time.Second)
		return errors.Is(err, nats.ErrNoResponders)
	})
	close(d.release)
	if r := <-answer; codeOf(r) != "" {
		t.Errorf("%+v", r)
	}
	service.stop()
}

func TestServerStopsInTime(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	service := run(t, d)
	d.listening()
	answer := make(chan rpc.Response, 1)
	go func() { answer <- d.ask(opWait, "") }()
	<-d.entered
	service.stop()
	if r := <-answer; codeOf(r) != rpc.CodeShuttingDown {
		t.Errorf("%+v", r)
	}
}

func TestServerStopsWithoutAConnection(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	service := run(t, d)
	d.listening()
	d.b.stop()
	eventually(t, "loss seen", func() bool { return !connected(d.cfg.Link) })
	began := time.Now()
	service.stop()
	if d := time.Since(began); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(request(opEcho, `{"a":[1,{"b":null}]}`, time.Minute))
	f.Add([]byte(`{"request_id":"a","operation":"b","deadline":"2020-01-01T00:00:00Z"}`))
	f.Add([]byte("{\"request_id\":\"\xff\"}"))
	f.Add([]byte(strings.Repeat("{\"payload\":", 100)))
	echo := Handle(func(_ context.Context, p rpc.UpdateConfig) (rpc.UpdateConfig, error) { return p, nil })
	f.Fuzz(func(t *testing.T, data []byte) {
		r, refusal := decodeRequest(data)
		if refusal != nil {
			if refusal.Code == "" || refusal.Message == "" {
				t.Errorf("%+v", refusal)
			}
			return
		}
		if r.RequestID == "" || r.Operation == "" || len(r.RequestID) > maxRequestID || len(r.CorrelationID) > maxRequestID {
			t.Errorf("%+v", r)
		}
		again, err := json.Marshal(&r)
		must(t, err)
		if _, refusal := decodeRequest(again); refusal != nil && len(again) <= rpc.MaxRequest {
			t.Errorf("%s: %v", again, refusal)
		}
		_ = checkDeadline(&r, true, time.Now())
		_, _ = echo(context.Background(), r.Payload)
	})
}
