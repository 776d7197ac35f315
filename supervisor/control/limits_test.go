package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// heard is a log of which a test can wait for a line.
type heard chan string

func (heard) Levels() []logrus.Level { return logrus.AllLevels }

func (h heard) Fire(e *logrus.Entry) error {
	select {
	case h <- e.Message:
	default:
	}
	return nil
}

func (h heard) wait(t *testing.T, part string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-h:
			if strings.Contains(line, part) {
				return
			}
		case <-timeout:
			t.Fatalf("%q is never logged", part)
		}
	}
}

func listening(h heard) func(*Config) {
	return func(c *Config) { c.Log.Logger.AddHook(h) }
}

// TestSlowReaderIsDropped: who follows events and does not read them is dropped
// and counted, and others do not notice.
func TestSlowReaderIsDropped(t *testing.T) {
	log := make(heard, 16)
	r := serveLimited(t, listening(log), func(s *Server) { s.limits.write = 200 * time.Millisecond })
	conn := r.connect(t)
	if _, err := io.WriteString(conn, "GET /events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r.daemon.growBy(400, strings.Repeat("x", 4096)) // more than the socket holds
	log.wait(t, "does not read")
	if n := r.slow.Load(); n != 1 {
		t.Errorf("%d slow clients counted, want 1", n)
	}
	if _, err := r.client.State(t.Context()); err != nil {
		t.Errorf("another client meanwhile: %v", err)
	}
	if answer, _ := io.ReadAll(conn); strings.HasSuffix(string(answer), "0\r\n\r\n") {
		t.Error("the stream looks complete")
	}
}

// TestFollowerMayWait: a client that waits longer than any limit for the next
// event is not dropped.
func TestFollowerMayWait(t *testing.T) {
	r := serveLimited(t, nil, func(s *Server) {
		s.limits.write, s.limits.header, s.limits.selfCheck = 20*time.Millisecond, 20*time.Millisecond, 50*time.Millisecond
	})
	r.daemon.grow(1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := 0
	err := r.client.Events(ctx, Query{Follow: true}, func([]byte) error {
		if seen++; seen == 2 {
			cancel()
			return nil
		}
		for range 3 { // self-checks, a limit or more apart from each other
			<-r.beats
		}
		r.daemon.grow(1)
		return nil
	})
	if seen != 2 {
		t.Errorf("saw %d events, want 2 (%v)", seen, err)
	}
}

// TestFollowEndsWithItsTime: nothing that comes after --until is waited for.
func TestFollowEndsWithItsTime(t *testing.T) {
	r := serveLimited(t, nil, func(s *Server) { s.limits.late = time.Millisecond })
	r.daemon.grow(3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, q := range map[string]Query{
		"past":   {Follow: true, Until: time.Now().Add(-time.Hour)},
		"newest": {Follow: true, Until: time.Now().Add(-time.Hour), Newest: true, Limit: 2},
		"soon":   {Follow: true, Until: time.Now().Add(50 * time.Millisecond)},
	} {
		seen := 0
		if err := r.client.Events(ctx, q, func([]byte) error { seen++; return nil }); err != nil || seen == 0 {
			t.Errorf("%s: saw %d events, %v", name, seen, err)
		}
	}
}

// TestSlowRequestsAreCutOff: half a request, or none, does not keep a connection.
func TestSlowRequestsAreCutOff(t *testing.T) {
	r := serveLimited(t, nil, func(s *Server) { s.limits.header = 50 * time.Millisecond })
	for name, sent := range map[string]string{
		"nothing":     "",
		"half a line": "GET /sta",
		"no end":      "GET /state HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
	} {
		conn := r.connect(t)
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", name)
		}
	}
}

// TestHalfClosedFollowerIsLetGo: a client that closes its side while it follows
// frees what it holds.
func TestHalfClosedFollowerIsLetGo(t *testing.T) {
	r := serve(t, nil)
	conn := r.connect(t)
	if _, err := io.WriteString(conn, "GET /events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays")
	}
}

// TestConnectionsAreBounded: above the limit there is an answer, and a slot that
// is given back is used again. The server's own connection needs none.
func TestConnectionsAreBounded(t *testing.T) {
	stranger := func(s *Server) { s.pid = -1; s.limits.connections = 3 } // its self-check takes one, as a stranger
	r := serveLimited(t, nil, stranger)
	first, second := r.connect(t), r.connect(t)
	all := func() error {
		return r.client.Events(t.Context(), Query{}, func([]byte) error { return nil })
	}
	err := all()
	if !errors.Is(err, ErrBusy) || r.busy.Load() == 0 {
		t.Errorf("a fourth connection: %v (%d counted), want ErrBusy", err, r.busy.Load())
	}
	if _, err := r.client.State(t.Context()); err != nil {
		t.Errorf("state is answered all the same: %v", err)
	}
	_ = first.Close()
	_ = second.Close()
	for deadline := time.Now().Add(patience); err != nil; { // until the server has noticed
		if err = all(); time.Now().After(deadline) {
			t.Fatalf("slots are not given back: %v", err)
		}
	}
	for range r.limits.connections + maxTurnedAway {
		r.connect(t)
	}
	if answer, _ := io.ReadAll(r.connect(t)); !strings.Contains(string(answer), " 429 ") {
		t.Errorf("when even those that are turned away are too many: %q, want 429 unasked", answer)
	}

	own := serveLimited(t, nil, func(s *Server) { s.limits.connections = 0 })
	if _, err := own.client.State(t.Context()); err != nil {
		t.Errorf("the server's own connection: %v", err)
	}
}

func TestOthersAreRefused(t *testing.T) {
	var refuse atomic.Bool
	r := serveLimited(t, nil, func(s *Server) { s.allowed = func(int) bool { return !refuse.Load() } })
	refuse.Store(true)
	if _, err := r.client.State(t.Context()); !errors.Is(err, ErrForbidden) {
		t.Errorf("another user: %v, want ErrForbidden", err)
	}
	if n := r.refused.Load(); n != 1 {
		t.Errorf("%d refused connections counted, want 1", n)
	}
}

func TestRootAndTheDaemonsUserMayAsk(t *testing.T) {
	server, err := New(Config{Path: "/s", Source: newFakeDaemon(), Events: newFakeDaemon(), Processes: newFakeDaemon(), Log: logrus.NewEntry(logrus.New())})
	if err != nil {
		t.Fatal(err)
	}
	other := os.Geteuid() + 1
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, other: false, -1: false} {
		if server.allowed(uid) != want {
			t.Errorf("user %d may ask: %v, want %v", uid, !want, want)
		}
	}
}

