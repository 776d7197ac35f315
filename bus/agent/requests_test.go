package agent

import (
	"bytes"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/bus/rpc"
)

func TestOperatorBeginsBeforeSteady(t *testing.T) {
	r := run(t, expect("a", "never"))
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(rpc.Request) (any, *rpc.Error) { return rpc.BeginResult{Changed: true, Coordinated: true}, nil })
	operator := r.broker.client(t, rpc.UserOperator)
	response := call(t, operator, rpc.SubjectAgent, rpc.OpBegin, rpc.Target{ID: "a"})
	if response.Error == nil || response.Error.Code != rpc.CodeNotFound {
		t.Errorf("before it is registered: %+v", response)
	}
	a.join()
	response = call(t, operator, rpc.SubjectAgent, rpc.OpBegin, rpc.Target{ID: "a"})
	if result := decode[rpc.BeginResult](t, response.Payload); !result.Changed {
		t.Errorf("%+v", response)
	}
	if got := a.requests(rpc.OpBeginMonitoring)[0]; got.CorrelationID != "c1" {
		t.Errorf("the chain is broken: %+v", got)
	}
	r.state("loading")
	asked := a.askedFor(rpc.OpBeginMonitoring)
	a.join() // it may have been restarted
	eventually(t, "the operator's word holds", func() bool { return a.askedFor(rpc.OpBeginMonitoring) > asked })
}

func TestOperatorRequestsRefused(t *testing.T) {
	r := run(t, nil)
	operator := r.broker.client(t, rpc.UserOperator)
	deadline := time.Now().Add(time.Minute)
	for name, c := range map[string]struct {
		text []byte
		code rpc.Code
	}{
		"no JSON":      {[]byte("hello"), rpc.CodeMalformed},
		"too large":    {bytes.Repeat([]byte("x"), rpc.MaxRequest+1), rpc.CodeTooLarge},
		"past":         {encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpCollectors, Deadline: time.Now().Add(-time.Second)}), rpc.CodeDeadline},
		"unknown":      {encode(t, rpc.Request{RequestID: "r", Operation: "Collect", Deadline: deadline}), rpc.CodeUnknownOperation},
		"no target":    {encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpStop, Deadline: deadline}), rpc.CodeMalformed},
		"wild target":  {encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpStop, Deadline: deadline, Payload: []byte(`{"id":"*"}`)}), rpc.CodeInvalid},
		"not there":    {encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpStop, Deadline: deadline, Payload: []byte(`{"id":"a"}`)}), rpc.CodeNotFound},
		"wish for > ":  {encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpHealthCheck, Deadline: deadline, Payload: []byte(`{"id":">"}`)}), rpc.CodeNotFound},
		"wish, no one": {encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpAdjustInterval, Deadline: deadline, Payload: []byte(`[]`)}), rpc.CodeMalformed},
	} {
		response := callRaw(t, operator, rpc.SubjectAgent, c.text)
		if response.Error == nil || response.Error.Code != c.code {
			t.Errorf("%s: %+v, want %s", name, response.Error, c.code)
		}
		if r.refusedFor("request "+string(c.code)) == 0 {
			t.Errorf("%s: not counted", name)
		}
	}
	a := r.broker.client(t, "a")
	if err := a.PublishRequest(rpc.SubjectAgent, "_INBOX.a.x", encode(t, rpc.Request{RequestID: "r", Operation: rpc.OpCollectors, Deadline: deadline})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a collector is no operator", func() bool { return r.refusedFor(reasonInbox) == 1 })
}

func TestTenRequestsAtOnce(t *testing.T) {
	r := run(t, nil)
	a := newCollector(t, r.broker, "a", "1")
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	defer free()
	a.join()
	a.setReply(func(q rpc.Request) (any, *rpc.Error) {
		if q.Operation == rpc.OpHealthCheck {
			<-release
		}
		return json.RawMessage(`{"health":"healthy"}`), nil
	})
	operator := r.broker.client(t, rpc.UserOperator)
	isBusy := func(r rpc.Response) bool { return r.Error != nil && r.Error.Code == rpc.CodeBusy }
	ask := func() rpc.Response {
		for { // the other question below takes a slot for a moment
			if r := call(t, operator, rpc.SubjectAgent, rpc.OpHealthCheck, rpc.Wish{ID: "a"}); !isBusy(r) {
				return r
			}
		}
	}
	var group sync.WaitGroup
	answers := make(chan rpc.Response, mostRequests)
	for range mostRequests {
		group.Go(func() { answers <- ask() })
	}
	// The slots are taken in no time; then whoever asks learns it.
	eventually(t, "busy", func() bool {
		return isBusy(call(t, operator, rpc.SubjectAgent, rpc.OpCollectors, nil))
	})
	free()
	group.Wait()
	for range mostRequests {
		if response := <-answers; response.Status != rpc.StatusOK || string(response.Payload) != `{"health":"healthy"}` {
			t.Errorf("%+v", response)
		}
	}
	if response := call(t, operator, rpc.SubjectAgent, rpc.OpCollectors, nil); response.Status != rpc.StatusOK {
		t.Errorf("the slots are not free again: %+v", response)
	}
}

