package supervisor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/bus/broker"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

// saboteur runs a service until it is told to do something else in its place.
type saboteur struct {
	tree.Service
	// orders is received from by Serve, sent to by tests, never closed. Unbuffered:
	// whoever has sent knows that it is obeyed.
	orders chan func(context.Context) error
}

func (s *saboteur) Serve(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Service.Serve(inner) }()
	select {
	case err := <-ended:
		return err
	case order := <-s.orders:
		cancel()
		if err := <-ended; ctx.Err() != nil {
			return err
		}
		return order(ctx)
	}
}

// coordinated is a supervisor with a real agent, and all of its services sabotable.
type coordinated struct {
	*run
	broker    *broker.Broker
	store     *store.Store
	saboteurs map[string]*saboteur
}

func startCoordinated(t *testing.T, watchdog time.Duration) *coordinated {
	t.Helper()
	dir, err := os.MkdirTemp("", "sv-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "run", "b.sock")
	c := &coordinated{broker: startAgent(t, dir, socket), saboteurs: map[string]*saboteur{}}
	c.store, err = store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "db"), Owed: true, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.store.Close(true); err != nil {
			t.Error(err)
		}
	})
	c.run = start(t, func(cfg *Config) {
		cfg.Store, cfg.Watchdog = c.store, watchdog
		cfg.Broker = &Broker{Socket: socket, ID: rpc.DefaultID, BeginTimeout: BeginNever}
		cfg.wrap = func(path string, s tree.Service) tree.Service {
			w := &saboteur{Service: s, orders: make(chan func(context.Context) error)}
			c.saboteurs[path] = w
			return w
		}
	})
	c.await("coordination", func(s *control.State) bool { return s.Coordinated && s.Cycle.Count > 0 })
	return c
}

