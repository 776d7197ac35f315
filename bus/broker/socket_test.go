package broker

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

func TestSocketMode(t *testing.T) {
	for _, c := range []struct {
		edit func(*Config)
		want fs.FileMode
	}{
		{func(*Config) {}, 0o600},
		{func(c *Config) { c.Group = os.Getegid() }, 0o660},
		{func(c *Config) { c.AllowUIDs = []int{4711} }, 0o666},
	} {
		cfg := config(t)
		c.edit(&cfg)
		l, err := listenUnix(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(cfg.Socket); err != nil || info.Mode() != fs.ModeSocket|c.want {
			t.Errorf("mode %v, want %v (%v)", info.Mode(), c.want, err)
		}
		_ = l.Close()
	}
}

func TestStaleSocketIsRemoved(t *testing.T) {
	cfg := config(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	f := start(t, cfg)
	f.enroll(t, "procmond")
	f.as(t, "procmond")
	f.stop()
	if _, err := os.Lstat(cfg.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket after the stop: %v", err)
	}
}

func TestForeignSocketIsLeftAlone(t *testing.T) {
	cfg := config(t)
	start(t, cfg)
	if _, err := listenUnix(t.Context(), cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("a live agent's socket: %v", err)
	}
	other := cfg
	other.Socket = filepath.Join(filepath.Dir(cfg.Socket), "file")
	if err := os.WriteFile(other.Socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t.Context(), other); err == nil {
		t.Error("took the place of a file")
	}
	if data, _ := os.ReadFile(other.Socket); string(data) != "precious" {
		t.Errorf("file holds %q", data)
	}
}

func TestStoreHasOneAgent(t *testing.T) {
	cfg := config(t)
	start(t, cfg)
	if _, err := lockStore(cfg.Store); !errors.Is(err, ErrStoreInUse) {
		t.Errorf("second lock: %v", err)
	}
	info, err := os.Stat(cfg.Store)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("store: %v %v", info.Mode(), err)
	}
}

// nobody runs the test binary as a user who may do nothing.
func nobody(t *testing.T, cfg Config, user, secret string, gid uint32) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	exe := filepath.Join(filepath.Dir(cfg.Socket), "peer")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Dir = "/"
	cmd.Env = []string{envRole + "=peer", "BROKER_TEST_SOCKET=" + cfg.Socket, "BROKER_TEST_USER=" + user, "BROKER_TEST_SECRET=" + secret}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: gid, NoSetGroups: false}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func secretOf(t *testing.T, cfg Config, user string) string {
	t.Helper()
	secret, err := os.ReadFile(rpc.SecretPath(cfg.Socket, user))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(secret))
}

