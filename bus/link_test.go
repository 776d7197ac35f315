package bus

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

func connected(l *Link) bool {
	s := l.Status()
	return s.Control.State == StateConnected && s.Events.State == StateConnected
}

func TestLinkConnectsAndComesBack(t *testing.T) {
	b := newTestBroker(t)
	l := b.link()
	if s := l.Status(); s.Control.State != StateReconnecting {
		t.Errorf("without an agent: %+v", s.Control)
	}
	eventually(t, "an error that says why", func() bool {
		s := l.Status()
		return strings.Contains(s.Control.LastError, "connect to broker") && strings.Contains(s.Events.LastError, b.socket)
	})
	b.start()
	eventually(t, "both connections", func() bool { return connected(l) })
	for range 3 {
		changed := l.Changed()
		b.stop()
		<-changed
		eventually(t, "loss seen", func() bool { return !connected(l) })
		b.start()
		began := time.Now()
		eventually(t, "connections again", func() bool { return connected(l) })
		if d := time.Since(began); d > 1500*time.Millisecond {
			t.Errorf("back after %v", d)
		}
	}
	if s := l.Status(); s.Control.Reconnects != 3 || s.Events.Reconnects != 3 || s.Connection() != (rpc.Connection{Control: "connected", Events: "connected", Reconnects: 6}) {
		t.Errorf("%+v", s)
	}
}

func TestLinkReadsTheSecretAnew(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	b.start()
	path := rpc.SecretPath(b.socket, testID)
	must(t, os.Remove(path))
	l := b.link()
	eventually(t, "missing file said", func() bool {
		e := l.Status().Control.LastError
		return strings.Contains(e, "read secret of "+testID) && strings.Contains(e, path)
	})
	must(t, os.WriteFile(path, []byte("wrong"), 0o600))
	eventually(t, "refusal said", func() bool { return strings.Contains(l.Status().Control.LastError, "uthorization") })
	attempts := l.Status().Control.Attempts
	eventually(t, "another attempt", func() bool { return l.Status().Control.Attempts > attempts })
	must(t, os.WriteFile(path, []byte("  "+testSecret+"\n"), 0o600))
	eventually(t, "connections", func() bool { return connected(l) })
}

func TestSecretFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	path := rpc.SecretPath(socket, testID)
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	for content, want := range map[string]string{
		"": "is empty", " \n": "is empty", strings.Repeat("x", maxSecret+1): "more than", " a b\n": "",
	} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		secret, err := secretFile(socket, testID)()
		if want == "" && (err != nil || secret != "a b") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.10q: %q %v", content, secret, err)
		}
	}
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	if _, err := secretFile(socket, testID)(); err == nil {
		t.Error("a folder is no secret")
	}
}

func TestLinkCountsViolations(t *testing.T) {
	t.Parallel()
	b := newTestBroker(t)
	b.start()
	l := b.link()
	eventually(t, "connections", func() bool { return connected(l) })
	s, _ := l.control.look()
	must(t, s.nc.Publish("control.collector.registration.another", []byte("x")))
	eventually(t, "violation counted", func() bool { return l.Status().Control.Violations == 1 })
	if s := l.Status(); !strings.Contains(s.Control.LastError, "ermissions") || s.Control.State != StateConnected {
		t.Errorf("%+v", s.Control)
	}
}

func TestLinkNoticesAnAgentThatSaysNothing(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "bus")
	must(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "s")
	silent, err := net.Listen("unix", socket)
	must(t, err)
	defer func() { _ = silent.Close() }()
	l, err := NewLink(LinkConfig{Socket: socket, ID: testID, Log: quiet(), Secret: func() (string, error) { return "x", nil }})
	must(t, err)
	began := time.Now()
	must(t, l.Open(context.Background()))
	if d := time.Since(began); d > time.Second {
		t.Errorf("Open waited %v", d)
	}
	eventually(t, "the handshake is given up", func() bool { return l.Status().Control.LastError != "" })
	if s := l.Status(); s.Control.State != StateReconnecting {
		t.Errorf("%+v", s.Control)
	}
	must(t, l.Close(context.Background()))
	if s := l.Status(); s.Control.State != StateClosed {
		t.Errorf("%+v", s.Control)
	}
}

func TestLinkConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := NewLink(LinkConfig{ID: "a.b"})
	for _, fault := range []string{"socket", "a.b", "log"} {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%v does not name %s", err, fault)
		}
	}
}

func TestLinkNeverOpenedCloses(t *testing.T) {
	t.Parallel()
	l, err := NewLink(LinkConfig{Socket: "/nowhere", ID: testID, Log: quiet()})
	must(t, err)
	must(t, l.Close(context.Background()))
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	t.Parallel()
	b := backoff{first: 50 * time.Millisecond, most: 2 * time.Second}
	for n := range 100 {
		want := min(50*time.Millisecond<<min(n, 10), 2*time.Second)
		if d := b.next(); d < want/2 || d > want {
			t.Errorf("%d: %v, want %v..%v", n, d, want/2, want)
		}
	}
	b.reset()
	if d := b.next(); d > 50*time.Millisecond {
		t.Error(d)
	}
}
