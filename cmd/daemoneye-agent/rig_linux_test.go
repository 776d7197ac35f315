package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
)

// e2ePatience bounds every wait of these tests; it is only ever reached by a
// failure.
const e2ePatience = 90 * time.Second

// programs is the directory of both programs, built once for all tests, and removed by
// TestMain.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "daemoneye-e2e-")
	if err != nil {
		return "", err
	}
	builtPrograms = dir
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "daemoneye.dev/procmond/cmd/...").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

// rig is a directory with one agent's and one collector's things in it.
type rig struct {
	t        testing.TB
	dir      string
	bin      string
	socket   string
	database string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs both programs")
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "e2e-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, dir: dir, bin: bin, socket: filepath.Join(dir, "run", "broker.sock"), database: filepath.Join(dir, "processes.db")}
}

// proc is a running program.
type proc struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	log  transcript
	done chan struct{} // closed once Wait has returned
}

// transcript is the file that a process prints into. It is no pipe: a collector that
// outlives its agent has the same one, and Wait would wait for both.
type transcript string

func (l transcript) String() string {
	text, err := os.ReadFile(string(l))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (r *rig) start(name string, env []string, args ...string) *proc {
	r.t.Helper()
	out, err := os.CreateTemp(r.dir, name+"-*.log")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	p := &proc{t: r.t, name: name, log: transcript(out.Name()), done: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(r.bin, name), args...)
	p.cmd.Env = append(r.environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	r.t.Cleanup(func() {
		p.kill()
		if r.t.Failed() {
			r.t.Logf("log of %s:\n%s", name, lastLines(p.log.String(), 60))
		}
	})
	return p
}

func lastLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// environ is the environment without what would configure the programs.
func (r *rig) environ() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PROCMOND_") && !strings.HasPrefix(e, "DAEMONEYE_") && !strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			env = append(env, e)
		}
	}
	return append(env, "HOME="+r.dir)
}

func (r *rig) agent(args ...string) *proc {
	r.t.Helper()
	return r.start("daemoneye-agent", nil, append([]string{"run", "--socket", r.socket, "--store", filepath.Join(r.dir, "broker"), "--log-level", "debug"}, args...)...)
}

// collector starts procmond in coordinated mode.
func (r *rig) collector(args ...string) *proc {
	r.t.Helper()
	return r.start("procmond", []string{rpc.EnvSocket + "=" + r.socket}, append([]string{"run", "--database", r.database, "--interval", "5"}, args...)...)
}

// run runs a program to its end.
func (r *rig) run(name string, args ...string) (out string, code int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), e2ePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(r.bin, name), args...)
	cmd.Env = r.environ()
	b, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		r.t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// ask runs one of the agent's client commands.
func (r *rig) ask(args ...string) (out string, code int) {
	r.t.Helper()
	return r.run("daemoneye-agent", append(args, "--socket", r.socket)...)
}

// kill ends the process with SIGKILL and waits for its end.
func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop ends it in order and returns its exit code.
func (p *proc) stop() int {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.wait()
}

func (p *proc) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(e2ePatience):
		p.kill()
		p.t.Fatalf("%s did not end", p.name)
		return -1
	}
}

