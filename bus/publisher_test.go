package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

func newTestPublisher(tb testing.TB, l *Link, log EventLog) *Publisher {
	tb.Helper()
	p, err := NewPublisher(PublisherConfig{Link: l, Log: log, HostID: testHost, Logger: quiet()})
	must(tb, err)
	p.timing = publisherTiming{first: 10 * time.Millisecond, most: 40 * time.Millisecond, ack: 10 * time.Second}
	return p
}

// delivered waits until everything in the log is.
func delivered(tb testing.TB, p *Publisher, log *memLog) {
	tb.Helper()
	eventually(tb, "everything delivered", func() bool {
		cursor, head := log.at()
		return cursor == head
	})
	eventually(tb, "idle", func() bool { return p.Status().State == DeliveryIdle })
}

func TestPublisherDelivers(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	log.add(2500, 100)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	delivered(t, p, log)
	for range 3 {
		log.add(1, 10)
		delivered(t, p, log)
	}
	log.add(3, 60<<10)
	delivered(t, p, log)
	log.same(t, b)
	s := p.Status()
	if s.Delivered != 2506 || s.DeliveredTotal != 2506 || s.Resumes != 1 || s.Duplicates != 0 || s.Unknown != 0 || s.Full != 0 ||
		s.Batches > 8 || s.LastError != "" || s.InFlight != 0 || !s.InFlightSince.IsZero() || s.LastAck <= 0 || s.Epoch != log.epoch {
		t.Errorf("%+v", s)
	}
	if v := p.cfg.Link.Status().Events.Violations; v != 0 {
		t.Errorf("%d violations: %s", v, p.cfg.Link.Status().Events.LastError)
	}
}

func TestPublisherSurvivesRestartsOfTheServer(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	log := newMemLog()
	log.add(12000, 200)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				log.add(20, 200)
			case <-stop:
				return
			}
		}
	}()
	for range 4 {
		before := p.Status().Batches
		eventually(t, "some batches", func() bool { return p.Status().Batches > before })
		b.stop()
		eventually(t, "state", func() bool { return p.Status().State == DeliveryDisconnected })
		b.start()
		a.listen()
	}
	close(stop)
	<-done
	delivered(t, p, log)
	log.same(t, b)
	if s := p.Status(); s.Resumes < 5 {
		t.Errorf("%+v", s)
	}
}

// A batch that the server has stored and whose answer is lost is neither lost nor
// stored again.
func TestPublisherLosesAnAnswer(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	l := b.link()
	eventually(t, "connections", func() bool { return connected(l) })
	var lost atomic.Int64
	b.intercept(func(data []byte) bool {
		if strings.Contains(string(data), `"batch":`) && lost.Add(1) <= 3 {
			return false
		}
		return true
	})
	p := newTestPublisher(t, l, log)
	log.add(5000, 50)
	run(t, p)
	delivered(t, p, log)
	log.same(t, b)
	s := p.Status()
	if s.Unknown != 3 || s.Resumes != 4 || s.Duplicates != 0 || s.DeliveredTotal != 2000 {
		t.Errorf("%+v", s)
	}
}

// The server stored a batch and the agent does not know it: the ids tell.
func TestPublisherMeetsStoredEvents(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	log := newMemLog()
	log.add(100, 50)
	first := newTestPublisher(t, b.link(), log)
	r := run(t, first)
	delivered(t, first, log)
	r.stop()
	created := b.info().Created
	a.set(func(a *testAgent) {
		a.answer = func(r *rpc.Request) (any, *rpc.Error, bool) {
			return rpc.Position{Epoch: log.epoch.String(), Seq: 60, StreamCreated: created}, nil, r.Operation == rpc.OpLast
		}
	})
	log.add(100, 50)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	delivered(t, p, log)
	log.same(t, b)
	if s := p.Status(); s.Duplicates != 40 || s.DeliveredTotal != 140 || s.Resumes != 1 || !strings.Contains(s.LastError, "10201") {
		t.Errorf("%+v", s)
	}
}