func TestSilentCollector(t *testing.T) {
	r := run(t, nil)
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(rpc.Request) (any, *rpc.Error) { return nil, &rpc.Error{Code: "silent"} })
	a.join()
	operator := r.broker.client(t, rpc.UserOperator)
	q := rpc.Request{RequestID: "r", Operation: rpc.OpHealthCheck, Deadline: time.Now().Add(100 * time.Millisecond), Payload: encode(t, rpc.Wish{ID: "a"})}
	if response := callWith(t, operator, rpc.SubjectAgent, q); response.Error == nil || response.Error.Code != rpc.CodeTimeout {
		t.Errorf("%+v", response)
	}
	a.nc.Close()
	eventually(t, "nobody listens", func() bool {
		q.Deadline = time.Now().Add(100 * time.Millisecond) // until the server has noticed
		response := callWith(t, operator, rpc.SubjectAgent, q)
		return response.Error != nil && response.Error.Code == rpc.CodeUnavailable
	})
}

// The agent's word that a collector was too slow comes before the asker gives up.
func TestTimeoutIsToldInTime(t *testing.T) {
	r := run(t, nil)
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(rpc.Request) (any, *rpc.Error) { return nil, &rpc.Error{Code: "silent"} })
	a.join()
	operator := r.broker.client(t, rpc.UserOperator)
	q := rpc.Request{RequestID: "r", Operation: rpc.OpHealthCheck, Deadline: time.Now().Add(time.Second), Payload: encode(t, rpc.Wish{ID: "a"})}
	msg, err := operator.Request(rpc.SubjectAgent, encode(t, q), time.Until(q.Deadline))
	if err != nil {
		t.Fatal(err)
	}
	if response := decode[rpc.Response](t, msg.Data); response.Error == nil || response.Error.Code != rpc.CodeTimeout {
		t.Errorf("%+v", response)
	}
}

// What the operator wished for is said again after each registration: configuration
// first, for a configured interval takes an adjusted one out of force.
func TestWishes(t *testing.T) {
	r := run(t, expect("a"))
	operator := r.broker.client(t, rpc.UserOperator)
	wish := func(op rpc.Operation, payload any) rpc.Response {
		t.Helper()
		return call(t, operator, rpc.SubjectAgent, op, rpc.Wish{ID: "a", Payload: encode(t, payload)})
	}
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(q rpc.Request) (any, *rpc.Error) {
		if q.Operation != rpc.OpUpdateConfig {
			return rpc.IntervalResult{}, nil
		}
		if bytes.Contains(q.Payload, []byte("bad")) {
			return nil, &rpc.Error{Code: rpc.CodeInvalid, Message: "no", Details: []rpc.Detail{{Key: "bad", Reason: "no such key"}}}
		}
		return rpc.ConfigResult{Version: 2, Applied: []string{"log_level"}, Pending: []string{"max"}, RestartRequired: []string{"database"}}, nil
	})
	a.join()
	interval := int64(5000)
	wish(rpc.OpAdjustInterval, rpc.AdjustInterval{IntervalMS: &interval})
	values := map[string]json.RawMessage{"log_level": []byte(`"debug"`), "max": []byte("7"), "database": []byte(`"x"`)}
	wish(rpc.OpUpdateConfig, rpc.UpdateConfig{Values: map[string]json.RawMessage{"log_level": []byte(`"trace"`)}, ValidateOnly: true})
	wish(rpc.OpUpdateConfig, rpc.UpdateConfig{Values: values})
	refused := wish(rpc.OpUpdateConfig, rpc.UpdateConfig{Values: map[string]json.RawMessage{"bad": []byte("1")}})
	if refused.Error == nil || len(refused.Error.Details) != 1 {
		t.Errorf("the fault is not passed on: %+v", refused)
	}
	want := &rpc.Wishes{IntervalMS: &interval, Config: map[string]json.RawMessage{"log_level": []byte(`"debug"`), "max": []byte("7")}}
	if diff := cmp.Diff(want, r.collector("a").Wishes); diff != "" {
		t.Error(diff)
	}
	before := len(a.requests(rpc.OpUpdateConfig)) + len(a.requests(rpc.OpAdjustInterval))
	a.join()
	eventually(t, "both are said again", func() bool {
		return len(a.requests(rpc.OpUpdateConfig))+len(a.requests(rpc.OpAdjustInterval)) == before+2
	})
	a.mu.Lock()
	last := a.asked[len(a.asked)-1]
	a.mu.Unlock()
	if last.Operation != rpc.OpAdjustInterval {
		t.Errorf("the last is %s", last.Operation)
	}

	wish(rpc.OpAdjustInterval, rpc.AdjustInterval{Clear: true})
	if w := r.collector("a").Wishes; w.IntervalMS != nil {
		t.Errorf("%+v", w)
	}
}

func TestConfiguredIntervalEndsTheWish(t *testing.T) {
	r := newRegistry([]string{"a"}, fastTiming())
	ms := int64(1)
	r.wishInterval("a", &ms)
	r.wishConfig("a", map[string]json.RawMessage{keyInterval: []byte("10")}, []string{keyInterval})
	got := r.reports(time.Now())[0].Wishes
	if got.IntervalMS != nil || string(got.Config[keyInterval]) != "10" {
		t.Errorf("%+v", got)
	}
}

func TestStopOfAStranger(t *testing.T) {
	r := run(t, nil)
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(rpc.Request) (any, *rpc.Error) { return rpc.ShutdownResult{Complete: true, Delivered: 9}, nil })
	a.join()
	operator := r.broker.client(t, rpc.UserOperator)
	response := call(t, operator, rpc.SubjectAgent, rpc.OpStop, rpc.Target{ID: "a", Reason: "update"})
	if result := decode[rpc.ShutdownResult](t, response.Payload); !result.Complete || result.Delivered != 9 {
		t.Errorf("%+v", response)
	}
	if got := decode[rpc.Shutdown](t, a.requests(rpc.OpGracefulShutdown)[0].Payload); got.Reason != "update" {
		t.Errorf("%+v", got)
	}
}
