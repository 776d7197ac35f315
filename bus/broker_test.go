package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
)

const (
	testID     = "collector-1"
	testHost   = "host-1"
	testSecret = "s3cret"
)

// testBroker is a NATS server behind a Unix socket, with the permissions that the
// agent's broker gives.
type testBroker struct {
	tb     testing.TB
	dir    string
	socket string
	max    int64 // MaxBytes of the stream

	maxPayload int32
	maxBatch   int // messages in an atomic batch; 0 is the server's own limit

	mu       sync.Mutex // guards everything below
	srv      *server.Server
	listener net.Listener
	conns    map[net.Conn]bool
	work     sync.WaitGroup
	// fromServer sees what goes to a client; false cuts the connection instead.
	fromServer func([]byte) bool
	still      chan struct{} // not nil: nothing is copied until it is closed
	agent      *nats.Conn
}

func newTestBroker(tb testing.TB) *testBroker {
	tb.Helper()
	dir, err := os.MkdirTemp("", "bus")
	must(tb, err)
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &testBroker{tb: tb, dir: dir, socket: filepath.Join(dir, "s"), max: 1 << 30, maxPayload: 1 << 20, conns: map[net.Conn]bool{}}
	must(tb, os.MkdirAll(filepath.Join(dir, "secrets"), 0o700))
	must(tb, os.WriteFile(rpc.SecretPath(b.socket, testID), []byte(testSecret+"\n"), 0o600))
	tb.Cleanup(b.stop)
	return b
}

// start runs the server over the same store as before, and serves the socket.
func (b *testBroker) start() {
	b.tb.Helper()
	srv, err := server.NewServer(&server.Options{
		ServerName: "broker", DontListen: true, NoSigs: true, NoLog: true, JetStream: true,
		StoreDir: filepath.Join(b.dir, "js"), SyncAlways: true, MaxPayload: b.maxPayload,
		JetStreamLimits: server.JSLimitOpts{MaxBatchSize: b.maxBatch},
		Users: []*server.User{
			{Username: "agent", Password: "agent"},
			{Username: testID, Password: testSecret, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{
					rpc.EventSubjectsOf(testID), rpc.RegistrationSubject(testID), rpc.HeartbeatSubject(testID),
				}},
				Subscribe: &server.SubjectPermission{Allow: []string{
					rpc.InboxPrefix(testID) + ".>", rpc.CollectorSubject(testID), rpc.SubjectLifecycle,
				}},
				Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
			}},
		},
	})
	must(b.tb, err)
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		b.tb.Fatal("server does not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo("agent", "agent"))
	must(b.tb, err)
	js, err := jetstream.New(conn)
	must(b.tb, err)
	_, err = js.CreateOrUpdateStream(context.Background(), b.stream())
	must(b.tb, err)
	_ = os.Remove(b.socket)
	l, err := net.Listen("unix", b.socket)
	must(b.tb, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.srv, b.listener, b.agent = srv, l, conn
	b.work.Go(func() { b.accept(l, srv) })
}

func (b *testBroker) stream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: rpc.Stream, Subjects: []string{rpc.StreamSubjects}, Storage: jetstream.FileStorage,
		Discard: jetstream.DiscardNew, MaxBytes: b.max, AllowAtomicPublish: true,
	}
}

// createStream makes the stream anew; the server removes the files of the old one
// in its own time and refuses meanwhile.
func (b *testBroker) createStream() {
	b.tb.Helper()
	eventually(b.tb, "a new stream", func() bool {
		_, err := b.js().CreateStream(context.Background(), b.stream())
		return err == nil
	})
}

func (b *testBroker) accept(l net.Listener, srv *server.Server) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		inner, err := srv.InProcessConn()
		if err != nil {
			_ = conn.Close()
			continue
		}
		b.mu.Lock()
		b.conns[conn] = true
		b.mu.Unlock()
		b.work.Go(func() { b.copy(inner, conn, nil) })
		b.work.Go(func() { b.copy(conn, inner, b.pass) })
	}
}

func (b *testBroker) pass(data []byte) bool {
	b.mu.Lock()
	pass := b.fromServer
	b.mu.Unlock()
	return pass == nil || pass(data)
}

func (b *testBroker) copy(to, from net.Conn, pass func([]byte) bool) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		b.mu.Lock()
		still := b.still
		b.mu.Unlock()
		if still != nil {
			<-still
		}
		if n > 0 && pass != nil && !pass(buf[:n]) {
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// stand stops all copying, or goes on with it.
func (b *testBroker) stand(still bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if still {
		b.still = make(chan struct{})
		return
	}
	close(b.still)
	b.still = nil
}

// intercept sets who sees what goes to clients.
func (b *testBroker) intercept(pass func([]byte) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fromServer = pass
}

// cut ends all connections; the server goes on.
func (b *testBroker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for conn := range b.conns {
		_ = conn.Close()
		delete(b.conns, conn)
	}
}

// stop ends server and socket; start begins again over the same store.
func (b *testBroker) stop() {
	b.mu.Lock()
	srv, l, agent := b.srv, b.listener, b.agent
	b.srv = nil
	b.mu.Unlock()
	if srv == nil {
		return
	}
	_ = l.Close()
	b.cut()
	agent.Close()
	srv.Shutdown()
	srv.WaitForShutdown()
	b.cut()
	b.work.Wait()
}

func (b *testBroker) js() jetstream.JetStream {
	b.mu.Lock()
	defer b.mu.Unlock()
	js, err := jetstream.New(b.agent)
	must(b.tb, err)
	return js
}

// nc is the agent's own connection.
func (b *testBroker) nc() *nats.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.agent
}

func (b *testBroker) info() *jetstream.StreamInfo {
	s, err := b.js().Stream(context.Background(), rpc.Stream)
	must(b.tb, err)
	info, err := s.Info(context.Background())
	must(b.tb, err)
	return info
}

// link is an open link to the broker that is closed at the end of the test.
func (b *testBroker) link() *Link { return b.linkWith(func(*connection) {}) }

func (b *testBroker) linkWith(change func(*connection)) *Link {
	b.tb.Helper()
	l, err := NewLink(LinkConfig{Socket: b.socket, ID: testID, Log: quiet()})
	must(b.tb, err)
	change(l.control)
	change(l.events)
	must(b.tb, l.Open(context.Background()))
	b.tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		must(b.tb, l.Close(ctx))
	})
	return l
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually waits until what is true.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatal("never happened: " + what)
		}
	}
}

// service is what all services of the package are.
type service interface {
	fmt.Stringer
	Serve(ctx context.Context) error
}

// running is a service that runs until it is stopped.
type running struct {
	tb     testing.TB
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
	err    error         // of Serve, or what it panicked with
	panics any
}

// run serves s until the end of the test.
func run(tb testing.TB, s service) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{tb: tb, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer func() { r.panics = recover() }()
		r.err = s.Serve(ctx)
	}()
	tb.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		r.tb.Error("service does not stop")
		return
	}
	if r.err != nil && !errors.Is(r.err, context.Canceled) && !errors.Is(r.err, errCrashed) {
		r.tb.Error("service ended:", r.err)
	}
}