func TestPublisherMeetsAnotherStore(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	log.add(1500, 50)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	delivered(t, p, log)
	log.replace()
	log.add(1200, 50)
	eventually(t, "the new epoch", func() bool { s := p.Status(); return s.Epoch == log.epoch && s.Delivered == 1200 })
	delivered(t, p, log)
	log.same(t, b)
	if s := p.Status(); s.Resumes != 2 || !strings.Contains(s.LastError, "replaced") {
		t.Errorf("%+v", s)
	}
}

// The store was restored from a copy: the stream is ahead of it.
func TestPublisherIsBehindTheStream(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	log.add(100, 50)
	p := newTestPublisher(t, b.link(), log)
	r := run(t, p)
	delivered(t, p, log)
	r.stop()
	log.mu.Lock()
	full := log.events
	log.events = full[:30] // as if restored
	log.cursor = 30
	log.mu.Unlock()
	run(t, p)
	eventually(t, "a new epoch", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.old) == 1
	})
	log.mu.Lock()
	for epoch := range log.old {
		log.old[epoch] = full
	}
	log.mu.Unlock()
	log.add(50, 50)
	eventually(t, "the new epoch delivered", func() bool { return p.Status().Delivered == 50 })
	log.same(t, b)
}

func TestPublisherMeetsANewStream(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	log.add(300, 50)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	delivered(t, p, log)
	must(t, b.js().DeleteStream(context.Background(), rpc.Stream))
	b.createStream()
	b.cut()
	eventually(t, "asked again", func() bool { return p.Status().Resumes == 2 && p.Status().Delivered == 300 })
	delivered(t, p, log)
	log.same(t, b)
}

func TestPublisherMeetsNoStream(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	created := b.info().Created
	must(t, b.js().DeleteStream(context.Background(), rpc.Stream))
	a.set(func(a *testAgent) {
		a.answer = func(r *rpc.Request) (any, *rpc.Error, bool) {
			return rpc.Position{StreamCreated: created}, nil, r.Operation == rpc.OpLast
		}
	})
	log := newMemLog()
	log.add(300, 50)
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	eventually(t, "said", func() bool { return strings.Contains(p.Status().LastError, "no stream takes the events") })
	eventually(t, "failing", func() bool { return !p.Status().FailingSince.IsZero() })
	since, resumes := p.Status().FailingSince, p.Status().Resumes
	eventually(t, "tried again", func() bool { return p.Status().Resumes > resumes+2 })
	if got := p.Status().FailingSince; !got.Equal(since) {
		t.Errorf("failing since %v, later since %v: nothing had gone well", since, got)
	}
	b.createStream()
	a.set(func(a *testAgent) { a.answer = nil })
	delivered(t, p, log)
	if got := p.Status().FailingSince; !got.IsZero() {
		t.Errorf("failing since %v after all was delivered", got)
	}
	log.same(t, b)
}

