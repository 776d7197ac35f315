package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"go.uber.org/goleak"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/tree"
)

// envRole makes the test binary something else than a test.
const envRole = "BROKER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "broker":
		beBroker()
	case "peer":
		bePeer()
	}
	goleak.VerifyTestMain(m,
		// A server that was shut down and waited for lets go of these a moment later.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// quick is a pace for tests.
func quick() pace {
	return pace{
		check: 20 * time.Millisecond, upkeep: 20 * time.Millisecond, positions: 20 * time.Millisecond,
		rate: time.Second, handshake: 2 * time.Second, write: 2 * time.Second,
	}
}

// config in a directory whose path is short enough for a socket.
func config(t *testing.T) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return configIn(dir)
}

func configIn(dir string) Config {
	log := logrus.New()
	log.SetOutput(io.Discard)
	if os.Getenv("BROKER_TEST_LOG") != "" {
		log.SetOutput(os.Stderr)
		log.SetLevel(logrus.DebugLevel)
	}
	return Config{
		Socket: filepath.Join(dir, "s"), Store: filepath.Join(dir, "store"), Group: NoGroup,
		Log: logrus.NewEntry(log), pace: quick(),
	}
}

// fixture is a broker whose services run in a tree.
type fixture struct {
	*Broker
	tree *tree.Tree
}

func start(t *testing.T, cfg Config) *fixture {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := tree.New(tree.Config{Log: cfg.Log, FailureBackoff: 100 * time.Millisecond, Deadline: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range b.Services() {
		p := new(tree.Progress)
		s.Progress = p
		tr.Add("broker", s, tree.Options{Progress: p})
	}
	tr.Start(context.Background())
	f := &fixture{b, tr}
	t.Cleanup(f.stop)
	f.waitReady(t)
	return f
}

// stop stops the services in order. It can be called twice.
func (f *fixture) stop() {
	services := f.Services()
	for i := range services {
		_ = f.tree.Stop("broker/"+services[len(services)-1-i].String(), 10*time.Second)
	}
	_ = f.tree.Close(10 * time.Second)
}

func (f *fixture) waitReady(t *testing.T) {
	t.Helper()
	await(t, "broker ready", func() bool {
		if !f.Ready() {
			return false
		}
		conn, err := net.Dial("unix", f.cfg.Socket)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// await waits for a condition that must come.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}

func (f *fixture) enroll(t *testing.T, users ...string) {
	t.Helper()
	for _, user := range users {
		if err := Enroll(f.cfg.Socket, user, Enrollment{Group: NoGroup}); err != nil {
			t.Fatal(err)
		}
	}
}

// unixDialer is what clients use.
type unixDialer struct{ path string }

func (d unixDialer) Dial(string, string) (net.Conn, error) {
	return net.DialTimeout("unix", d.path, 2*time.Second)
}
func (unixDialer) SkipTLSHandshake() bool { return true }

// connectAs connects over the socket with the secret that is in the file.
func connectAs(cfg Config, user string, opts ...nats.Option) (*nats.Conn, error) {
	secret, _ := readSecret(cfg.Socket, user)
	return dialAs(cfg, user, secret, append([]nats.Option{nats.CustomInboxPrefix(rpc.InboxPrefix(user))}, opts...)...)
}

func dialAs(cfg Config, user, secret string, opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("nats://agent", append([]nats.Option{
		nats.SetCustomDialer(unixDialer{cfg.Socket}), nats.SkipHostLookup(),
		nats.UserInfo(user, secret),
		nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)...)
}

func (f *fixture) as(t *testing.T, user string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := connectAs(f.cfg, user, opts...)
	if err != nil {
		t.Fatalf("connect as %s: %v", user, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (f *fixture) agent(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := f.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	await(t, "agent connected", nc.IsConnected)
	return nc
}

// refused is how often something was.
func (f *fixture) refused(reason string) uint64 {
	for _, r := range f.Refusals() {
		if r.Reason == reason {
			return r.Count
		}
	}
	return 0
}

// batch of events of a collector.
func batch(id string, epoch event.Epoch, from, to uint64, size int) []*nats.Msg {
	var all []*nats.Msg
	for seq := from; seq <= to; seq++ {
		m := nats.NewMsg(rpc.EventSubject(event.KindStart, "host", id))
		m.Header.Set(nats.MsgIdHdr, rpc.MsgID(epoch, seq))
		m.Data = []byte(strings.Repeat("e", size))
		all = append(all, m)
	}
	return all
}

func publish(nc *nats.Conn, msgs []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return publishFor(ctx, nc, msgs)
}

func publishFor(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) error {
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Second))
	if err != nil {
		return err
	}
	ack, err := jetstreamext.PublishMsgBatch(ctx, js, msgs)
	if err == nil && ack.BatchSize != uint64(len(msgs)) {
		return fmt.Errorf("%d of %d taken", ack.BatchSize, len(msgs))
	}
	return err
}

func (f *fixture) deliver(t *testing.T, nc *nats.Conn, msgs []*nats.Msg) {
	t.Helper()
	if err := publish(nc, msgs); err != nil {
		t.Fatal(err)
	}
}

// wantCode fails unless an error is the server's of that number.
func wantCode(t *testing.T, err error, code jetstream.ErrorCode) {
	t.Helper()
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != code {
		t.Errorf("want error %d: %v", code, err)
	}
}

func (f *fixture) wantLast(t *testing.T, id string, epoch event.Epoch, seq uint64) rpc.Position {
	t.Helper()
	p, err := f.Last(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	text := epoch.String()
	if seq == 0 {
		text = ""
	}
	if p.Epoch != text || p.Seq != seq || p.StreamCreated.IsZero() {
		t.Errorf("last is %+v, want %s.%d", p, text, seq)
	}
	return p
}

// beBroker runs a broker in the directory that the environment names, until killed.
func beBroker() {
	b, err := New(configIn(os.Getenv("BROKER_TEST_DIR")))
	if err != nil {
		panic(err)
	}
	done := make(chan error)
	for _, s := range b.Services() {
		go func() { done <- s.Serve(context.Background()) }()
	}
	panic(<-done)
}

// bePeer says how it fares with a broker.
func bePeer() {
	nc, err := nats.Connect("nats://agent", nats.SetCustomDialer(unixDialer{os.Getenv("BROKER_TEST_SOCKET")}), nats.SkipHostLookup(),
		nats.UserInfo(os.Getenv("BROKER_TEST_USER"), os.Getenv("BROKER_TEST_SECRET")))
	if err != nil {
		_, _ = fmt.Fprintf(os.Stdout, "%q\n", err.Error())
	} else {
		_, _ = fmt.Fprintln(os.Stdout, "connected")
		nc.Close()
	}
	os.Exit(0) //nolint:forbidigo // it is no test
}
