package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// guarded is what the server gets of what a client sends.
func guarded(client io.Reader) (string, error) {
	var server bytes.Buffer
	err := new(guard).copy(&server, client)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return server.String(), err
}

const connectProcmond = "CONNECT {\"user\":\"procmond\",\"pass\":\"x\"}\r\n"

func TestGuard(t *testing.T) {
	reader := "CONNECT {\"user\":\"siem.reader\"}\r\n"
	consumer := func(payload string) string {
		return fmt.Sprintf("PUB $JS.API.CONSUMER.CREATE.PROCESS_EVENTS.siem _INBOX_READER.siem.a %d\r\n%s\r\n", len(payload), payload)
	}
	spoilt := func(s string) string { return strings.Replace(s, "$JS", "_R_.$JS", 1) }
	for _, c := range []struct{ in, want string }{
		{"PING\r\nPONG\r\n", "PING\r\nPONG\r\n"},
		{connectProcmond + "PUB a 3\r\nabc\r\nPING\r\n", connectProcmond + "PUB a 3\r\nabc\r\nPING\r\n"},
		{connectProcmond + "PUB a _INBOX.procmond.1 3\r\nabc\r\n", connectProcmond + "PUB a _INBOX.procmond.1 3\r\nabc\r\n"},
		{connectProcmond + "PUB a events.process.start.h.x 3\r\nabc\r\n", connectProcmond + "PUB a _R_.events.process.start.h.x 3\r\nabc\r\n"},
		{connectProcmond + "pub\ta  b\t 0\r\n\r\n", connectProcmond + "pub\ta  _R_.b\t 0\r\n\r\n"},
		{connectProcmond + "HPUB a _INBOX.other.1 2 4\r\nhhpp\r\n", connectProcmond + "HPUB a _R_._INBOX.other.1 2 4\r\nhhpp\r\n"},
		{connectProcmond + "PUB a _INBOX.procmond2.1 0\r\n\r\n", connectProcmond + "PUB a _R_._INBOX.procmond2.1 0\r\n\r\n"},
		{connectProcmond + "PUB a 9\r\nPUB b c 1\r\n", connectProcmond + "PUB a 9\r\nPUB b c 1\r\n"}, // a payload is no line
		{"PUB a _INBOX.procmond.1 0\r\n\r\n", "PUB a _R_._INBOX.procmond.1 0\r\n\r\n"},               // nobody yet
		{
			connectProcmond + "CONNECT {\"user\":\"b\"}\r\nPUB a _INBOX.procmond.1 0\r\n\r\n",
			connectProcmond + "CONNECT {\"user\":\"b\"}\r\nPUB a _R_._INBOX.procmond.1 0\r\n\r\n",
		},
		{reader + consumer(`{"config":{"name":"siem"}}`), reader + consumer(`{"config":{"name":"siem"}}`)},
		{
			reader + consumer(`{"config":{"deliver_subject":"_INBOX_READER.siem.x"}}`),
			reader + consumer(`{"config":{"deliver_subject":"_INBOX_READER.siem.x"}}`),
		},
		{
			reader + consumer(`{"config":{"deliver_subject":"control.agent"}}`),
			reader + spoilt(consumer(`{"config":{"deliver_subject":"control.agent"}}`)),
		},
		{
			reader + consumer(`{"config":{"DELIVER_\u0053ubject":"control.agent"}}`),
			reader + spoilt(consumer(`{"config":{"DELIVER_\u0053ubject":"control.agent"}}`)),
		},
		{
			reader + consumer(`{"config":{"name":"siem"}}{"config":{"deliver_subject":"control.agent"}}`),
			reader + spoilt(consumer(`{"config":{"name":"siem"}}{"config":{"deliver_subject":"control.agent"}}`)),
		},
		{
			reader + consumer(strings.Repeat(" ", maxConsumerRequest)+"{}"),
			reader + spoilt(consumer(strings.Repeat(" ", maxConsumerRequest)+"{}")),
		},
	} {
		for name, in := range map[string]io.Reader{
			"whole": strings.NewReader(c.in), "bytes": iotest.OneByteReader(strings.NewReader(c.in)), "halves": iotest.HalfReader(strings.NewReader(c.in)),
		} {
			if got, err := guarded(in); err != nil || got != c.want {
				t.Errorf("%s: %q\n got %q\nwant %q: %v", name, c.in, got, c.want, err)
			}
		}
	}
}

// What the server could read in another way goes no further.
func TestGuardRefusesWhatIsUnclear(t *testing.T) {
	for _, line := range []string{
		"PUB a 1\n", "PUB a\r 1\r\n", "PUB\r\nPUB a 1\n", "PUB a b c 1\r\n", "PUB 1\r\n", "PUB a -1\r\n", "PUB a +1\r\n", "PUB a 0x1\r\n",
		"PUB a 99999999999\r\n", "HPUB a 1\r\n", "HPUB a 5 4\r\n", "HPUB a b c 1 1\r\n", "HPUB a b 1 x\r\n", "PING\n",
		"SUB " + strings.Repeat("x", copyBuffer) + "\r\n",
	} {
		got, err := guarded(strings.NewReader(connectProcmond + line + "PUB x control.agent 0\r\n\r\n"))
		if !errors.Is(err, errLine) || strings.Contains(got, "control.agent") {
			t.Errorf("%.50q: %v, passed %.200q", line, err, got)
		}
	}
}