func TestPublisherDistrustsTheAgent(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	log := newMemLog()
	log.add(10, 50)
	created := b.info().Created
	lies := map[string]any{
		"no payload":        nil,
		"no time":           rpc.Position{},
		"sequence alone":    rpc.Position{Seq: 5, StreamCreated: created},
		"epoch alone":       rpc.Position{Epoch: log.epoch.String(), StreamCreated: created},
		"no epoch":          rpc.Position{Epoch: "zz", Seq: 5, StreamCreated: created},
		"zero epoch":        rpc.Position{Epoch: strings.Repeat("0", 32), Seq: 5, StreamCreated: created},
		"wrong type":        map[string]any{"epoch": 7},
		"negative sequence": map[string]any{"epoch": log.epoch.String(), "seq": -1, "stream_created": created},
		"array":             []int{1},
	}
	var lie atomic.Pointer[string]
	p := newTestPublisher(t, b.link(), log)
	a.set(func(a *testAgent) {
		a.answer = func(r *rpc.Request) (any, *rpc.Error, bool) {
			if name := lie.Load(); name != nil {
				return lies[*name], nil, r.Operation == rpc.OpLast
			}
			return nil, &rpc.Error{Code: rpc.CodeInternal, Message: "\x1b[31mno"}, r.Operation == rpc.OpLast
		}
	})
	run(t, p)
	eventually(t, "refusal said", func() bool { return strings.Contains(p.Status().LastError, `\x1b[31mno`) })
	for name := range lies {
		lie.Store(&name)
		asked := get(a, func(a *testAgent) int { return a.asked })
		eventually(t, name, func() bool { return get(a, func(a *testAgent) int { return a.asked }) > asked+2 })
		if s := p.Status(); !strings.Contains(s.LastError, "makes no sense") || s.Resumes != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if len(log.resumed) != 0 {
		t.Errorf("the store was told %v", log.resumed)
	}
	a.set(func(a *testAgent) { a.answer = nil })
	delivered(t, p, log)
	log.same(t, b)
}

func TestPublisherMeetsFailuresOfTheLog(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	for _, op := range []string{"resume", "wait", "read", "ack"} {
		failures := 3
		log.setFail(func(o string) error {
			if o == op && failures > 0 {
				failures--
				return fmt.Errorf("%s does not work", op)
			}
			if o == "wait" && op == "resume" && failures > 0 {
				return errors.New("so that it resumes")
			}
			return nil
		})
		log.add(1500, 50)
		eventually(t, op, func() bool { return strings.Contains(p.Status().LastError, op+" does not work") })
		delivered(t, p, log)
	}
	log.same(t, b)
}

// The service is killed, or panics, at each step that it takes.
func TestPublisherRestartsAtEveryStep(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	l := b.link()
	p := newTestPublisher(t, l, log)
	must(t, p.SetWindow(50))
	for _, op := range []string{"resume", "wait", "read", "ack"} {
		for n := 1; n <= 3; n++ {
			log.add(120, 50)
			ctx, cancel := context.WithCancel(context.Background())
			calls := 0
			log.setFail(func(o string) error {
				if o == op {
					calls++
				}
				if calls == n && o == op {
					if n%2 == 0 {
						panic("killed")
					}
					cancel()
				}
				return nil
			})
			eventually(t, op, func() bool {
				log.add(10, 50)
				func() {
					short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
					defer cancel()
					defer func() { _ = recover() }()
					_ = p.Serve(short)
				}()
				return calls >= n
			})
			cancel()
		}
	}
	log.setFail(func(string) error { return nil })
	run(t, p)
	delivered(t, p, log)
	log.same(t, b)
}

// Also between sending and the answer, whenever that is.
func TestPublisherIsStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	p := newTestPublisher(t, b.link(), log)
	for i := range 40 {
		log.add(300, 100)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i*i)*20*time.Microsecond)
		_ = p.Serve(ctx)
		cancel()
	}
	run(t, p)
	delivered(t, p, log)
	log.same(t, b)
}

func TestPublisherGivesUpAnAgentThatDoesNotAcknowledge(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	log := newMemLog()
	p := newTestPublisher(t, b.link(), log)
	p.timing.ack = 100 * time.Millisecond
	created := b.info().Created
	a.set(func(a *testAgent) {
		a.answer = func(r *rpc.Request) (any, *rpc.Error, bool) {
			return rpc.Position{StreamCreated: created}, nil, r.Operation == rpc.OpLast
		}
	})
	must(t, b.js().DeleteStream(context.Background(), rpc.Stream))
	deaf, err := b.nc().Subscribe(rpc.StreamSubjects, func(*nats.Msg) {}) // takes all and says nothing
	must(t, err)
	must(t, b.nc().Flush())
	log.add(10, 10)
	run(t, p)
	eventually(t, "time-outs", func() bool {
		s := p.Status()
		return s.Unknown > 2 && strings.Contains(s.LastError, "no acknowledgement")
	})
	must(t, deaf.Unsubscribe())
	b.createStream()
	a.set(func(a *testAgent) { a.answer = nil })
	delivered(t, p, log)
	log.same(t, b)
}

