package broker

import (
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// denied says whether the server told so of a subject. It answers in order, so what
// it had to say of what was sent before a flush has come when the flush is over.
func denied(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	err := nc.LastError()
	return err != nil && strings.Contains(err.Error(), strconv.Quote(subject))
}

func TestPermissions(t *testing.T) {
	f := start(t, config(t))
	reader := rpc.ReaderUser("siem")
	f.enroll(t, "procmond", "other", reader, rpc.UserOperator)
	api := "$JS.API."
	for _, c := range []struct {
		user             string
		publish, mayNot  []string
		hear, mayNotHear []string
	}{
		{
			user: "procmond",
			publish: []string{
				"events.process.start.h.procmond", "control.collector.registration.procmond", "control.health.heartbeat.procmond",
			},
			mayNot: []string{
				"events.process.start.h.other", "events.process.start.procmond", "events.process.procmond.h.x.procmond",
				"control.collector.registration.other", "control.health.heartbeat.other", "control.collector.other",
				"control.collector.procmond", rpc.SubjectLifecycle, rpc.SubjectAgent, "_INBOX.other.x", "_INBOX_AGENT.x",
				"_INBOX_OPERATOR.x", "agent.position.procmond",
				api + "INFO", api + "STREAM.INFO." + rpc.Stream, api + "STREAM.PURGE." + rpc.Stream, api + "STREAM.DELETE." + rpc.Stream,
				api + "CONSUMER.CREATE." + rpc.Stream + ".procmond", api + "DIRECT.GET." + rpc.Stream, "$SYS.REQ.SERVER.PING", "$JS.ACK.x",
			},
			hear: []string{"control.collector.procmond", rpc.SubjectLifecycle, "_INBOX.procmond.a", "_INBOX.procmond.>"},
			mayNotHear: []string{
				"control.collector.other", "control.collector.*", "control.collector.registration.procmond", "_INBOX.>", "_INBOX.*",
				"_INBOX.other.>", "_INBOX_AGENT.>", "_INBOX_OPERATOR.>", "_INBOX_READER.>", "events.process.>", "events.process.start.h.procmond",
				">", "control.health.heartbeat.*", "agent.position.*", "$JS.>", "$SYS.>",
			},
		},
		{
			user: reader,
			publish: []string{
				api + "INFO", api + "STREAM.INFO." + rpc.Stream, api + "STREAM.NAMES", api + "STREAM.LIST",
				api + "STREAM.MSG.GET." + rpc.Stream, api + "DIRECT.GET." + rpc.Stream, api + "DIRECT.GET." + rpc.Stream + ".events.process.start.h.a",
				api + "CONSUMER.INFO." + rpc.Stream + ".other", api + "CONSUMER.LIST." + rpc.Stream, api + "CONSUMER.NAMES." + rpc.Stream,
				api + "CONSUMER.CREATE." + rpc.Stream + ".siem", api + "CONSUMER.CREATE." + rpc.Stream + ".siem.events.process.start.>",
				api + "CONSUMER.DURABLE.CREATE." + rpc.Stream + ".siem", api + "CONSUMER.MSG.NEXT." + rpc.Stream + ".siem",
				api + "CONSUMER.DELETE." + rpc.Stream + ".siem", "$JS.ACK." + rpc.Stream + ".siem.1.1.1.1.1",
			},
			mayNot: []string{
				api + "CONSUMER.CREATE." + rpc.Stream + ".other", api + "CONSUMER.CREATE." + rpc.Stream, api + "CONSUMER.DURABLE.CREATE." + rpc.Stream + ".other",
				api + "CONSUMER.DELETE." + rpc.Stream + ".other", api + "CONSUMER.MSG.NEXT." + rpc.Stream + ".other", "$JS.ACK." + rpc.Stream + ".other.1.1.1.1.1",
				api + "STREAM.PURGE." + rpc.Stream, api + "STREAM.DELETE." + rpc.Stream, api + "STREAM.UPDATE." + rpc.Stream, api + "STREAM.CREATE.X",
				api + "STREAM.MSG.DELETE." + rpc.Stream, api + "STREAM.INFO." + positionStream, api + "DIRECT.GET." + positionStream,
				"events.process.start.h.siem", "control.health.heartbeat.siem", "control.collector.registration.siem", rpc.SubjectAgent, "control.collector.procmond",
			},
			hear:       []string{"events.process.>", "events.process.start.h.procmond", "_INBOX_READER.siem.a"},
			mayNotHear: []string{"_INBOX.>", "_INBOX.siem.>", "_INBOX_READER.>", "_INBOX_READER.other.>", "control.>", "events.>", ">", "control.health.heartbeat.*"},
		},
		{
			user: rpc.UserOperator,
			publish: []string{
				"control.collector.procmond", rpc.SubjectAgent, api + "STREAM.INFO." + rpc.Stream, api + "CONSUMER.CREATE." + rpc.Stream + ".any",
				api + "CONSUMER.DELETE." + rpc.Stream + ".any", api + "CONSUMER.CREATE." + rpc.Stream, api + "CONSUMER.CREATE." + rpc.Stream + ".any.events.process.>",
				"$JS.ACK." + rpc.Stream + ".any.1.1.1.1.1",
			},
			mayNot: []string{
				"events.process.start.h.procmond", "control.health.heartbeat.procmond", "control.collector.registration.procmond",
				api + "STREAM.PURGE." + rpc.Stream, api + "STREAM.DELETE." + rpc.Stream, api + "STREAM.UPDATE." + rpc.Stream, "_INBOX.procmond.x", "_INBOX_AGENT.x", "agent.position.procmond",
			},
			hear:       []string{"events.process.>", "control.health.heartbeat.*", "_INBOX.>", "_INBOX_OPERATOR.>"},
			mayNotHear: []string{">", "control.>", "control.collector.registration.*", "_INBOX_AGENT.>", "_INBOX_READER.>", "agent.>", "$SYS.>"},
		},
	} {
		nc := f.as(t, c.user)
		for _, subject := range c.publish {
			if err := nc.Publish(subject, nil); err != nil || denied(t, nc, subject) {
				t.Errorf("%s may not publish %s: %v", c.user, subject, err)
			}
		}
		for _, subject := range c.hear {
			if sub, err := nc.SubscribeSync(subject); err != nil || denied(t, nc, subject) {
				t.Errorf("%s may not hear %s: %v", c.user, subject, err)
			} else {
				_ = sub.Unsubscribe()
			}
		}
		published, heard := f.refused(ReasonPublish), f.refused(ReasonSubscribe)
		for _, subject := range c.mayNot {
			if err := nc.Publish(subject, nil); err != nil || !denied(t, nc, subject) {
				t.Errorf("%s may publish %s: %v", c.user, subject, err)
			}
		}
		for _, subject := range c.mayNotHear {
			if _, err := nc.SubscribeSync(subject); err != nil || !denied(t, nc, subject) {
				t.Errorf("%s may hear %s: %v", c.user, subject, err)
			}
		}
		if got := f.refused(ReasonPublish) - published; got != uint64(len(c.mayNot)) {
			t.Errorf("%s: %d publications counted, not %d", c.user, got, len(c.mayNot))
		}
		if got := f.refused(ReasonSubscribe) - heard; got != uint64(len(c.mayNotHear)) {
			t.Errorf("%s: %d subscriptions counted, not %d", c.user, got, len(c.mayNotHear))
		}
		for _, r := range f.Refusals() {
			if !strings.HasPrefix(r.Last, strconv.Quote(c.user)+" (user ") {
				t.Errorf("%+v is not %s's", r, c.user)
			}
		}
		if ids := f.Connected(c.user); len(ids) != 1 {
			t.Errorf("%s has connections %v", c.user, ids)
		}
	}
}

// A collector answers whom it was asked by, and nobody else.
func TestAnswers(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "procmond", rpc.UserOperator)
	collector := f.as(t, "procmond")
	if _, err := collector.Subscribe(rpc.CollectorSubject("procmond"), func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := collector.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, nc := range []*nats.Conn{f.agent(t), f.as(t, rpc.UserOperator), f.as(t, rpc.UserOperator, nats.CustomInboxPrefix("_INBOX"))} {
		for range 3 { // each question can be answered
			if m, err := nc.Request(rpc.CollectorSubject("procmond"), []byte("q"), requestTimeout); err != nil || string(m.Data) != "q" {
				t.Fatalf("answer %v: %v", m, err)
			}
		}
	}
	if all := f.Refusals(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// A request of 1 MiB reaches who answers it; a bigger one ends the connection.
func TestPayload(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "procmond", rpc.UserOperator)
	collector, operator := f.as(t, "procmond"), f.as(t, rpc.UserOperator)
	if _, err := collector.Subscribe(rpc.CollectorSubject("procmond"), func(m *nats.Msg) { _ = m.Respond([]byte(strconv.Itoa(len(m.Data)))) }); err != nil {
		t.Fatal(err)
	}
	_ = collector.Flush()
	m, err := operator.Request(rpc.CollectorSubject("procmond"), make([]byte, 1<<20), requestTimeout)
	if err != nil || string(m.Data) != strconv.Itoa(1<<20) {
		t.Errorf("%v", err)
	}
	if err := operator.Publish(rpc.CollectorSubject("procmond"), make([]byte, MaxPayload+1)); err == nil {
		t.Error("the client lets it out")
	}
}

// A reader takes the stream, with exactly its permissions.
func TestReader(t *testing.T) {
	f := start(t, config(t))
	reader := rpc.ReaderUser("siem")
	f.enroll(t, "procmond", reader)
	epoch := event.NewEpoch()
	f.deliver(t, f.as(t, "procmond"), batch("procmond", epoch, 1, 50, 100))
	js, err := jetstream.New(f.as(t, reader))
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateOrUpdateConsumer(t.Context(), rpc.Stream, jetstream.ConsumerConfig{Durable: "siem", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	got, err := consumer.Fetch(50)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for m := range got.Messages() {
		n++
		if _, seq, err := rpc.ParseMsgID(m.Headers().Get(nats.MsgIdHdr)); err != nil || seq != n || m.DoubleAck(t.Context()) != nil {
			t.Errorf("%d: %d %v", n, seq, err)
		}
	}
	if n != 50 || got.Error() != nil {
		t.Errorf("%d events: %v", n, got.Error())
	}
	stream, err := js.Stream(t.Context(), rpc.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.GetMsg(t.Context(), 7); err != nil || m.Sequence != 7 {
		t.Errorf("direct get: %v", err)
	}
	if err := js.DeleteConsumer(t.Context(), rpc.Stream, "siem"); err != nil {
		t.Error(err)
	}
	if all := f.Refusals(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}
