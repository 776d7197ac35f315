package operator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
)

const patience = 10 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A server that was shut down and waited for lets go of these a moment later.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// place is a directory for a socket, with the operator's secret in it.
func place(t *testing.T, secret string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "op") // short, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rpc.SecretPath(socket, rpc.UserOperator), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return socket
}

// serve is a broker that knows the operator, behind the socket.
func serve(t *testing.T, socket string) *server.Server {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{{Username: rpc.UserOperator, Password: "right"}, {Username: "x", Password: "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			inner, err := srv.InProcessConn()
			if err != nil {
				return
			}
			for _, pair := range [][2]net.Conn{{conn, inner}, {inner, conn}} {
				copies.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
		copies.Wait()
	})
	return srv
}

func TestDialFaults(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "s")
	empty := place(t, " \n")
	nobody := place(t, "right")
	left := place(t, "right") // by an agent that was killed
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	wrong := place(t, "wrong")
	serve(t, wrong)
	mute := place(t, "right")
	l, err := net.Listen("unix", mute)
	if err != nil {
		t.Fatal(err)
	}
	hangsUp := make(chan struct{})
	go func() {
		defer close(hangsUp)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	defer func() { _ = l.Close(); <-hangsUp }()
	for name, c := range map[string]struct {
		socket string
		want   error
	}{
		"no directory": {missing, ErrNotRunning},
		"no listener":  {nobody, ErrNotRunning},
		"left socket":  {left, ErrNotRunning},
		"wrong secret": {wrong, ErrForbidden},
		"hangs up":     {mute, ErrForbidden},
	} {
		if _, err := Dial(c.socket, false, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Dial(empty, false, nil); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("empty secret: %v", err)
	}
}

func TestAsk(t *testing.T) {
	socket := place(t, "right\n")
	srv := serve(t, socket)
	client, err := Dial(socket, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := client.Ask(ctx, rpc.OpCollectors, nil); !errors.Is(err, ErrSilent) {
		t.Errorf("nobody is there: %v", err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo("x", "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	answers := map[rpc.Operation]string{
		rpc.OpCollectors: `{"status":"ok","payload":{"a":1}}`,
		rpc.OpStop:       `{"status":"error","error":{"code":"not_found","message":"none"}}`,
		rpc.OpBegin:      `nonsense`,
	}
	_, err = nc.Subscribe(rpc.SubjectAgent, func(msg *nats.Msg) {
		for op, text := range answers {
			if bytes.Contains(msg.Data, []byte(`"`+string(op)+`"`)) {
				_ = msg.Respond([]byte(text))
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Ask(ctx, rpc.OpCollectors, nil); err != nil || string(got) != `{"a":1}` {
		t.Errorf("%s %v", got, err)
	}
	refused := new(rpc.Error)
	if _, err := client.Ask(ctx, rpc.OpStop, nil); !errors.As(err, &refused) || refused.Code != rpc.CodeNotFound {
		t.Error(err)
	}
	if _, err := client.Ask(ctx, rpc.OpBegin, nil); err == nil {
		t.Error("nonsense is an answer")
	}
	short, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	if _, err := client.Ask(short, "Silence", nil); !errors.Is(err, ErrSilent) {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	socket := place(t, "right")
	srv := serve(t, socket)
	client, err := Dial(socket, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.Events(ctx, Query{}, nil, nil); !errors.Is(err, ErrSilent) {
		t.Errorf("no stream: %v", err)
	}

	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo("x", "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: rpc.Stream, Subjects: []string{rpc.StreamSubjects}})
	if err != nil {
		t.Fatal(err)
	}
	epochs := map[string]event.Epoch{"a": event.NewEpoch(), "b": event.NewEpoch(), "c": event.NewEpoch()}
	publish := func(id string, seq uint64, data []byte) {
		t.Helper()
		msg := nats.NewMsg(rpc.EventSubject(event.KindStart, "h", id))
		msg.Data = data
		msg.Header.Set(nats.MsgIdHdr, rpc.MsgID(epochs[id], seq))
		if _, err := js.PublishMsg(ctx, msg); err != nil {
			t.Fatal(err)
		}
	}
	encoded := func(pid int) []byte {
		return event.Append(nil, &event.Event{Kind: event.KindStart, HostID: "h", Time: time.Now(), Observed: time.Now(), Process: event.Process{PID: int32(pid)}})
	}
	// Few of b among many of a, and one that is no event.
	for i := range 200 {
		publish("a", uint64(i+1), encoded(i))
		if i%50 == 0 {
			publish("b", uint64(i+1), encoded(i))
		}
	}
	publish("c", 1, []byte("\xff\xff nonsense"))

	read := func(q Query) (pids []int32, strange int) {
		t.Helper()
		err := client.Events(ctx, q, func(m *Message) error {
			if m.Event.Epoch != epochs[m.ID] || m.Event.Seq == 0 || q.ID != "" && m.ID != q.ID {
				t.Errorf("%+v", m)
			}
			pids = append(pids, m.Event.Process.PID)
			return nil
		}, func(uint64, error) { strange++ })
		if err != nil {
			t.Errorf("%+v: %v", q, err)
		}
		return pids, strange
	}
	if pids, strange := read(Query{}); len(pids) != 204 || strange != 1 {
		t.Errorf("%d events, %d strange", len(pids), strange)
	}
	for want, q := range map[string]Query{
		"[197 198 199]":        {Newest: 4},
		"[50 100 150]":         {ID: "b", Newest: 3},
		"[0 50 100 150]":       {ID: "b", Newest: 1000},
		"[199]":                {ID: "a", Newest: 1},
		"[]":                   {ID: "nobody", Newest: 3},
		"[0 50 100 150] whole": {ID: "b"},
	} {
		pids, _ := read(q)
		text := "[" + join(pids) + "]"
		if text != want && text+" whole" != want {
			t.Errorf("%+v: %v, want %s", q, pids, want)
		}
	}

	info, err := stream.Info(ctx)
	if err != nil || info.State.Consumers != 0 {
		t.Errorf("%d consumers are left, %v", info.State.Consumers, err)
	}

	follow, stop := context.WithCancel(ctx)
	var got []int32
	err = client.Events(follow, Query{ID: "b", Newest: 1, Follow: true}, func(m *Message) error {
		got = append(got, m.Event.Process.PID)
		if len(got) == 1 {
			publish("b", 1000, encoded(1000))
		} else {
			stop()
		}
		return nil
	}, nil)
	if !errors.Is(err, context.Canceled) || join(got) != "150 1000" {
		t.Errorf("%v %v", got, err)
	}
	fault := errors.New("full")
	if err := client.Events(ctx, Query{}, func(*Message) error { return fault }, nil); !errors.Is(err, fault) {
		t.Error(err)
	}
}

func join(pids []int32) string {
	var text string
	for i, pid := range pids {
		if i > 0 {
			text += " "
		}
		text += strconv.Itoa(int(pid))
	}
	return text
}
