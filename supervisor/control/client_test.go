package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// TestStateIsAnsweredWhateverFollows lets as many clients follow as may, and more.
func TestStateIsAnsweredWhateverFollows(t *testing.T) {
	r := serve(t, nil)
	r.daemon.grow(1)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for range r.limits.followers {
		first := make(chan struct{})
		client := Dial(r.path)
		group.Go(func() {
			defer client.Close()
			_ = client.Events(ctx, Query{Follow: true}, func([]byte) error { close(first); return nil })
		})
		<-first
	}
	if err := r.client.Events(t.Context(), Query{Follow: true}, func([]byte) error { return nil }); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v, want ErrBusy", err)
	}
	if _, err := r.client.State(t.Context()); err != nil {
		t.Errorf("state: %v", err)
	}
}

// TestAnswerIsOfOneEpoch: when another store takes the place of the one that is
// followed, the answer is broken off, and the next request says why.
func TestAnswerIsOfOneEpoch(t *testing.T) {
	r := serve(t, nil)
	old := event.Epoch{1}
	r.daemon.replace(old, 2)
	seen := 0
	err := r.client.Events(t.Context(), Query{Follow: true}, func([]byte) error {
		if seen++; seen == 2 {
			r.daemon.replace(event.Epoch{2}, 5)
		}
		return nil
	})
	if seen != 2 || !errors.Is(err, ErrBrokenOff) {
		t.Errorf("saw %d, %v; want 2 events and ErrBrokenOff", seen, err)
	}
	err = r.client.Events(t.Context(), Query{Follow: true, After: 2, AfterEpoch: old}, func([]byte) error { return nil })
	if !errors.Is(err, ErrEpoch) {
		t.Errorf("%v, want ErrEpoch", err)
	}
}

// TestImpostor: a socket of another user is not believed.
func TestImpostor(t *testing.T) {
	r := serve(t, nil)
	r.client.trusted = []int{os.Geteuid() + 1}
	r.client.Close()
	_, err := r.client.State(t.Context())
	if !errors.Is(err, ErrImpostor) || !strings.Contains(err.Error(), fmt.Sprintf("user %d, pid %d", os.Geteuid(), os.Getpid())) {
		t.Errorf("%v, want ErrImpostor", err)
	}
	own := Dial(r.path, os.Geteuid()+1)
	defer own.Close()
	if _, err := own.State(t.Context()); err != nil {
		t.Errorf("one's own daemon: %v", err)
	}
}

// TestEventsOfAHungDaemonEnd: what accepts and is silent is found out at once.
func TestEventsOfAHungDaemonEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hung")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	began := time.Now()
	err = Dial(path).Events(t.Context(), Query{}, func([]byte) error { return nil })
	if silent := new(NotRespondingError); !errors.As(err, &silent) || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %v, want NotRespondingError within a second", err, time.Since(began))
	}
}

// TestBrokenPipeOfTheSocketIsNotTheCallers: `procmond events | head` tells the two
// apart by it.
func TestBrokenPipeOfTheSocketIsNotTheCallers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rude")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for range 20 {
		_, err := Dial(path).State(t.Context())
		if !errors.Is(err, ErrBusy) || errors.Is(err, syscall.EPIPE) {
			t.Fatalf("%v, want ErrBusy and no broken pipe", err)
		}
	}
}

// TestMalformedParametersAreRefused: what can not be read must not be left out.
func TestMalformedParametersAreRefused(t *testing.T) {
	r := serve(t, nil)
	r.daemon.grow(3)
	for _, target := range []string{"/events?limit=%zz", "/events?limit=1;follow=1", "/healthz?strict=%zz"} {
		conn := r.connect(t)
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
			t.Errorf("%s: %.60q", target, answer)
		}
	}
}

// TestSlowReaderGetsWholeLines: an answer that is broken off in the middle of a line
// gives nothing of it.
func TestSlowReaderGetsWholeLines(t *testing.T) {
	r := serveLimited(t, nil, func(s *Server) { s.limits.write = 50 * time.Millisecond })
	r.daemon.growBy(2000, strings.Repeat("x", 4096)) // more than the socket holds
	n := 0
	err := r.client.Events(t.Context(), Query{}, func(line []byte) error {
		if n++; n == 1 {
			for r.slow.Load() == 0 { // until the server has lost its patience
				<-time.After(time.Millisecond)
			}
		}
		if !json.Valid(line) {
			t.Errorf("line %d is cut: %.20q … %.20q", n, line, line[max(0, len(line)-20):])
		}
		return nil
	})
	if !errors.Is(err, ErrBrokenOff) || n == 0 || n == 2000 {
		t.Errorf("%d lines, %v", n, err)
	}
}