// The secret is right in all of these: the system's word about the user decides.
func TestPeers(t *testing.T) {
	for _, c := range []struct {
		name    string
		edit    func(*Config)
		gid     uint32
		want    string
		refused uint64
	}{
		{"other", func(c *Config) { c.AllowUIDs = []int{4711} }, 65534, `"nats: Authorization Violation"`, 1},
		{"other group", func(c *Config) { c.AllowUIDs = []int{4711}; c.Group = 4712 }, 65534, `"nats: Authorization Violation"`, 1},
		{"allowed", func(c *Config) { c.AllowUIDs = []int{65534} }, 65534, "connected", 0},
		{"member", func(c *Config) { c.Group = 4712 }, 4712, "connected", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t)
			c.edit(&cfg)
			f := start(t, cfg)
			f.enroll(t, "procmond")
			got := nobody(t, cfg, "procmond", secretOf(t, cfg, "procmond"), c.gid)
			if got != c.want || f.refused(ReasonPeer) != c.refused {
				t.Errorf("%s, refusals %+v", got, f.Refusals())
			}
			for _, r := range f.Refusals() {
				if r.Reason == ReasonPeer && !strings.HasPrefix(r.Last, "user 65534, process ") {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// Connections that say nothing give their place back.
func TestSilentConnection(t *testing.T) {
	cfg := config(t)
	cfg.pace.handshake = 200 * time.Millisecond
	f := start(t, cfg)
	conn, err := net.Dial("unix", f.cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	text := readAll(conn)
	if !strings.HasPrefix(text, "INFO {") || !strings.Contains(text, "-ERR 'Authentication Timeout'") {
		t.Errorf("was told %q", text)
	}
	await(t, "counted", func() bool { return f.refused(ReasonTimeout) == 1 })
	await(t, "place given back", func() bool { return len(f.slots) == 0 })
}

// readAll reads until the end, but no longer than the deadline.
func readAll(conn net.Conn) string {
	var text strings.Builder
	_, _ = bufio.NewReader(conn).WriteTo(&text)
	return text.String()
}

func TestTooManyConnections(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "procmond")
	for range MaxConnections {
		f.slots <- struct{}{}
	}
	_, err := connectAs(f.cfg, "procmond")
	if err == nil || !strings.Contains(err.Error(), "maximum connections exceeded") {
		t.Errorf("told %v", err)
	}
	if f.refused(ReasonConnections) == 0 { // the client may have tried again
		t.Errorf("%+v", f.Refusals())
	}
	f.agent(t) // has a place all the same
	for range MaxConnections {
		<-f.slots
	}
	f.as(t, "procmond")
}

// Who reaches the port takes no place of those who reach the socket.
func TestTooManyOverTCP(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "procmond")
	for range MaxListenerConnections {
		f.tcpSlots <- struct{}{}
	}
	f.as(t, "procmond")
	here, there := net.Pipe()
	told := make(chan string, 1) // sent once
	go func() { told <- readAll(there) }()
	f.serveClient(t.Context(), here, client{peer: "far", tcp: true}, nil)
	_ = here.Close()
	if got := <-told; !strings.Contains(got, "maximum connections exceeded") {
		t.Errorf("told %q", got)
	}
}

// One user has so many connections, and others have theirs.
func TestTooManyOfOneUser(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "greedy")
	f.enroll(t, "procmond")
	var all []*nats.Conn
	for range MaxUserConnections {
		all = append(all, f.as(t, "greedy"))
	}
	if _, err := connectAs(f.cfg, "greedy"); !errors.Is(err, nats.ErrAuthorization) || f.refused(ReasonUserMany) == 0 {
		t.Errorf("%v, %+v", err, f.Refusals())
	}
	f.as(t, "procmond")
	all[0].Close()
	await(t, "a place", func() bool {
		nc, err := connectAs(f.cfg, "greedy")
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

func TestNoServer(t *testing.T) {
	cfg := config(t)
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // from the socket's Serve, once
	go func() { ended <- b.Services()[1].Serve(ctx) }()
	defer func() { cancel(); t.Log("ended:", <-ended) }()
	await(t, "socket", func() bool { _, err := os.Lstat(cfg.Socket); return err == nil })
	if _, err := connectAs(cfg, "procmond"); err == nil || !strings.Contains(strings.ToLower(err.Error()), "server is not running") {
		t.Errorf("told %v", err)
	}
	if _, err := b.Last(ctx, "procmond"); !errors.Is(err, ErrDown) {
		t.Errorf("last: %v", err)
	}
	if r := b.Report(); r.InService || r.Name != rpc.Stream || r.MaxBytes != DefaultMaxBytes {
		t.Errorf("%+v", r)
	}
	if b.Connected("procmond") != nil {
		t.Error("connected to nothing")
	}
}

func TestSocketRestarts(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "procmond")
	agent := f.agent(t)
	nc := f.as(t, "procmond", nats.ReconnectJitter(0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	if err := f.tree.Stop("broker/socket", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	await(t, "client noticed", func() bool { return !nc.IsConnected() })
	ended := make(chan error, 1) // from the socket's Serve, once
	go func() { ended <- f.Services()[1].Serve(ctx) }()
	await(t, "client is back", nc.IsConnected)
	if agent.Stats().Reconnects != 0 || !agent.IsConnected() {
		t.Error("the agent's connection suffered")
	}
	cancel()
	t.Log("ended:", <-ended)
}
