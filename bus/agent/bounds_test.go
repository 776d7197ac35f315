package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

// What a collector says must not make the report of all too large to be sent.
func TestLongErrorDoesNotBlindTheOperator(t *testing.T) {
	r := run(t, expect("a"))
	a := newCollector(t, r.broker, "a", "1")
	a.setReply(func(rpc.Request) (any, *rpc.Error) {
		return nil, &rpc.Error{Code: rpc.CodeInternal, Message: strings.Repeat("x", 1<<20-1024)}
	})
	a.join()
	a.beat(healthHealthy, collectorWaiting)
	eventually(t, "its refusal is known", func() bool { return r.collector("a").LastError != "" })
	operator := r.broker.client(t, rpc.UserOperator)
	if response := call(t, operator, rpc.SubjectAgent, rpc.OpCollectors, nil); response.Status != rpc.StatusOK {
		t.Errorf("%+v", response.Error)
	}
}

func TestHeartbeatIsBounded(t *testing.T) {
	long := strings.Repeat("ü", 4096)
	h, err := readHeartbeat(encode(t, rpc.Heartbeat{
		ID: "a", Instance: "1", Sequence: 1, Health: healthHealthy, Reasons: []string{long}, Collector: long, Registration: long,
		Epoch: long, PressureCause: long, Connection: rpc.Connection{Control: long, Events: long},
	}))
	if err != nil {
		t.Fatal(err)
	}
	text := encode(t, h)
	if len(text) > 10*mostText || !json.Valid(text) || strings.ContainsRune(string(text), '\uFFFD') {
		t.Errorf("%d bytes are kept", len(text))
	}
}

// An answer that is too large for the broker is said to be, and not left out.
func TestAnswerTooLargeIsTold(t *testing.T) {
	b := newBroker(t)
	nc := b.client(t, rpc.UserOperator)
	sub, err := nc.SubscribeSync("_INBOX_OPERATOR.x")
	if err != nil {
		t.Fatal(err)
	}
	if err := answer(nc, "_INBOX_OPERATOR.x", rpc.Request{RequestID: "r"}, time.Now(), strings.Repeat("x", 2<<20), nil); err != nil {
		t.Fatal(err)
	}
	msg, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	if response := decode[rpc.Response](t, msg.Data); response.Error == nil || response.Error.Code != rpc.CodeInternal || response.RequestID != "r" {
		t.Errorf("%+v", response)
	}
}
