package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

func TestLater(t *testing.T) {
	none, a5, a7, b1 := record{}, record{Epoch: "a", Seq: 5}, record{Epoch: "a", Seq: 7}, record{Epoch: "b", Seq: 1}
	for _, c := range []struct{ newest, known, want record }{
		{none, none, none}, {a5, none, a5}, {none, a5, a5}, {a7, a5, a7}, {a5, a7, a7}, {b1, a7, b1}, {a5, b1, a5},
	} {
		if got := later(c.newest, c.known); got != c.want {
			t.Errorf("%v after %v is %v, want %v", c.newest, c.known, got, c.want)
		}
	}
}

// Positions are each collector's own, and outlive events, restarts and epochs.
func TestLastOutlives(t *testing.T) {
	cfg := config(t)
	f := start(t, cfg)
	f.enroll(t, "a", "a-b", "start")
	first, second, third := event.NewEpoch(), event.NewEpoch(), event.NewEpoch()
	f.deliver(t, f.as(t, "a"), batch("a", first, 1, 10, 10))
	f.deliver(t, f.as(t, "a-b"), batch("a-b", second, 1, 20, 10))
	f.deliver(t, f.as(t, "start"), batch("start", third, 1, 30, 10))
	want := func(f *fixture) {
		t.Helper()
		f.wantLast(t, "a", first, 10)
		f.wantLast(t, "a-b", second, 20)
		f.wantLast(t, "start", third, 30)
		f.wantLast(t, "b", first, 0)
	}
	want(f)
	f.stop()
	f = start(t, cfg)
	want(f)
	created := f.wantLast(t, "a", first, 10).StreamCreated
	f.purgeAll(t)
	want(f)
	f.stop()
	f = start(t, cfg)
	want(f)
	f.deliver(t, f.as(t, "a"), batch("a", second, 1, 3, 10)) // the collector began a new epoch
	if p := f.wantLast(t, "a", second, 3); !p.StreamCreated.Equal(created) {
		t.Errorf("another stream: %+v", p)
	}
	f.stop()
	if err := os.RemoveAll(cfg.Store); err != nil {
		t.Fatal(err)
	}
	f = start(t, cfg)
	if p := f.wantLast(t, "a", first, 0); p.StreamCreated.Equal(created) {
		t.Errorf("the same stream: %+v", p)
	}
	if _, err := f.Last(t.Context(), "a.b"); !errors.Is(err, rpc.ErrID) {
		t.Errorf("no id: %v", err)
	}
}

