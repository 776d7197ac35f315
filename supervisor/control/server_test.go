package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect/event"
)

const patience = 20 * time.Second

// fakeDaemon is a source of state and a store of events.
type fakeDaemon struct {
	mu     sync.Mutex // guards everything below
	state  State
	events []*event.Event
	epoch  event.Epoch
	grown  chan struct{} // closed and replaced when events grow
	broken error         // what Query fails with, after sending what there is,
	intact uint64        // once it is asked for events after this one

	// rebuilding, if set, is sent to by each call of ProcessesAt, which then waits for
	// the end of its context.
	rebuilding chan struct{}
}

func newFakeDaemon() *fakeDaemon {
	return &fakeDaemon{state: *exampleState(), grown: make(chan struct{})}
}

func (f *fakeDaemon) State() *State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	return &s
}

func (f *fakeDaemon) set(change func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.state)
}

// grow adds n events.
func (f *fakeDaemon) grow(n int) { f.growBy(n, "") }

// growBy adds n events whose executable is exe.
func (f *fakeDaemon) growBy(n int, exe string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.events = append(f.events, &event.Event{Seq: uint64(len(f.events) + 1), Kind: event.KindStart, Process: event.Process{PID: int32(len(f.events)), Exe: exe}})
	}
	close(f.grown)
	f.grown = make(chan struct{})
}

func (f *fakeDaemon) snapshot() ([]*event.Event, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events, f.grown
}

// fail makes every query for events after a sequence fail.
func (f *fakeDaemon) fail(after uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.intact, f.broken = after, err
}

func (f *fakeDaemon) failure(after uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if after < f.intact {
		return nil
	}
	return f.broken
}

// replace puts another store in the place of this one, with n events.
func (f *fakeDaemon) replace(epoch event.Epoch, n int) {
	f.mu.Lock()
	f.epoch, f.events = epoch, nil
	f.mu.Unlock()
	f.grow(n)
}

func (f *fakeDaemon) Epoch() event.Epoch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch
}

func (f *fakeDaemon) Head() uint64 {
	events, _ := f.snapshot()
	return uint64(len(events))
}