// startAgent runs a broker and an agent in this process.
func startAgent(t *testing.T, dir, socket string) *broker.Broker {
	t.Helper()
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	log := logrus.NewEntry(quiet)
	b, err := broker.New(broker.Config{Socket: socket, Group: broker.NoGroup, Store: filepath.Join(dir, "broker"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	var base []agent.Service
	for _, s := range b.Services() {
		progress := new(tree.Progress)
		s.Progress = progress
		base = append(base, agent.Service{Group: "broker", Service: s, Options: tree.Options{Progress: progress}})
	}
	if err := broker.Enroll(socket, rpc.DefaultID, broker.Enrollment{Group: broker.NoGroup}); err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Config{Broker: b, Timing: agent.DefaultTiming(), Log: log, Abort: func(reason string) { t.Error(reason) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx, base); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return b
}

// load appends events until the test ends it.
func (c *coordinated) load() (end func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var appending sync.WaitGroup
	appending.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			batch := &event.Batch{}
			for range 5 {
				batch.Events = append(batch.Events, &event.Event{
					HostID: "host", BootID: "boot", Kind: event.KindSensor, Source: event.SourceSensor, Time: time.Now(), Observed: time.Now(),
					Sensor: &event.Sensor{What: event.SensorHealth, Detail: "load"},
				})
			}
			if err := c.store.Append(ctx, batch); err != nil && ctx.Err() == nil {
				c.t.Error(err)
				return
			}
		}
	})
	return func() { cancel(); appending.Wait() }
}

// checkStream holds the stream to the store: the same bytes in the same order.
func (c *coordinated) checkStream() {
	c.t.Helper()
	c.await("delivery", func(s *control.State) bool { return s.Store.Cursor == s.Store.Head })
	nc, err := c.broker.Connect()
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	stream, err := js.Stream(c.t.Context(), rpc.Stream)
	if err != nil {
		c.t.Fatal(err)
	}
	at, epoch := uint64(0), c.store.Stats().Epoch
	err = c.store.Read(c.t.Context(), epoch, 1, 0, func(seq uint64, encoded []byte) error {
		at++
		m, err := stream.GetMsg(c.t.Context(), at)
		if err != nil {
			return err
		}
		if id := m.Header.Get(nats.MsgIdHdr); id != rpc.MsgID(epoch, seq) || !bytes.Equal(m.Data, encoded) {
			return errors.New("message " + id + " of the stream is not event " + rpc.MsgID(epoch, seq))
		}
		return nil
	})
	if last := stream.CachedInfo().State.LastSeq; err != nil || last > at {
		c.t.Errorf("%v; %d messages, %d events", err, last, at)
	}
	c.t.Logf("%d events are the same in the stream and in the store", at)
}

// linkServices are those of coordinated mode.
var linkServices = []string{"link/registration", "link/heartbeat", "link/RPC server", "delivery/publisher", "pressure/backpressure monitor"}

// TestServiceThatFails: each service of the link panics and fails in turn, under load.
// It alone is started again; the others go on, nothing is lost, and what was ordered is
// in force.
func TestServiceThatFails(t *testing.T) {
	t.Parallel()
	c := startCoordinated(t, DefaultWatchdog)
	end := c.load()
	interval := 20 * time.Second
	if _, err := c.mailbox.Handle().AdjustInterval(t.Context(), collect.Adjust{Value: &interval}); err != nil {
		t.Fatal(err)
	}
	restarts := map[string]uint64{}
	for _, path := range linkServices {
		for _, fault := range []struct {
			name string
			do   func(context.Context) error
		}{
			{"panics", func(context.Context) error { panic("sabotage") }},
			{"fails", func(context.Context) error { return errors.New("sabotage") }},
		} {
			before := c.State()
			c.saboteurs[path].orders <- fault.do
			restarts[path]++
			s := c.await(path+" to come back", func(s *control.State) bool {
				x := service(s, path)
				return x.State == "running" && x.Restarts == restarts[path] && s.Registration.State == "registered" && s.Store.Cursor > before.Store.Head
			})
			if got := service(s, path); !strings.Contains(got.LastError+got.LastPanic, "sabotage") {
				t.Errorf("%s %s: state says %+v", path, fault.name, got)
			}
			for _, other := range s.Services {
				if other.Restarts != restarts[other.Path] {
					t.Errorf("%s %s: %s was restarted %d times, want %d", path, fault.name, other.Path, other.Restarts, restarts[other.Path])
				}
			}
			if s.Interval.CurrentS != 20 || s.Totals.Events == 0 || s.Delivery.Delivered < before.Delivery.Delivered {
				t.Errorf("%s %s: %+v %+v", path, fault.name, s.Interval, s.Delivery)
			}
		}
	}
	c.pressIn()
	end()
	c.checkStream()
}

// pressIn sets what the monitor does not want, and waits until it is right again: so it
// is after a restart of either side.
func (c *coordinated) pressIn() {
	c.t.Helper()
	on := true
	if _, err := c.mailbox.Handle().AdjustInterval(c.t.Context(), collect.Adjust{Pressure: &on}); err != nil {
		c.t.Fatal(err)
	}
	c.await("pressure to be released", func(s *control.State) bool { return s.Interval.CurrentS == 20 })
}

// TestServiceThatHangs: each service of the link hangs; it is named, and the watchdog
// ends the process, while the others go on.
func TestServiceThatHangs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the watchdog")
	}
	for _, path := range linkServices {
		t.Run(strings.ReplaceAll(path, "/", " "), func(t *testing.T) {
			t.Parallel()
			c := startCoordinated(t, MinWatchdog)
			end := c.load()
			c.saboteurs[path].orders <- func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			s := c.await("it to be named", func(s *control.State) bool {
				return s.Health == control.HealthUnhealthy && strings.Contains(strings.Join(s.Reasons, " "), path)
			})
			if path != "delivery/publisher" && s.Delivery.State == "disconnected" {
				t.Errorf("delivery %+v", s.Delivery)
			}
			select {
			case reason := <-c.aborted:
				if !strings.Contains(reason, path) {
					t.Errorf("aborted because %s", reason)
				}
			case <-time.After(patience):
				t.Error("the watchdog did not bite")
			}
			end()
			_ = c.stop() // what is stopped in order is another test
		})
	}
}