// await asks until the condition holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(e2ePatience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// state is the collector's report; nil if it does not answer.
func (r *rig) state() *control.State {
	socket, err := control.SocketPath(r.database)
	if err != nil {
		r.t.Fatal(err)
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	answer, err := client.Get("http://procmond/state")
	if err != nil {
		return nil
	}
	defer func() { _ = answer.Body.Close() }()
	s := new(control.State)
	if json.NewDecoder(answer.Body).Decode(s) != nil {
		return nil
	}
	return s
}

// awaitState waits for a report of which holds is true.
func (r *rig) awaitState(what string, holds func(*control.State) bool) *control.State {
	r.t.Helper()
	var last *control.State
	defer func() {
		if r.t.Failed() && last != nil {
			b, _ := json.MarshalIndent(last, "", " ")
			r.t.Logf("last state: %s", b)
		}
	}()
	await(r.t, what, func() bool {
		if s := r.state(); s != nil {
			last = s
			return holds(s)
		}
		return false
	})
	return last
}

func (r *rig) awaitRegistered() *control.State {
	r.t.Helper()
	return r.awaitState("a registration", func(s *control.State) bool { return s.Registration.State == "registered" })
}

// awaitDelivered waits until nothing waits for delivery any more.
func (r *rig) awaitDelivered() *control.State {
	r.t.Helper()
	return r.awaitState("the backlog to be delivered", func(s *control.State) bool {
		return s.Cycle.Count > 0 && s.Store.BacklogEvents == 0 && s.Store.Cursor == s.Store.Head
	})
}

// stored is one event as both sides have it.
type stored struct {
	id   string
	data []byte
}

// inStore reads the events of the dead collector's store, as they are encoded.
func (r *rig) inStore() []stored {
	r.t.Helper()
	st, err := store.Open(r.t.Context(), store.Config{Dir: r.database, Owed: true, LockWait: 5 * time.Second, Fatal: func(err error) { panic(err) }})
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = st.Close(false) }()
	epoch := st.Stats().Epoch
	var all []stored
	err = st.Read(r.t.Context(), event.Epoch{}, 1, 0, func(seq uint64, encoded []byte) error {
		all = append(all, stored{id: rpc.MsgID(epoch, seq), data: bytes.Clone(encoded)})
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// operator connects to the broker as the agent's owner does.
func (r *rig) operator() *nats.Conn {
	r.t.Helper()
	return r.connect(rpc.UserOperator, r.secret(rpc.UserOperator))
}

func (r *rig) secret(user string) string {
	r.t.Helper()
	b, err := os.ReadFile(rpc.SecretPath(r.socket, user))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (r *rig) connect(user, secret string) *nats.Conn {
	r.t.Helper()
	nc, err := r.tryConnect(user, secret)
	if err != nil {
		r.t.Fatal(err)
	}
	return nc
}

func (r *rig) tryConnect(user, secret string) (*nats.Conn, error) {
	nc, err := nats.Connect("nats://broker", nats.SetCustomDialer(unixSocket(r.socket)), nats.SkipHostLookup(), nats.UserInfo(user, secret),
		nats.CustomInboxPrefix(rpc.InboxPrefix(user)), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err == nil {
		r.t.Cleanup(nc.Close)
	}
	return nc, err
}

type unixSocket string

func (s unixSocket) Dial(string, string) (net.Conn, error) {
	return new(net.Dialer).Dial("unix", string(s))
}

func (unixSocket) SkipTLSHandshake() bool { return true }

// inStream reads the whole stream, in its order.
func (r *rig) inStream() []stored {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), e2ePatience)
	defer cancel()
	js, err := jetstream.New(r.operator())
	if err != nil {
		r.t.Fatal(err)
	}
	stream, err := js.Stream(ctx, rpc.Stream)
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if info.State.Msgs == 0 {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		r.t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		r.t.Fatal(err)
	}
	defer messages.Stop()
	var all []stored
	for uint64(len(all)) < info.State.Msgs {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			r.t.Fatalf("read stream at message %d of %d: %v", len(all), info.State.Msgs, err)
		}
		all = append(all, stored{id: m.Headers().Get(nats.MsgIdHdr), data: bytes.Clone(m.Data())})
	}
	return all
}

// compare holds the stream to the store: the same events, the same bytes, in the
// same order, each once.
func (r *rig) compare(inStream, inStore []stored) {
	r.t.Helper()
	for i := range max(len(inStream), len(inStore)) {
		switch {
		case i >= len(inStream):
			r.t.Fatalf("the stream has %d events, the store %d: %s is missing", len(inStream), len(inStore), inStore[i].id)
		case i >= len(inStore):
			r.t.Fatalf("the stream has %d events, the store %d: %s is too much", len(inStream), len(inStore), inStream[i].id)
		case inStream[i].id != inStore[i].id:
			r.t.Fatalf("event %d is %s in the stream and %s in the store", i+1, inStream[i].id, inStore[i].id)
		case !bytes.Equal(inStream[i].data, inStore[i].data):
			r.t.Fatalf("event %s has other bytes in the stream", inStore[i].id)
		}
	}
	r.t.Logf("%d events are the same in the stream and in the store", len(inStore))
}

// storm keeps a number of processes, each of which lives for a while, until the
// test stops it.
type storm struct {
	stop  func()
	count func() int
}

// startStorm starts batches of sleepers, one batch each every. Each has so many
// arguments more than it needs.
func startStorm(t testing.TB, batch int, every, life time.Duration, padding int) *storm {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	started := 0
	launch := func() {
		for range batch {
			cmd := exec.CommandContext(ctx, "sleep", append(slices.Repeat([]string{"0"}, padding), fmt.Sprintf("%.3f", life.Seconds()))...)
			if cmd.Start() != nil {
				continue
			}
			mu.Lock()
			started++
			mu.Unlock()
			wg.Go(func() { _ = cmd.Wait() })
		}
	}
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for launch(); ; launch() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return &storm{stop: stop, count: func() int { mu.Lock(); defer mu.Unlock(); return started }}
}