// TestMetricsAddressInUse: the control socket does without it, and takes it when
// it is free.
func TestMetricsAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	log := make(heard, 16)
	r := serveLimited(t, func(c *Config) { c.MetricsListen = address; listening(log)(c) }, func(s *Server) { s.limits.retry = 10 * time.Millisecond })
	log.wait(t, "can not be served")
	if _, err := r.client.State(t.Context()); err != nil || r.unlisted.Load() == 0 || r.Unserved() == "" {
		t.Errorf("state without metrics: %v, %d failures counted", err, r.unlisted.Load())
	}
	_ = taken.Close()
	if status := askTCP(t, address, "/healthz"); status != http.StatusOK {
		t.Errorf("healthz over TCP: %d", status)
	}
	if why := r.Unserved(); why != "" {
		t.Errorf("served, and yet: %s", why)
	}
}

// askTCP returns the status of a path, once somebody listens.
func askTCP(t *testing.T, address, path string) int {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); ; {
		response, err := client.Get("http://" + address + path)
		if err == nil {
			_ = response.Body.Close()
			return response.StatusCode
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody ever listens on %s: %v", address, err)
		}
	}
}

// TestBigEventsMakeSmallChunks: events at their size limit arrive whole and in
// order, from the beginning and from the end.
func TestBigEventsMakeSmallChunks(t *testing.T) {
	r := serve(t, nil)
	r.daemon.growBy(60, strings.Repeat("x", chunkBytes/20))
	for name, c := range map[string]struct {
		q    Query
		last uint64 // before the first
	}{
		"all":    {Query{}, 0},
		"newest": {Query{Newest: true, Limit: 50}, 10},
	} {
		last, n := c.last, 0
		err := r.client.Events(t.Context(), c.q, func(line []byte) error {
			var e struct{ Seq uint64 }
			err := json.Unmarshal(line, &e)
			if n++; e.Seq != last+1 {
				t.Errorf("%s: %d comes after %d", name, e.Seq, last)
			}
			last = e.Seq
			return err
		})
		if err != nil || last != 60 {
			t.Errorf("%s: %d events up to %d, %v; want up to 60", name, n, last, err)
		}
	}
}

// TestLongestPathCanBeBound: the private name is never longer than the path.
func TestLongestPathCanBeBound(t *testing.T) {
	dir := t.TempDir()
	dir = filepath.Join(dir, strings.Repeat("d", maxSocketPath()-len(dir)-len("//a.sock")))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := SocketPath(filepath.Join(dir, "a"))
	if err != nil || filepath.Dir(path) != dir {
		t.Skipf("the temporary directory is a link: %s, %v", path, err)
	}
	l, err := listen(t.Context(), path)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(path), err)
	}
	_ = l.Close()
}
