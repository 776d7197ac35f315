package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/supervisor/tree"
)

// TestMain is also the program that the tests run as a child.
func TestMain(m *testing.M) {
	if how := os.Getenv("AGENT_TEST_CHILD"); how != "" {
		os.Exit(childMain(how)) //nolint:forbidigo // it is a program of its own here
	}
	goleak.VerifyTestMain(m,
		// A server that was shut down and waited for lets go of these a moment later.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// childMain ends with a code, or waits for SIGTERM and ends as it is told.
func childMain(how string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if path := os.Getenv("AGENT_TEST_LOG"); path != "" {
		line := fmt.Sprintf("%s %s\n", os.Getenv("PROCMOND_ID"), os.Getenv(rpc.EnvSocket))
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(line)
		}
		if err != nil {
			return 1
		}
	}
	if code, err := strconv.Atoi(how); err == nil {
		return code
	}
	for range signals {
		if how != "stubborn" {
			return 0
		}
	}
	return 0
}

// patience bounds every wait of the tests.
const patience = 10 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// fakeBroker is a plain NATS server with what else the agent needs.
type fakeBroker struct {
	mu        sync.Mutex
	srv       *server.Server
	down      bool
	connected map[string][]uint64
	last      func() (rpc.Position, error)
}

func newBroker(t *testing.T) *fakeBroker {
	b := &fakeBroker{connected: map[string][]uint64{}, last: func() (rpc.Position, error) { return rpc.Position{Epoch: "e", Seq: 7}, nil }}
	b.start(t)
	t.Cleanup(b.stop)
	return b
}

func (b *fakeBroker) start(t *testing.T) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.srv, b.down = srv, false
}

func (b *fakeBroker) stop() {
	b.mu.Lock()
	b.down = true
	srv := b.srv
	b.mu.Unlock()
	srv.Shutdown()
	srv.WaitForShutdown()
}

func (b *fakeBroker) Connect(options ...nats.Option) (*nats.Conn, error) {
	b.mu.Lock()
	srv, down := b.srv, b.down
	b.mu.Unlock()
	if down {
		return nil, errors.New("down")
	}
	return nats.Connect("", append([]nats.Option{nats.InProcessServer(srv)}, options...)...)
}

func (b *fakeBroker) Last(context.Context, string) (rpc.Position, error) {
	b.mu.Lock()
	last := b.last
	b.mu.Unlock()
	return last()
}

func (b *fakeBroker) setLast(last func() (rpc.Position, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = last
}

func (b *fakeBroker) Connected(id string) []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connected[id]
}

func (b *fakeBroker) connect(id string, numbers ...uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.connected[id] = numbers
}

func (b *fakeBroker) Report() rpc.StreamReport {
	return rpc.StreamReport{Name: rpc.Stream, InService: true}
}

func (b *fakeBroker) Refusals() []rpc.Refusal { return nil }

func (b *fakeBroker) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.down
}

func (b *fakeBroker) Warnings() []string { return nil }

func fastTiming() Timing {
	return Timing{
		Ready: time.Minute, Heartbeat: time.Minute, Tick: 5 * time.Millisecond, Ask: 2 * time.Second, Retry: 20 * time.Millisecond,
		Adopt: 50 * time.Millisecond, RestartMin: 20 * time.Millisecond, RestartMax: 80 * time.Millisecond, RestartCalm: time.Minute,
		Hopeless: 10 * time.Minute, Stop: 5 * time.Second, Watchdog: time.Minute,
	}
}

func quietLog() (*logrus.Entry, *logtest.Hook) {
	logger, hook := logtest.NewNullLogger()
	logger.SetOutput(io.Discard)
	return logrus.NewEntry(logger), hook
}

// running is an agent that runs for a test.
type running struct {
	*Agent
	t      *testing.T
	broker *fakeBroker
	logs   *logtest.Hook
	stop   func() error
}

// run starts an agent, and stops it at the end of the test.
func run(t *testing.T, change func(*Config)) *running {
	t.Helper()
	broker := newBroker(t)
	log, hook := quietLog()
	cfg := Config{Broker: broker, Version: "v1", Timing: fastTiming(), Log: log, Abort: func(reason string) { t.Errorf("aborted: %s", reason) }}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, nil) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	r := &running{Agent: a, t: t, broker: broker, logs: hook, stop: stop}
	eventually(t, "the tree is there", func() bool { return a.tree.Load() != nil })
	r.awaitListening()
	return r
}

// awaitListening waits until every subject of the agent is listened to.
func (r *running) awaitListening() {
	r.t.Helper()
	eventually(r.t, "the agent listens", func() bool {
		services := r.tree.Load().Services()
		n := 0
		for _, s := range services {
			if s.State == tree.StateRunning && (s.Activity == "listen" || s.Activity == "coordinate") {
				n++
			}
		}
		return n >= 4
	})
}

func (r *running) state(want string) {
	r.t.Helper()
	eventually(r.t, "the agent is "+want, func() bool { return string(r.machine.State()) == want })
}

func (r *running) collector(id string) rpc.CollectorReport {
	r.t.Helper()
	for _, c := range r.Report().Collectors {
		if c.ID == id {
			return c
		}
	}
	return rpc.CollectorReport{}
}