// However the bytes come, what comes out is the same, and nothing is lost.
func TestGuardIsTransparent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in, want strings.Builder
		in.WriteString(connectProcmond)
		want.WriteString(connectProcmond)
		for range rapid.IntRange(0, 10).Draw(t, "messages") {
			payload := rapid.StringOfN(rapid.SampledFrom([]rune("PUB a\r\n0")), 0, 200, -1).Draw(t, "payload")
			payload += strings.Repeat("x", rapid.SampledFrom([]int{0, 0, 0, 1, copyBuffer - 30, copyBuffer}).Draw(t, "more"))
			reply := rapid.SampledFrom([]string{"", "_INBOX.procmond.7 ", "elsewhere "}).Draw(t, "reply")
			fmt.Fprintf(&in, "PUB subject %s%d\r\n%s\r\n", reply, len(payload), payload)
			fmt.Fprintf(&want, "PUB subject %s%d\r\n%s\r\n", strings.Replace(reply, "else", reserved+"else", 1), len(payload), payload)
		}
		step := rapid.SampledFrom([]int{1, 7, 1000, copyBuffer, 1 << 20}).Draw(t, "step")
		got, err := guarded(&stepReader{strings.NewReader(in.String()), step})
		if err != nil || got != want.String() {
			t.Fatalf("%d bytes became %d, not %d: %v", in.Len(), len(got), want.Len(), err)
		}
	})
}

// stepReader reads a number of bytes at a time.
type stepReader struct {
	io.Reader
	step int
}

func (r *stepReader) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.step)]) }

// The broker's own permissions let these through; the guard does not.
func TestAnswersStayAtHome(t *testing.T) {
	f := start(t, config(t))
	reader := rpc.ReaderUser("siem")
	f.enroll(t, "procmond", "victim", reader)
	epoch := event.NewEpoch()
	collector, agent := f.as(t, "procmond"), f.agent(t)
	victims := event.NewEpoch()
	f.deliver(t, f.as(t, "victim"), batch("victim", victims, 1, 3, 10))
	f.deliver(t, collector, batch("procmond", epoch, 1, 3, 10))
	overheard, err := agent.SubscribeSync("control.>")
	if err != nil {
		t.Fatal(err)
	}
	_ = agent.Flush()
	replies := []string{
		rpc.EventSubject(event.KindStart, "host", "victim"), rpc.HeartbeatSubject("victim"), rpc.SubjectAgent, "_INBOX.victim.x",
		rpc.CollectorSubject("victim"), "$JS.API.STREAM.PURGE." + rpc.Stream, "agent.position.victim",
	}
	for i, reply := range replies {
		m := batch("procmond", epoch, uint64(4+i), uint64(4+i), 10)[0]
		m.Reply = reply
		if err := collector.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		if !denied(t, collector, reserved+reply) {
			t.Errorf("%s: %v", reply, collector.LastError())
		}
	}
	rc := f.as(t, reader)
	for _, subject := range []string{"control.agent", "events.process.start.host.victim"} {
		request, _ := json.Marshal(map[string]any{"stream_name": rpc.Stream, "config": map[string]any{
			"name": "siem", "durable_name": "siem", "deliver_subject": subject, "ack_policy": "none",
		}})
		create := createConsumer + rpc.Stream + ".siem"
		if err := rc.Publish(create, request); err != nil || !denied(t, rc, reserved+create) {
			t.Errorf("push to %s: %v", subject, rc.LastError())
		}
	}
	next := &nats.Msg{Subject: "$JS.API.STREAM.MSG.GET." + rpc.Stream, Reply: "control.agent", Data: []byte(`{"seq":1}`)}
	if err := rc.PublishMsg(next); err != nil || !denied(t, rc, reserved+"control.agent") {
		t.Errorf("event to the agent: %v", rc.LastError())
	}
	if n := f.refused(ReasonReply); n != uint64(len(replies)+1) {
		t.Errorf("%d answers counted: %+v", n, f.Refusals())
	}
	if n := f.refused(ReasonPublish); n != 2 {
		t.Errorf("%d consumers counted", n)
	}
	f.wantLast(t, "victim", victims, 3)
	f.wantLast(t, "procmond", epoch, 3)
	js, err := jetstream.New(agent)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := js.Stream(t.Context(), rpc.Stream); err != nil || info.CachedInfo().State.Msgs != 6 {
		t.Errorf("stream: %+v %v", info.CachedInfo().State, err)
	}
	if n, _, _ := overheard.Pending(); n != 0 {
		t.Errorf("the agent heard %d messages", n)
	}
}