// purgeAll empties the stream as its age limit would, unasked.
func (f *fixture) purgeAll(t *testing.T) {
	t.Helper()
	r := f.running.Load()
	await(t, "positions recorded", func() bool {
		f.positions.Lock()
		defer f.positions.Unlock()
		return r.seen == r.lastSeq(t)
	})
	if err := r.stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (r *run) lastSeq(t *testing.T) uint64 {
	info, err := r.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.LastSeq
}

// Events that the age limit removed were taken all the same.
func TestLastOutlivesAge(t *testing.T) {
	cfg := config(t)
	cfg.MaxAge = time.Second
	f := start(t, cfg)
	f.enroll(t, "a")
	epoch := event.NewEpoch()
	f.deliver(t, f.as(t, "a"), batch("a", epoch, 1, 10, 10))
	await(t, "events gone", func() bool { return f.Report().LastSeq == 10 && f.Report().Messages == 0 })
	f.wantLast(t, "a", epoch, 10)
}

// Positions of a stream that was made anew are of no meaning, even if they are there.
func TestLastOfAnotherStream(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "a")
	epoch := event.NewEpoch()
	f.deliver(t, f.as(t, "a"), batch("a", epoch, 1, 10, 10))
	f.purgeAll(t)
	f.wantLast(t, "a", epoch, 10)
	js, err := jetstream.New(f.agent(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = js.DeleteStream(t.Context(), rpc.Stream) // the server may be gone before it answers
	await(t, "a new stream", func() bool {
		p, err := f.Last(t.Context(), "a")
		return err == nil && p.Epoch == ""
	})
	await(t, "report", func() bool { return f.Report().InService && f.Report().LastSeq == 0 })
}

// A collector that sends no event by mistake can still go on.
func TestLastWithoutID(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "a", "b")
	epoch, other := event.NewEpoch(), event.NewEpoch()
	nc := f.as(t, "a")
	f.deliver(t, nc, batch("a", epoch, 1, 10, 10))
	await(t, "recorded", func() bool {
		r := f.running.Load()
		f.positions.Lock()
		defer f.positions.Unlock()
		return r.seen == 10
	})
	if _, err := nc.Request(rpc.EventSubject(event.KindStart, "h", "a"), []byte("junk"), time.Second); err != nil {
		t.Fatal(err)
	}
	f.deliver(t, f.as(t, "b"), batch("b", other, 1, 5, 10))
	f.wantLast(t, "a", epoch, 10)
	f.wantLast(t, "b", other, 5)
}

// A killed broker has all that it acknowledged, and knows what it has.
func TestKill(t *testing.T) {
	cfg := config(t)
	if err := Enroll(cfg.Socket, "a", Enrollment{Group: NoGroup}); err != nil {
		t.Fatal(err)
	}
	epoch := event.NewEpoch()
	next := uint64(1)
	for round := range 3 {
		next = killMidStream(t, cfg, epoch, next)
		f := start(t, cfg)
		p, err := f.Last(t.Context(), "a")
		if err != nil || p.Epoch != epoch.String() || p.Seq+1 < next {
			t.Fatalf("round %d: acknowledged up to %d, last is %+v: %v", round, next-1, p, err)
		}
		if diff := cmp.Diff(p.Seq, f.countEvents(t)); diff != "" {
			t.Errorf("events are not those up to the last: %s", diff)
		}
		next = p.Seq + 1
		f.deliver(t, f.as(t, "a"), batch("a", epoch, next, next, 10))
		f.wantLast(t, "a", epoch, next)
		next++
		f.stop()
	}
}

// killMidStream runs a broker as a process of its own, and kills it while it is busy.
// It returns the first sequence that was not acknowledged.
func killMidStream(t *testing.T, cfg Config, epoch event.Epoch, next uint64) uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"=broker", "BROKER_TEST_DIR="+cfg.dir())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var nc *nats.Conn
	await(t, "broker's process", func() (ok bool) {
		var err error
		nc, err = connectAs(cfg, "a", nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { cancel() }))
		return err == nil
	})
	defer nc.Close()
	begun := next
	for {
		err := publishFor(ctx, nc, batch("a", epoch, next, next+99, 300))
		if err != nil {
			if next < begun+1000 {
				t.Fatal(err)
			}
			return next
		}
		next += 100
		if next == begun+1000 { // while the next ones are on their way
			time.AfterFunc(3*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
}

func (c Config) dir() string { return c.Socket[:len(c.Socket)-len("/s")] }

// countEvents returns how many events there are, if they are those from 1 on.
func (f *fixture) countEvents(t *testing.T) uint64 {
	t.Helper()
	js, err := jetstream.New(f.agent(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.OrderedConsumer(t.Context(), rpc.Stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Messages() // Next would make a consumer for each
	if err != nil {
		t.Fatal(err)
	}
	defer all.Stop()
	for n := uint64(1); n <= info.NumPending; n++ {
		m, err := all.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, seq, err := rpc.ParseMsgID(m.Headers().Get(nats.MsgIdHdr)); err != nil || seq != n {
			t.Fatalf("event %d is %d: %v", n, seq, err)
		}
	}
	return info.NumPending
}

// An idle broker is small. The figure is for people; the bound is for accidents.
func TestIdleMemory(t *testing.T) {
	cfg := config(t)
	if err := Enroll(cfg.Socket, "a", Enrollment{Group: NoGroup}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"=broker", "BROKER_TEST_DIR="+cfg.dir())
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	await(t, "broker's process", func() bool {
		nc, err := connectAs(cfg, "a")
		if err == nil {
			defer nc.Close()
		}
		return err == nil
	})
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kib int
		if _, err := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &kib); err == nil {
			t.Logf("resident set of an idle broker: %d MiB", kib>>10)
			if kib > 40<<10 && !raceEnabled {
				t.Error("more than 40 MiB")
			}
		}
	}
}