func (r *running) refusedFor(reason string) uint64 {
	for _, refusal := range r.Report().Refused {
		if refusal.Reason == reason {
			return refusal.Count
		}
	}
	return 0
}

// logged counts log lines.
func (r *running) logged(message string) int {
	n := 0
	for _, e := range r.logs.AllEntries() {
		if e.Message == message {
			n++
		}
	}
	return n
}

// client is a connection of a user, with the inboxes that the broker would permit.
func (b *fakeBroker) client(t *testing.T, user string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(b.srv), nats.NoReconnect(), nats.CustomInboxPrefix(rpc.InboxPrefix(user)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// call sends a request and returns the response.
func call(t *testing.T, nc *nats.Conn, subject string, op rpc.Operation, payload any) rpc.Response {
	t.Helper()
	return callWith(t, nc, subject, rpc.Request{RequestID: "r1", Operation: op, Deadline: time.Now().Add(patience), CorrelationID: "c1", Payload: encode(t, payload)})
}

func callWith(t *testing.T, nc *nats.Conn, subject string, q rpc.Request) rpc.Response {
	t.Helper()
	return callRaw(t, nc, subject, encode(t, q))
}

func callRaw(t *testing.T, nc *nats.Conn, subject string, text []byte) rpc.Response {
	t.Helper()
	msg, err := nc.Request(subject, text, patience)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	var response rpc.Response
	if err := json.Unmarshal(msg.Data, &response); err != nil {
		t.Fatal(err)
	}
	return response
}

func encode(t *testing.T, v any) json.RawMessage {
	t.Helper()
	if v == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode[T any](t *testing.T, text json.RawMessage) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// fakeCollector is a collector as the agent sees it.
type fakeCollector struct {
	t        *testing.T
	nc       *nats.Conn
	id       string
	instance string

	mu       sync.Mutex
	asked    []rpc.Request
	ordered  int // BeginMonitoring to all
	reply    func(q rpc.Request) (any, *rpc.Error)
	sequence uint64
}

func newCollector(t *testing.T, b *fakeBroker, id, instance string) *fakeCollector {
	t.Helper()
	c := &fakeCollector{t: t, nc: b.client(t, id), id: id, instance: instance}
	if _, err := c.nc.Subscribe(rpc.CollectorSubject(id), c.handle); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nc.Subscribe(rpc.SubjectLifecycle, func(*nats.Msg) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ordered++
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *fakeCollector) handle(msg *nats.Msg) {
	var q rpc.Request
	if err := json.Unmarshal(msg.Data, &q); err != nil {
		c.t.Errorf("collector %s: %v", c.id, err)
		return
	}
	c.mu.Lock()
	c.asked = append(c.asked, q)
	reply := c.reply
	c.mu.Unlock()
	response := rpc.Response{RequestID: q.RequestID, Operation: q.Operation, Status: rpc.StatusOK}
	if reply != nil {
		payload, refused := reply(q)
		if refused != nil {
			if refused.Code == "silent" {
				return
			}
			response.Status, response.Error = rpc.StatusError, refused
		}
		text, _ := json.Marshal(payload)
		response.Payload = text
	}
	text, _ := json.Marshal(response)
	_ = msg.Respond(text) // the test may be over
}

func (c *fakeCollector) setReply(reply func(q rpc.Request) (any, *rpc.Error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reply = reply
}

// askedFor counts the requests for an operation.
func (c *fakeCollector) askedFor(op rpc.Operation) int { return len(c.requests(op)) }

func (c *fakeCollector) requests(op rpc.Operation) []rpc.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []rpc.Request
	for _, q := range c.asked {
		if q.Operation == op {
			all = append(all, q)
		}
	}
	return all
}

func (c *fakeCollector) begins() int {
	c.mu.Lock()
	ordered := c.ordered
	c.mu.Unlock()
	return ordered + c.askedFor(rpc.OpBeginMonitoring)
}

func (c *fakeCollector) registration() rpc.Registration {
	return rpc.Registration{
		Protocol: rpc.Protocol, ID: c.id, Instance: c.instance, Version: "v1", HostID: "h", BootID: "b",
		PID: 4711, StartedAt: time.Now(), State: collectorWaiting, Epoch: "e", Head: 9,
	}
}

func (c *fakeCollector) register() rpc.Response {
	c.t.Helper()
	return call(c.t, c.nc, rpc.RegistrationSubject(c.id), rpc.OpRegister, c.registration())
}

// join registers and must be accepted.
func (c *fakeCollector) join() rpc.Accepted {
	c.t.Helper()
	response := c.register()
	if response.Status != rpc.StatusOK {
		c.t.Fatalf("%s is not accepted: %v", c.id, response.Error)
	}
	return decode[rpc.Accepted](c.t, response.Payload)
}

func (c *fakeCollector) beat(health, state string) {
	c.t.Helper()
	c.sequence++
	h := rpc.Heartbeat{
		ID: c.id, Instance: c.instance, Sequence: c.sequence, At: time.Now(), Health: health,
		Collector: state, Coordinated: state == collectorRunning, Registration: "registered",
	}
	if err := c.nc.Publish(rpc.HeartbeatSubject(c.id), encode(c.t, h)); err != nil {
		c.t.Fatal(err)
	}
}
