package broker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"daemoneye.dev/procmond/bus/unixsock"
)

// maxTurnedAway is how many connections are told at once why they may not come in.
const maxTurnedAway = 16

// beatEvery is how often a service that waits for others says so.
const beatEvery = time.Second

// acceptPause is between tries to accept when the process has no descriptors left.
const acceptPause = 100 * time.Millisecond

// copyBuffer is how much of a connection is copied at once, in each direction, in
// bytes.
const copyBuffer = 32 << 10

// serveSocket is the service "socket".
func (b *Broker) serveSocket(ctx context.Context, beat func(string)) error {
	l, err := listenUnix(ctx, b.cfg)
	if err != nil {
		return err
	}
	b.listening.Store(true)
	defer b.listening.Store(false)
	return b.serveOn(ctx, beat, l, func(ctx context.Context, conn net.Conn) {
		who, err := unixsock.PeerOf(conn.(*net.UnixConn))
		if err != nil || !b.cfg.mayConnect(who) {
			b.turnAway(conn, ReasonPeer, who.String(), "Authorization Violation")
			return
		}
		b.serveClient(ctx, conn, client{peer: who.String()}, nil)
	})
}

// serveListener is the service "listener".
func (b *Broker) serveListener(ctx context.Context, beat func(string)) error {
	var secure *tls.Config
	if b.cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(b.cfg.TLSCert, b.cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("load TLS certificate: %w", err)
		}
		secure = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", b.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return b.serveOn(ctx, beat, l, func(ctx context.Context, conn net.Conn) {
		b.serveClient(ctx, conn, client{peer: conn.RemoteAddr().String(), tcp: true}, secure)
	})
}

// serveOn accepts connections until ctx ends, and ends when all of them have.
func (b *Broker) serveOn(ctx context.Context, beat func(string), l net.Listener, serve func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(nil)
	defer func() { _ = l.Close() }()
	group.Go(func() { cancel(accept(ctx, l, &group, serve)) })
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		beat("accept connections")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// accept serves each connection on its own until the listener fails.
func accept(ctx context.Context, l net.Listener, group *sync.WaitGroup, serve func(context.Context, net.Conn)) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // no descriptor is free; the connection waits
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(acceptPause):
			}
			continue
		}
		group.Go(func() {
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			serve(ctx, conn)
		})
	}
}

// serveClient connects a client with the server until either hangs up.
func (b *Broker) serveClient(ctx context.Context, conn net.Conn, who client, secure *tls.Config) {
	slots := b.slots
	if who.tcp {
		slots = b.tcpSlots
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		b.turnAway(conn, ReasonConnections, who.String(), "maximum connections exceeded")
		return
	}
	r := b.running.Load()
	if r == nil {
		b.turnAway(conn, ReasonDown, who.String(), "Server Is Not Running")
		return
	}
	inner, err := r.srv.InProcessConn()
	if err != nil {
		b.turnAway(conn, ReasonDown, who.String(), "Server Is Shutting Down")
		return
	}
	defer func() { _ = inner.Close() }()
	defer context.AfterFunc(ctx, func() { _ = inner.Close() })()
	if err := b.introduce(r, conn, inner, who, secure); err != nil && ctx.Err() == nil {
		b.cfg.Log.WithError(err).WithField("client", who.peer).Debug("Connection not made")
	}
}

// introduce passes on the server's greeting and then everything else.
func (b *Broker) introduce(r *run, conn, inner net.Conn, who client, secure *tls.Config) error {
	soon := time.Now().Add(b.cfg.pace.handshake) // the server's own timer starts later
	_ = inner.SetReadDeadline(soon)
	fromServer := bufio.NewReaderSize(inner, copyBuffer)
	greeting, err := fromServer.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read greeting of server: %w", err)
	}
	var info struct {
		ClientID uint64 `json:"client_id"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(greeting, []byte("INFO ")), &info); err != nil || info.ClientID == 0 {
		return fmt.Errorf("read greeting of server: %q", greeting)
	}
	r.clients.add(info.ClientID, who)
	defer func() {
		if last := r.clients.remove(info.ClientID); !last.came && time.Now().After(soon) {
			b.refusals.count(ReasonTimeout, who.String()) // the server does not tell of each
		}
	}()
	_ = conn.SetDeadline(soon)
	if secure != nil {
		conn, err = b.secure(conn, greeting, secure, who)
	} else {
		_, err = conn.Write(greeting)
	}
	if err != nil {
		return fmt.Errorf("greet client: %w", err)
	}
	_ = inner.SetReadDeadline(time.Time{})
	_ = conn.SetDeadline(time.Time{})
	b.splice(conn, inner, fromServer)
	return nil
}

// secure sends a greeting that asks for TLS, and goes over to it.
func (b *Broker) secure(conn net.Conn, greeting []byte, config *tls.Config, who client) (net.Conn, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(bytes.TrimPrefix(greeting, []byte("INFO ")), &fields); err != nil {
		return nil, err
	}
	fields["tls_required"] = json.RawMessage("true")
	changed, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "INFO %s\r\n", changed); err != nil {
		return nil, err
	}
	secured := tls.Server(conn, config)
	if err := secured.Handshake(); err != nil { //nolint:noctx // conn has a deadline, and is closed when ctx ends
		b.refusals.count(ReasonHandshake, who.String())
		return nil, err
	}
	return secured, nil
}

// lingering is how long a client may take to read the server's last words.
const lingering = time.Second

// splice copies both ways until either side ends, and closes both. A client that the
// server hangs up on can still say what it was about to say, or it would not read
// why.
func (b *Broker) splice(conn, inner net.Conn, fromServer *bufio.Reader) {
	var toClient sync.WaitGroup
	defer toClient.Wait()
	toClient.Go(func() {
		defer func() { _ = inner.Close() }()
		_, _ = fromServer.WriteTo(patient{conn, b.cfg.pace.write})
		hangUp(conn)
	})
	defer func() { _ = inner.Close() }()
	if err := new(guard).copy(inner, conn); errors.Is(err, io.ErrClosedPipe) {
		_, _ = io.Copy(io.Discard, conn)
	}
	_ = conn.Close()
}

// patient is a connection to which each write may take only so long: who does not
// read must not keep what it does not read.
type patient struct {
	net.Conn
	patience time.Duration
}

func (p patient) Write(data []byte) (int, error) {
	_ = p.SetWriteDeadline(time.Now().Add(p.patience))
	return p.Conn.Write(data)
}

// turnAway counts a client and tells it why it may not come in, in such a way that it
// reads it: after a greeting, and without hanging up on what the client says first.
func (b *Broker) turnAway(conn net.Conn, reason, who, text string) {
	b.refusals.count(reason, who)
	select {
	case b.turnedAway <- struct{}{}:
		defer func() { <-b.turnedAway }()
	default:
		return
	}
	_ = conn.SetDeadline(time.Now().Add(b.cfg.pace.handshake))
	if _, err := fmt.Fprintf(conn, "INFO {\"server_name\":%q,\"auth_required\":true,\"max_payload\":%d,\"headers\":true,\"proto\":1}\r\n-ERR '%s'\r\n",
		b.cfg.ServerName, MaxPayload, text); err != nil {
		return
	}
	hangUp(conn)
	_, _ = io.Copy(io.Discard, conn)
}

// hangUp ends what is said to a client, and leaves it a while to hear it: one that is
// still speaking when its connection is closed does not.
func hangUp(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(lingering))
}
