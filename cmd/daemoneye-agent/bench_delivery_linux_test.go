package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"daemoneye.dev/procmond/bus"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/store"
)

const (
	benchHost = "0123456789abcdef0123456789abcdef"
	bareUser  = "bare" // who publishes without a store
)

// benchRig is a rig whose stores are on the disk to measure: PROCMOND_BENCH_DIR, else
// this directory. Temporary ones are often memory, where fsync costs nothing.
func benchRig(b *testing.B) *rig {
	b.Helper()
	parent := os.Getenv("PROCMOND_BENCH_DIR")
	if parent == "" {
		parent = "."
	}
	dir, err := os.MkdirTemp(parent, ".bench-")
	if err != nil {
		b.Fatal(err)
	}
	r := newRig(b)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil {
		b.Fatal(err)
	}
	r.database = filepath.Join(dir, "processes.db")
	r.start("daemoneye-agent", nil, "run", "--socket", r.socket, "--store", filepath.Join(dir, "broker"), "--max-bytes", "8GiB", "--log-level", "error")
	await(b, "the agent", func() bool { _, code := r.ask("status"); return code == 0 })
	return r
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

// sender is a store with its publisher, in this process.
type sender struct {
	b     *testing.B
	store *store.Store
	link  *bus.Link
	*bus.Publisher
}

func newSender(b *testing.B, r *rig) *sender {
	b.Helper()
	s := &sender{b: b}
	var err error
	s.store, err = store.Open(b.Context(), store.Config{Dir: r.database, Owed: true, Fatal: func(err error) { panic(err) }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.store.Close(true); err != nil {
			b.Error(err)
		}
	})
	if s.link, err = bus.NewLink(bus.LinkConfig{Socket: r.socket, ID: rpc.DefaultID, Log: quiet()}); err != nil {
		b.Fatal(err)
	}
	if err := s.link.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.link.Close(context.Background()) })
	s.Publisher, err = bus.NewPublisher(bus.PublisherConfig{Link: s.link, Log: s.store, HostID: benchHost, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// serve runs the publisher until stop is called.
func (s *sender) serve() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(ctx) })
	return func() { cancel(); serving.Wait() }
}

// awaitDelivered waits until the stream has everything up to seq.
func (s *sender) awaitDelivered(seq uint64) {
	s.b.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for s.Status().Delivered < seq {
		if <-tick.C; time.Now().After(deadline) {
			s.b.Fatalf("not delivered: %+v", s.Status())
		}
	}
}

// starts is a batch of starts whose encoded size is about size.
func starts(n, size int) *event.Batch {
	batch := &event.Batch{}
	now := time.Now()
	for i := range n {
		e := &event.Event{
			HostID: benchHost, BootID: "01234567-89ab-cdef-0123-456789abcdef", Kind: event.KindStart, Source: event.SourceScan, Time: now, Observed: now,
			Epoch: event.NewEpoch(), Seq: 1 << 20,
			Process: event.Process{
				ID: event.ID{1, byte(i), byte(i >> 8)}, ParentID: event.ID{1}, PID: int32(i), PPID: 1, Name: "sh", Exe: "/usr/bin/dash",
				Args: []string{"/bin/sh", "-c", ""}, UID: 1000, GID: 1000, StartTicks: uint64(i), StartTime: now, State: 'S', Threads: 1, RSS: 1 << 20,
			},
		}
		e.Process.Args[2] = strings.Repeat("x", max(0, size-len(event.Append(nil, e))))
		batch.Events = append(batch.Events, e)
	}
	return batch
}

// encodedStarts are the same events as messages, made beforehand.
func encodedStarts(n, size int) [][]byte {
	var all [][]byte
	for _, e := range starts(n, size).Events {
		all = append(all, event.Append(nil, e))
	}
	return all
}

// deliveryEvents is how many events a round delivers.
const deliveryEvents = 20_000

// BenchmarkDelivery compares, in turns, over the same socket to the same agent, which
// is a process of its own and syncs before it acknowledges: the publisher, from its
// start through the question where the stream stands, reading from a store on disk,
// until the last acknowledgement; and the client library's PublishMsgBatch of as many
// events of the same size, in batches of the same size, that are in memory.
func BenchmarkDelivery(b *testing.B) {
	for _, size := range []int{300, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) { benchDelivery(b, size) })
	}
}

