package broker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// Error numbers of JetStream that a publisher acts upon.
const (
	codeFull       = jetstream.ErrorCode(10077)
	codeDuplicates = jetstream.ErrorCode(10201)
)

func (f *fixture) info(t *testing.T) *jetstream.StreamInfo {
	t.Helper()
	js, err := jetstream.New(f.agent(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), rpc.Stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

// A collector delivers with exactly its permissions.
func TestBatches(t *testing.T) {
	cfg := config(t)
	cfg.MaxBytes = 1 << 20
	f := start(t, cfg)
	f.enroll(t, "procmond")
	nc := f.as(t, "procmond")
	epoch := event.NewEpoch()
	f.wantLast(t, "procmond", epoch, 0)
	f.deliver(t, nc, batch("procmond", epoch, 1, 1, 100))
	f.deliver(t, nc, batch("procmond", epoch, 2, 1001, 100))
	f.wantLast(t, "procmond", epoch, 1001)
	wantCode(t, publish(nc, batch("procmond", epoch, 1001, 1010, 100)), codeDuplicates)
	f.wantLast(t, "procmond", epoch, 1001)
	wantCode(t, publish(nc, batch("procmond", epoch, 1002, 1101, 20<<10)), codeFull)
	f.wantLast(t, "procmond", epoch, 1001)
	f.deliver(t, nc, batch("procmond", epoch, 1002, 1011, 100)) // still fits
	f.wantLast(t, "procmond", epoch, 1011)
	if all := f.Refusals(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestStreamConfig(t *testing.T) {
	cfg := config(t)
	cfg.MaxAge, cfg.MaxBytes = time.Hour, 1<<20
	f := start(t, cfg)
	got := f.info(t).Config
	if got.Retention != jetstream.LimitsPolicy || got.Storage != jetstream.FileStorage || got.Discard != jetstream.DiscardNew || got.Replicas != 1 ||
		got.MaxBytes != cfg.MaxBytes || got.MaxAge != cfg.MaxAge || got.Duplicates != DefaultDuplicates || !got.AllowAtomicPublish || !got.AllowDirect ||
		!slices.Equal(got.Subjects, []string{rpc.StreamSubjects}) {
		t.Errorf("%+v", got)
	}
}

// A smaller limit takes nothing away: the stream is just full. A greater one makes
// room at once.
func TestLimitsChanged(t *testing.T) {
	cfg := config(t)
	cfg.MaxBytes = 4 << 20
	f := start(t, cfg)
	f.enroll(t, "procmond")
	epoch := event.NewEpoch()
	f.deliver(t, f.as(t, "procmond"), batch("procmond", epoch, 1, 100, 20<<10))
	before := f.info(t)
	f.stop()
	for _, c := range []struct {
		size int64
		age  time.Duration
		full bool
	}{{256 << 10, time.Hour, true}, {8 << 20, 2 * time.Hour, false}, {256 << 10, time.Hour, true}} {
		cfg.MaxBytes, cfg.MaxAge = c.size, c.age
		f := start(t, cfg)
		now := f.info(t)
		if now.Config.MaxBytes != c.size || now.Config.MaxAge != c.age || now.State.FirstSeq != before.State.FirstSeq || !now.Created.Equal(before.Created) {
			t.Errorf("%+v %+v", now.Config, now.State)
		}
		seq := now.State.LastSeq + 1
		err := publish(f.as(t, "procmond"), batch("procmond", epoch, seq, seq, 100))
		if c.full {
			wantCode(t, err, codeFull)
		} else if err != nil {
			t.Error(err)
		}
		await(t, "report", func() bool { return f.Report().MaxBytes == uint64(c.size) && f.Report().InService })
		f.stop()
	}
}

// room is a broker whose stream is past the mark after 40 events of 20 KiB.
func room(t *testing.T) (*fixture, event.Epoch, *nats.Conn, jetstream.JetStream) {
	t.Helper()
	cfg := config(t)
	cfg.MaxBytes = 1 << 20
	f := start(t, cfg)
	f.enroll(t, "procmond", rpc.UserOperator)
	js, err := jetstream.New(f.as(t, rpc.UserOperator))
	if err != nil {
		t.Fatal(err)
	}
	return f, event.NewEpoch(), f.as(t, "procmond"), js
}

// consume makes a durable consumer, and returns what takes and acknowledges events.
func consume(t *testing.T, js jetstream.JetStream, name, filter string) func(n int) {
	t.Helper()
	c, err := js.CreateConsumer(t.Context(), rpc.Stream, jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: filter})
	if err != nil {
		t.Fatal(err)
	}
	return func(n int) {
		t.Helper()
		for range n {
			m, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPurgeBehindConsumers(t *testing.T) {
	f, epoch, nc, js := room(t)
	fast, slow := consume(t, js, "fast", ""), consume(t, js, "slow", "")
	_ = consume(t, js, "stops", "events.process.stop.>") // gets nothing, so holds nothing back
	f.deliver(t, nc, batch("procmond", epoch, 1, 30, 20<<10))
	fast(30)
	slow(10)
	f.deliver(t, nc, batch("procmond", epoch, 31, 35, 1))
	await(t, "report", func() bool { return f.Report().LastSeq == 35 && f.Report().LowestAck == 10 })
	if r := f.Report(); r.Purged != 0 || r.FirstSeq != 1 || r.Consumers != 3 {
		t.Errorf("below the mark: %+v", r)
	}
	f.deliver(t, nc, batch("procmond", epoch, 36, 44, 20<<10))
	await(t, "room", func() bool { return f.Report().Purged == 10 })
	if r := f.Report(); r.FirstSeq != 11 || r.LastSeq != 44 || r.Messages != 34 || !r.InService {
		t.Errorf("%+v", r)
	}
	slow(34)
	await(t, "report", func() bool { return f.Report().LowestAck == 30 }) // the fast one's
	fast(14)
	await(t, "report", func() bool { return f.Report().LowestAck == 44 })
	if r := f.Report(); r.Purged != 10 {
		t.Errorf("below the mark: %+v", r)
	}
	f.deliver(t, nc, batch("procmond", epoch, 45, 52, 20<<10))
	await(t, "all gone but what is new", func() bool { r := f.Report(); return r.Messages == 8 && r.Purged == 44 })
	f.wantLast(t, "procmond", epoch, 52)
	if w := f.Warnings(); len(w) != 0 {
		t.Errorf("%v", w)
	}
}

// Without a durable consumer nothing is removed, and it is said how long that can go on.
func TestNobodyConsumes(t *testing.T) {
	f, epoch, nc, js := room(t)
	if _, err := js.CreateConsumer(t.Context(), rpc.Stream, jetstream.ConsumerConfig{Name: "passing", InactiveThreshold: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= 40; seq += 10 {
		f.deliver(t, nc, batch("procmond", epoch, seq, seq+9, 20<<10))
		await(t, "sample", func() bool { return f.Report().LastSeq == seq+9 })
	}
	r := f.Report()
	if r.Purged != 0 || r.Messages != 40 || r.Consumers != 0 || r.RateEventS <= 0 || r.FullInS == nil || *r.FullInS <= 0 {
		t.Errorf("%+v", r)
	}
	w := f.Warnings()
	if len(w) != 1 || !strings.Contains(w[0], "Nobody consumes") || !strings.Contains(w[0], "79 % full") || !strings.Contains(w[0], "refuses events in") {
		t.Errorf("%q", w)
	}
	await(t, "it stands still", func() bool { return f.Report().FullInS == nil && f.Report().RateEventS == 0 })
	consume(t, js, "late", "")(40)
	await(t, "room", func() bool { r := f.Report(); return r.Purged > 0 && r.Bytes < 7*r.MaxBytes/10 })
	if w := f.Warnings(); len(w) != 0 {
		t.Errorf("%q", w)
	}
}

func TestUnreadText(t *testing.T) {
	soon, late := 90.0, 1e9
	r := rpc.StreamReport{Bytes: 3, MaxBytes: 4, MaxAgeS: 3600}
	for want, full := range map[string]*float64{"75 % full": nil, "in 1m30s": &soon, "go at the age of 1h0m0s": &late} {
		r.FullInS = full
		if got := unreadText(r); !strings.HasSuffix(got, want) && !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestFills(t *testing.T) {
	soon, late := 600.0, 7200.0
	for _, c := range []struct {
		used   uint64
		fullIn *float64
		want   bool
	}{{5, &soon, false}, {10, &soon, true}, {10, &late, false}, {10, nil, false}, {49, &late, false}, {50, nil, true}} {
		if got := fills(rpc.StreamReport{Bytes: c.used, MaxBytes: 100, FullInS: c.fullIn}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// The server's end is nobody else's, and everybody comes back to the next one.
func TestServerCrash(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "procmond")
	nc, agent := f.as(t, "procmond"), f.agent(t)
	heard, err := agent.SubscribeSync(rpc.SubjectHeartbeats)
	if err != nil {
		t.Fatal(err)
	}
	epoch := event.NewEpoch()
	f.deliver(t, nc, batch("procmond", epoch, 1, 100, 100))
	created := f.wantLast(t, "procmond", epoch, 100).StreamCreated
	for i := range uint64(3) {
		old := f.running.Load()
		old.srv.Shutdown()
		await(t, "a new server", func() bool { r := f.running.Load(); return r != nil && r != old })
		await(t, "clients back", func() bool { return nc.IsConnected() && agent.IsConnected() && nc.Stats().Reconnects > i })
		if p := f.wantLast(t, "procmond", epoch, 100+i); !p.StreamCreated.Equal(created) {
			t.Errorf("another stream: %+v", p)
		}
		await(t, "delivery", func() bool { return publish(nc, batch("procmond", epoch, 101+i, 101+i, 10)) == nil })
		await(t, "heartbeat", func() bool {
			_ = nc.Publish(rpc.HeartbeatSubject("procmond"), nil)
			_, err := heard.NextMsg(50 * time.Millisecond)
			return err == nil
		})
	}
	for _, s := range f.tree.Services() {
		if want := uint64(0); s.Path != "broker/server" && s.Restarts != want {
			t.Errorf("%s was restarted %d times: %s", s.Path, s.Restarts, s.LastError)
		} else if s.Path == "broker/server" && s.Restarts != 3 {
			t.Errorf("server was restarted %d times", s.Restarts)
		}
	}
	await(t, "report", func() bool { return f.Report().InService })
}

func TestConnectBeforeServer(t *testing.T) {
	b, err := New(config(t))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := b.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Subscribe("x", func(m *nats.Msg) { _ = m.Respond([]byte("y")) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // from the server's Serve, once
	go func() { ended <- b.Services()[0].Serve(ctx) }()
	defer func() { cancel(); t.Log("ended:", <-ended) }()
	await(t, "connected", nc.IsConnected)
	if m, err := nc.Request("x", nil, time.Second); err != nil || string(m.Data) != "y" {
		t.Errorf("%v", err)
	}
}

func TestStartFails(t *testing.T) {
	cfg := config(t)
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := lockStore(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Services()[0].Serve(t.Context()); err == nil || b.Ready() {
		t.Errorf("served a store in use: %v", err)
	}
	unlock()
	if err := os.WriteFile(filepath.Join(cfg.Store, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Services()[0].Serve(t.Context()); err == nil || b.Ready() {
		t.Errorf("served a store that is none: %v", err)
	}
	if err := os.Remove(filepath.Join(cfg.Store, "jetstream")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // from Serve, once
	go func() { ended <- b.Services()[0].Serve(ctx) }()
	await(t, "the next start", b.Ready)
	cancel()
	t.Log("ended:", <-ended)
}
