package bus

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestPublisherKeepsBatchesUnderTheLimits(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	log.add(200, 60<<10) // 12 MB
	p := newTestPublisher(t, b.link(), log)
	must(t, p.SetWindow(150))
	run(t, p)
	delivered(t, p, log)
	log.same(t, b)
	if s := p.Status(); s.Batches < 3 || s.Batches > 5 {
		t.Errorf("%d batches", s.Batches)
	}
	for _, n := range []int{0, -1, 1001} {
		if p.SetWindow(n) == nil {
			t.Errorf("window of %d", n)
		}
	}
	before := p.Status().Batches
	must(t, p.SetWindow(7))
	log.add(70, 10)
	delivered(t, p, log)
	if n := p.Status().Batches - before; n != 10 || p.Status().Window != 7 {
		t.Errorf("%d batches", n)
	}
}

func TestOverheadIsNotUnderestimated(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	log.add(1000, 10)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	delivered(t, p, log)
	for _, msg := range b.inStream()[990:] {
		size := len(msg.Subject()) + 40
		for name, values := range msg.Headers() {
			size += len(name) + len(values[0]) + 4
		}
		if size > overhead-128 { // ids may be longer than here: a host's and a collector's, 64 each
			t.Errorf("%d bytes beside the event", size)
		}
	}
}

func TestPublisherMeetsAFullStream(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	b.max = 1 << 20
	b.start()
	newTestAgent(b)
	log := newMemLog()
	log.add(3000, 1000)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	eventually(t, "full", func() bool { s := p.Status(); return s.State == DeliveryFull && s.Full > 12 })
	if s := p.Status(); !strings.Contains(s.LastError, "maximum bytes exceeded (10077)") || s.Delivered == 0 || s.Unknown != 0 {
		t.Errorf("%+v", s)
	}
	if state := b.info().State; state.Bytes < 1<<20-2000 {
		t.Errorf("only %d bytes of room are used", state.Bytes)
	}
	config := b.stream()
	config.MaxBytes = 1 << 30
	_, err := b.js().UpdateStream(context.Background(), config)
	must(t, err)
	delivered(t, p, log)
	log.same(t, b)
	if s := p.Status(); s.DeliveredTotal != 3000 || s.Resumes != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPublisherSaysThatAnEventIsRefused(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	config := b.stream()
	config.MaxMsgSize = 8 << 10
	_, err := b.js().UpdateStream(context.Background(), config)
	must(t, err)
	log := newMemLog()
	log.add(20, 10)
	log.add(1, 20<<10)
	log.add(20, 10)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	eventually(t, "said which", func() bool {
		return strings.Contains(p.Status().LastError, "event 21 of 20") && p.Status().State == DeliveryFailing
	})
	if s := p.Status(); s.Delivered != 20 {
		t.Errorf("%+v", s)
	}
	config.MaxMsgSize = -1
	_, err = b.js().UpdateStream(context.Background(), config)
	must(t, err)
	delivered(t, p, log)
	log.same(t, b)
}

// The same, by the limit of the whole server, which the library applies.
func TestPublisherMeetsASmallServer(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	b.maxPayload = 8 << 10
	b.start()
	a := newTestAgent(b)
	log := newMemLog()
	log.add(20, 10)
	log.add(1, 20<<10)
	log.add(20, 10)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	eventually(t, "said which", func() bool { return strings.Contains(p.Status().LastError, "event 21 of 20") })
	if s := p.Status(); s.Delivered != 20 {
		t.Errorf("%+v", s)
	}
	b.stop()
	b.maxPayload = 1 << 20
	b.start()
	a.listen()
	delivered(t, p, log)
	log.same(t, b)
}

// What the server will not take blocks delivery only until the store sheds it.
func TestPublisherGoesOnWhenARefusedEventIsShed(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	config := b.stream()
	config.MaxMsgSize = 8 << 10
	_, err := b.js().UpdateStream(context.Background(), config)
	must(t, err)
	log := newMemLog()
	log.add(1, 20<<10)
	log.add(20, 10)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	eventually(t, "refused", func() bool { return strings.Contains(p.Status().LastError, "event 1 of 20") })
	log.shed(1)
	delivered(t, p, log)
	if n := len(b.inStream()); n != 20 {
		t.Errorf("%d messages", n)
	}
}

func TestPublisherMeetsAFullAccount(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	b.max = -1
	b.start()
	newTestAgent(b)
	limit := func(bytes int64) {
		must(t, b.srv.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": {
			MaxMemory: -1, MaxStore: bytes, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1,
			MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
		}}))
	}
	limit(1 << 20)
	log := newMemLog()
	log.add(3000, 1000)
	p := newTestPublisher(t, b.link(), log)
	p.timing.ack = 500 * time.Millisecond // the server gives no answer to a batch that meets the limit within its commit
	run(t, p)
	eventually(t, "full", func() bool { s := p.Status(); return s.State == DeliveryFull && s.Full > 3 })
	if s := p.Status(); !strings.Contains(s.LastError, "(10002)") {
		t.Errorf("%+v", s)
	}
	limit(-1)
	delivered(t, p, log)
	log.same(t, b)
}

func TestPublisherMakesBatchesThatTheServerTakes(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	b.maxBatch = 60
	b.start()
	newTestAgent(b)
	log := newMemLog()
	log.add(1000, 10)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	delivered(t, p, log)
	log.same(t, b)
	if s := p.Status(); s.Batches > 40 {
		t.Errorf("%+v", s)
	}
}