func benchDelivery(b *testing.B, size int) {
	r := benchRig(b)
	if out, code := r.ask("enroll", bareUser); code != 0 {
		b.Fatal(out)
	}
	s := newSender(b, r)
	bare := newBare(b, r, size)
	batch := starts(bus.MaxWindow, size)
	var ours, floor, ratios []float64
	for b.Loop() {
		fill(b, s, batch)
		steps := []func(){
			func() { ours = append(ours, deliveryEvents/s.deliverAll().Seconds()) },
			func() { floor = append(floor, deliveryEvents/bare.publish().Seconds()) },
		}
		if len(ratios)%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			step()
		}
		ratios = append(ratios, ours[len(ours)-1]/floor[len(floor)-1])
	}
	if held := s.Status(); held.Delivered != s.store.Stats().Head || held.Duplicates != 0 {
		b.Errorf("%+v", held)
	}
	b.ReportMetric(quantile(ratios, 0.5), "ratio")
	b.ReportMetric(quantile(ratios, 0.25), "ratio-q1")
	b.ReportMetric(quantile(ratios, 0.75), "ratio-q3")
	b.ReportMetric(quantile(ours, 0.5), "events/s")
	b.ReportMetric(quantile(floor, 0.5), "bare/s")
	b.ReportMetric(0, "ns/op")
}

func fill(b *testing.B, s *sender, batch *event.Batch) {
	b.Helper()
	for range deliveryEvents / len(batch.Events) {
		if err := s.store.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}

func (s *sender) deliverAll() time.Duration {
	s.b.Helper()
	head := s.store.Stats().Head
	began := time.Now()
	stop := s.serve()
	s.awaitDelivered(head)
	took := time.Since(began)
	stop()
	return took
}

// bare publishes what is in memory.
type bare struct {
	b    *testing.B
	js   jetstream.JetStream
	msgs []*nats.Msg
}

func newBare(b *testing.B, r *rig, size int) *bare {
	b.Helper()
	js, err := jetstream.New(r.connect(bareUser, r.secret(bareUser)))
	if err != nil {
		b.Fatal(err)
	}
	p := &bare{b: b, js: js}
	subject := rpc.EventSubject(event.KindStart, benchHost, bareUser)
	for _, encoded := range encodedStarts(deliveryEvents, size) {
		p.msgs = append(p.msgs, &nats.Msg{Subject: subject, Data: encoded, Header: nats.Header{}})
	}
	return p
}

func (p *bare) publish() time.Duration {
	p.b.Helper()
	epoch := event.NewEpoch()
	for i, m := range p.msgs {
		m.Header = nats.Header{}
		m.Header.Set(nats.MsgIdHdr, rpc.MsgID(epoch, uint64(i+1)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	for batch := range slices.Chunk(p.msgs, bus.MaxWindow) {
		if _, err := jetstreamext.PublishMsgBatch(ctx, p.js, batch); err != nil {
			p.b.Fatal(err)
		}
	}
	return time.Since(began)
}

func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// Latency is measured at latencyRate events a second, in the batches in which kernel
// events are drained.
const (
	latencyRate  = 1000
	latencyEvery = 20 * time.Millisecond
	latencyFor   = 20 * time.Second
)

// BenchmarkLatency measures how long it takes from Append to durable, and from Append to
// the agent's acknowledgement, of each batch.
func BenchmarkLatency(b *testing.B) {
	r := benchRig(b)
	s := newSender(b, r)
	stop := s.serve()
	defer stop()
	batch := starts(int(latencyRate*latencyEvery/time.Second), 300)
	var durable, acknowledged []float64
	began, syncs := time.Now(), s.store.Stats().Syncs
	for b.Loop() {
		d, a := s.pour(batch, int(latencyFor/latencyEvery))
		durable, acknowledged = append(durable, d...), append(acknowledged, a...)
	}
	b.ReportMetric(quantile(durable, 0.5), "durable-p50-ms")
	b.ReportMetric(quantile(durable, 0.99), "durable-p99-ms")
	b.ReportMetric(quantile(acknowledged, 0.5), "acknowledged-p50-ms")
	b.ReportMetric(quantile(acknowledged, 0.99), "acknowledged-p99-ms")
	b.ReportMetric(float64(s.store.Stats().Syncs-syncs)/time.Since(began).Seconds(), "fsyncs/s")
	b.ReportMetric(0, "ns/op")
}

// appended is a batch on its way.
type appended struct {
	at  time.Time
	seq uint64
}

// pour appends n batches at the rate and returns how long each took, in ms.
func (s *sender) pour(batch *event.Batch, n int) (durable, acknowledged []float64) {
	s.b.Helper()
	pending := make(chan appended, n) // sent to and closed here; room for all
	var watching sync.WaitGroup
	watching.Go(func() {
		for a := range pending {
			s.awaitDelivered(a.seq)
			acknowledged = append(acknowledged, milliseconds(time.Since(a.at)))
		}
	})
	tick := time.NewTicker(latencyEvery)
	defer tick.Stop()
	for range n {
		<-tick.C
		at := time.Now()
		if err := s.store.Append(context.Background(), batch); err != nil {
			s.b.Error(err)
			break
		}
		durable = append(durable, milliseconds(time.Since(at)))
		pending <- appended{at, s.store.Stats().Head}
	}
	close(pending)
	watching.Wait()
	return durable, acknowledged
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
