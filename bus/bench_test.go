package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

// BenchmarkDelivery compares the publisher, from the moment at which events become
// visible in its log to the durable cursor, with the library's PublishMsgBatch of
// 1000 messages that are made beforehand, over the same socket to the same stream,
// in turns. It reports both rates and the median of the ratios.
func BenchmarkDelivery(b *testing.B) {
	for _, size := range []int{300, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) { compareDelivery(b, size, barePublish) })
	}
}

// BenchmarkBatchPublisher compares the publisher with the library's BatchPublisher
// as it would have to be used: without a wait for the first message, a message that
// is used again, the commit awaited at once.
func BenchmarkBatchPublisher(b *testing.B) {
	for _, size := range []int{300, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) { compareDelivery(b, size, libraryPublish) })
	}
}

type otherWay func(b *testing.B, nc *nats.Conn, js jetstream.JetStream, epoch event.Epoch, encoded [][]byte) time.Duration

func compareDelivery(b *testing.B, size int, other otherWay) {
	const n = 20000
	broker, _ := with(b)
	link := broker.link()
	eventually(b, "connections", func() bool { return connected(link) })
	s, _ := link.events.look()
	js, err := jetstream.New(s.nc)
	must(b, err)
	log := newMemLog()
	p := newTestPublisher(b, link, log)
	run(b, p)
	eventually(b, "idle", func() bool { return p.Status().State == DeliveryIdle })
	encoded := encodedEvents(n, size)
	var ratios, ours, theirs []float64
	rate := func(d time.Duration) float64 { return n / d.Seconds() }
	for b.Loop() {
		bare := func() { theirs = append(theirs, rate(other(b, s.nc, js, event.NewEpoch(), encoded))) }
		own := func() { ours = append(ours, rate(deliver(b, p, log, encoded))) }
		steps := []func(){bare, own}
		if len(ratios)%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			step()
			purge(b, broker)
		}
		ratios = append(ratios, ours[len(ours)-1]/theirs[len(theirs)-1])
	}
	b.ReportMetric(median(ours), "events/s")
	b.ReportMetric(median(theirs), "bare/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op")
	b.Logf("%d rounds, ratios %.2f..%.2f", len(ratios), slices.Min(ratios), slices.Max(ratios))
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func purge(b *testing.B, broker *testBroker) {
	s, err := broker.js().Stream(context.Background(), rpc.Stream)
	must(b, err)
	must(b, s.Purge(context.Background()))
}

func encodedEvents(n, size int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		e := event.Event{Seq: uint64(i + 1), Epoch: event.NewEpoch(), HostID: testHost, Kind: event.KindStart}
		e.Process.Exe = strings.Repeat("x", size-len(event.Append(nil, &e))-6)
		all[i] = event.Append(nil, &e)
	}
	return all
}

func deliver(b *testing.B, p *Publisher, log *memLog, encoded [][]byte) time.Duration {
	began := time.Now()
	log.mu.Lock()
	log.events = append(log.events, encoded...)
	log.changed.raise()
	log.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, head := log.at(); p.Status().Delivered < head; {
		must(b, ctx.Err())
		time.Sleep(200 * time.Microsecond) //nolint:forbidigo // polls without taking the processor away from what is measured
	}
	return time.Since(began)
}

func barePublish(b *testing.B, _ *nats.Conn, js jetstream.JetStream, epoch event.Epoch, encoded [][]byte) time.Duration {
	subject := rpc.EventSubject(event.KindStart, testHost, testID)
	msgs := make([]*nats.Msg, len(encoded))
	for i := range encoded {
		msgs[i] = nats.NewMsg(subject)
		msgs[i].Data = encoded[i]
		msgs[i].Header.Set(nats.MsgIdHdr, rpc.MsgID(epoch, uint64(i+1)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	for batch := range slices.Chunk(msgs, MaxWindow) {
		_, err := jetstreamext.PublishMsgBatch(ctx, js, batch)
		must(b, err)
	}
	return time.Since(began)
}

func libraryPublish(b *testing.B, _ *nats.Conn, js jetstream.JetStream, epoch event.Epoch, encoded [][]byte) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	msg := nats.NewMsg(rpc.EventSubject(event.KindStart, testHost, testID))
	began := time.Now()
	seq := uint64(0)
	for batch := range slices.Chunk(encoded, MaxWindow) {
		p, err := jetstreamext.NewBatchPublisher(js, jetstreamext.BatchFlowControl{})
		must(b, err)
		for i, data := range batch {
			seq++
			msg.Data = data
			msg.Header.Set(nats.MsgIdHdr, rpc.MsgID(epoch, seq))
			if i < len(batch)-1 {
				must(b, p.AddMsg(msg))
				continue
			}
			_, err = p.CommitMsg(ctx, msg)
			must(b, err)
			msg.Header.Del(jetstreamext.BatchCommitHeader)
		}
	}
	return time.Since(began)
}

// BenchmarkRPC measures a request from the agent's own connection to an operation
// that does nothing, and back.
func BenchmarkRPC(b *testing.B) {
	d := newDesk(b)
	run(b, d)
	d.listening()
	var took []float64
	for b.Loop() {
		began := time.Now()
		d.ask(opEcho, `{}`)
		took = append(took, time.Since(began).Seconds()*1e6)
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "p50-us")
	b.ReportMetric(took[len(took)*99/100], "p99-us")
}