func TestPublisherReadsPastWhatWasShed(t *testing.T) {
	t.Parallel()
	b, a := with(t)
	a.set(func(a *testAgent) { a.silent = true })
	log := newMemLog()
	log.add(100, 10)
	p := newTestPublisher(t, b.link(), log)
	log.shed(100)
	a.set(func(a *testAgent) { a.silent = false })
	run(t, p)
	eventually(t, "idle", func() bool { return p.Status().State == DeliveryIdle })
	log.add(1, 10)
	eventually(t, "delivered", func() bool { return p.Status().Delivered == 101 })
	if n := len(b.inStream()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// The agent is stopped (SIGSTOP, or a debugger): its socket takes bytes until it is
// full, and says nothing.
func TestPublisherNoticesAnAgentThatStandsStill(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	if pingEvery*(pingsOut+1) > 10*time.Second {
		t.Error("noticed too late")
	}
	p := newTestPublisher(t, b.linkWith(func(c *connection) { c.ping, c.write = 200*time.Millisecond, 300*time.Millisecond }), log)
	p.timing.ack = time.Minute
	run(t, p)
	eventually(t, "idle", func() bool { return p.Status().State == DeliveryIdle })
	b.stand(true)
	log.add(10, 10)
	began := time.Now()
	eventually(t, "in flight", func() bool { return p.Status().InFlight > 0 })
	eventually(t, "noticed", func() bool { return p.Status().State == DeliveryDisconnected })
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("noticed after %v", d)
	}
	log.add(5000, 1000)
	b.stand(false)
	delivered(t, p, log)
	log.same(t, b)
}

func TestPublisherDrains(t *testing.T) {
	t.Parallel()
	b, _ := with(t)
	log := newMemLog()
	p := newTestPublisher(t, b.link(), log)
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Drain(short); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("without a service: %v", err)
	}
	run(t, p)
	for range 3 {
		log.add(2500, 100)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		left, err := p.Drain(ctx)
		cancel()
		if cursor, head := log.at(); err != nil || left != 0 || cursor != head {
			t.Fatalf("%d left, cursor %d of %d: %v", left, cursor, head, err)
		}
	}
	b.stop()
	log.add(7, 10)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	left, err := p.Drain(ctx)
	if left != 7 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "7 events are left") {
		t.Errorf("%d %v", left, err)
	}
	log.setFail(func(op string) error { return fmt.Errorf("%s does not work", op) })
	if _, err := p.Drain(ctx); err == nil || !strings.Contains(err.Error(), "how many events are left is not known (wait does not work)") {
		t.Errorf("without its log: %v", err)
	}
	log.setFail(func(string) error { return nil })
	log.same(t, restarted(b))
}

// restarted starts the broker again for reading the stream, which lacks 7 events.
func restarted(b *testBroker) *testBroker {
	b.start()
	newTestAgent(b)
	eventually(b.tb, "the rest", func() bool { return b.info().State.Msgs == 7507 })
	return b
}

func TestPublisherWritesTheCursorSeldom(t *testing.T) {
	b, _ := with(t)
	log := newMemLog()
	p := newTestPublisher(t, b.link(), log)
	run(t, p)
	eventually(t, "idle", func() bool { return p.Status().State == DeliveryIdle })
	began := time.Now()
	for i := range 50 {
		log.add(1, 10)
		eventually(t, "delivered", func() bool { return p.Status().Delivered == uint64(i+1) })
	}
	most := int(time.Since(began)/persistEvery) + 1
	delivered(t, p, log)
	if log.acks > most+1 {
		t.Errorf("%d writes in %v", log.acks, time.Since(began))
	}
}