func (f *fakeDaemon) Query(_ context.Context, q Query, fn func(*event.Event) error) error {
	events, _ := f.snapshot()
	sent := 0
	if !q.AfterEpoch.IsZero() && q.AfterEpoch != f.Epoch() {
		return fmt.Errorf("%w: it is %s", ErrEpoch, f.Epoch())
	}
	if q.Newest {
		events = events[max(0, len(events)-q.Limit):]
	}
	for _, e := range events {
		if e.Seq <= q.After || (q.Limit > 0 && sent == q.Limit) || (len(q.PIDs) > 0 && e.Process.PID != q.PIDs[0]) {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
		sent++
	}
	return f.failure(q.After)
}

func (f *fakeDaemon) Wait(ctx context.Context, after uint64) (uint64, error) {
	for {
		events, grown := f.snapshot()
		if uint64(len(events)) > after {
			return uint64(len(events)), nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// beats counts what a server reports.
type beats chan string

func (b beats) Beat(activity string) {
	select {
	case b <- activity:
	default:
	}
}

type running struct {
	*Server
	daemon *fakeDaemon
	client *Client
	path   string
	beats  beats
	stop   func() error
}

// serve starts a server and waits for its first proof of life.
func serve(t *testing.T, change func(*Config)) *running {
	t.Helper()
	return serveLimited(t, change, func(*Server) {})
}

// serveLimited lets the test change what New has made, too.
func serveLimited(t *testing.T, change func(*Config), limit func(*Server)) *running {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	r := &running{daemon: newFakeDaemon(), path: filepath.Join(t.TempDir(), "s"), beats: make(beats, 1)}
	cfg := Config{Path: r.path, Source: r.daemon, Events: r.daemon, Processes: r.daemon, Progress: r.beats, Log: logrus.NewEntry(log)}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	limit(server)
	r.Server, r.client = server, Dial(r.path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { r.client.Close(); _ = r.stop() })
	select {
	case <-r.beats:
	case err := <-done:
		t.Fatalf("Serve: %v", err)
	case <-time.After(patience):
		t.Fatal("the server shows no progress")
	}
	return r
}

// raw sends bytes and returns the first line of the answer.
func (r *running) raw(t *testing.T, request string) string {
	t.Helper()
	conn := r.connect(t)
	if _, err := io.WriteString(conn, request); err != nil {
		return "" // refused before all was sent
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

func (r *running) connect(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestStateTravelsWhole(t *testing.T) {
	r := serve(t, nil)
	got, err := r.client.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleState(), got); diff != "" {
		t.Errorf("state changed on its way (-sent +got):\n%s", diff)
	}
}

func TestSocketIsPrivateAndRemoved(t *testing.T) {
	r := serve(t, nil)
	info, err := os.Lstat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket has mode %v, want 0600", info.Mode())
	}
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve ended with %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(r.path))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestServeAgain(t *testing.T) {
	r := serve(t, nil)
	_ = r.stop()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	select {
	case <-r.beats:
	case <-time.After(patience):
		t.Fatal("the second Serve shows no progress")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the second Serve ended with %v", err)
	}
}

func TestSocketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listen(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("a living socket: %v, want ErrInUse", err)
	}
}

func TestClientTellsWhatIsWrong(t *testing.T) {
	none := Dial(filepath.Join(t.TempDir(), "none"))
	if _, err := none.State(t.Context()); !errors.Is(err, ErrNotListening) {
		t.Errorf("no socket: %v, want ErrNotListening", err)
	}

	hung := filepath.Join(t.TempDir(), "hung")
	l, err := net.Listen("unix", hung)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	began := time.Now()
	_, err = Dial(hung).State(t.Context())
	var silent *NotRespondingError
	if !errors.As(err, &silent) || silent.PID != os.Getpid() {
		t.Errorf("a daemon that accepts and is silent: %v, want NotRespondingError with pid %d", err, os.Getpid())
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("that took %v, want less than a second", took)
	}
}

func TestHostileRequests(t *testing.T) {
	r := serve(t, nil)
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct{ request, want string }{
		"garbage":        {"\x00\x01\x02\r\n\r\n", "400"},
		"unknown path":   {"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		"traversal":      {"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "307|404|400"},
		"method":         {"DELETE /state HTTP/1.1\r\nHost: x\r\n\r\n", "405"},
		"post":           {"POST /state HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", "405"},
		"body":           {"GET /state HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", "413"},
		"chunked body":   {"GET /state HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", "413"},
		"long url":       {"GET /state?" + long + " HTTP/1.1\r\nHost: x\r\n\r\n", "431|"},
		"long header":    {"GET /state HTTP/1.1\r\nHost: x\r\nX: " + long + "\r\n\r\n", "431|"},
		"bad parameters": {"GET /events?pid=-1&kind=walk&since=yesterday&what=1 HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		"newest of all":  {"GET /events?newest=1 HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		"bad pattern":    {"GET /events?exe=%5B HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		"not strict":     {"GET /healthz?strict=maybe HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := r.raw(t, c.request)
			for _, want := range strings.Split(c.want, "|") {
				if want == "" && answer == "" || want != "" && strings.Contains(answer, " "+want) {
					return
				}
			}
			t.Errorf("answered %q, want %s", answer, c.want)
		})
	}
	if _, err := r.client.State(t.Context()); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestFaultsAreNamedAllAtOnce(t *testing.T) {
	r := serve(t, nil)
	_, err := r.client.request(t.Context(), "/events", map[string][]string{
		"pid": {"-1"}, "kind": {"walk"}, "since": {"yesterday"}, "limit": {"1", "2"}, "what": {"1"},
	})
	for _, want := range []string{"-1", "walk", "yesterday", "limit", "what"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
}

func TestEventsArriveInOrder(t *testing.T) {
	r := serve(t, nil)
	r.daemon.grow(3*chunkEvents + 7)
	for name, c := range map[string]struct {
		q           Query
		first, want int
	}{
		"all":    {Query{}, 1, 3*chunkEvents + 7},
		"limit":  {Query{Limit: chunkEvents + 1}, 1, chunkEvents + 1},
		"after":  {Query{After: 700}, 701, 3*chunkEvents + 7 - 700},
		"newest": {Query{Newest: true, Limit: 5}, 3*chunkEvents + 3, 5},
		"filter": {Query{PIDs: []int32{600}}, 601, 1},
		"none":   {Query{After: 10_000}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uint64
			err := r.client.Events(t.Context(), c.q, func(line []byte) error {
				var e struct{ Seq uint64 }
				err := json.Unmarshal(line, &e)
				got = append(got, e.Seq)
				return err
			})
			if err != nil || len(got) != c.want {
				t.Fatalf("%d events, %v; want %d", len(got), err, c.want)
			}
			for i, seq := range got {
				if seq != uint64(c.first+i) {
					t.Fatalf("event %d has sequence %d, want %d", i, seq, c.first+i)
				}
			}
		})
	}
}

func TestFollow(t *testing.T) {
	r := serve(t, nil)
	r.daemon.grow(2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := 0
	err := r.client.Events(ctx, Query{Follow: true}, func([]byte) error {
		if seen++; seen == 2 || seen == 3 {
			r.daemon.grow(1)
		}
		if seen == 4 {
			cancel()
		}
		return nil
	})
	if seen != 4 {
		t.Errorf("saw %d events, want 4 (%v)", seen, err)
	}
}

func TestFollowEndsWithTheServer(t *testing.T) {
	r := serve(t, nil)
	r.daemon.grow(1)
	first := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- r.client.Events(context.Background(), Query{Follow: true}, func([]byte) error { close(first); return nil })
	}()
	<-first
	_ = r.stop()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a stream that was broken off looks complete")
		}
	case <-time.After(patience):
		t.Fatal("the stream outlives its server")
	}
}

// TestBrokenStreamIsNoCompleteAnswer: what fails in the middle must not look
// like the end.
func TestBrokenStreamIsNoCompleteAnswer(t *testing.T) {
	r := serve(t, nil)
	r.daemon.grow(chunkEvents)
	count := func() (n int, err error) {
		err = r.client.Events(t.Context(), Query{}, func([]byte) error { n++; return nil })
		return n, err
	}
	r.daemon.fail(0, fmt.Errorf("%w: disk on fire", ErrUnavailable))
	if n, err := count(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("failed at once: %d events and %v, want ErrUnavailable", n, err)
	}
	r.daemon.fail(1, fmt.Errorf("%w: disk on fire", ErrUnavailable))
	if n, err := count(); n != chunkEvents || err == nil {
		t.Errorf("failed in the middle: %d events and %v, want %d and an error", n, err, chunkEvents)
	}
}

func TestHealthz(t *testing.T) {
	r := serve(t, nil)
	for health, want := range map[string][2]int{
		HealthHealthy:   {200, 200},
		HealthDegraded:  {200, 503},
		HealthUnhealthy: {503, 503},
	} {
		r.daemon.set(func(s *State) { s.Health = health })
		for i, path := range []string{"/healthz", "/healthz?strict=1"} {
			answer := r.raw(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if !strings.Contains(answer, fmt.Sprint(" ", want[i], " ")) {
				t.Errorf("%s while %s: %q, want %d", path, health, answer, want[i])
			}
		}
	}
}

func TestMetricsListenServesNoEvents(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	serve(t, func(c *Config) { c.MetricsListen = address })
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/state": 404, "/events": 404} {
		if got := askTCP(t, address, path); got != want {
			t.Errorf("%s over TCP: %d, want %d", path, got, want)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{})
	for _, want := range []string{"path", "source", "events", "log"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
}
