package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// ErrStoreInUse says that another process has the store.
var ErrStoreInUse = errors.New("store is in use by another agent")

// How long the server may take for what it does of itself.
const (
	startTimeout = 10 * time.Second // of a request to a server that has just started
	saveTimeout  = 2 * time.Second  // for positions, at an orderly stop
)

// Limits that the server keeps. Dead connections are found within a minute.
const (
	pingInterval  = 20 * time.Second
	pingsOut      = 2
	writeDeadline = 10 * time.Second
	maxPending    = 32 << 20 // bytes that a client may leave unread
	// maxStore is no limit: the streams have theirs, and nobody but the agent makes
	// one. A limit here would keep a stream from loading that was larger before.
	maxStore  = 1 << 50
	maxMemory = 16 << 20 // nothing is kept there but consumers that ask for it
)

// run is one life of the server.
type run struct {
	srv       *server.Server
	log       *serverLog
	clients   *clients
	nc        *nats.Conn // the broker's own
	js        jetstream.JetStream
	stream    jetstream.Stream
	positions jetstream.Stream
	created   time.Time   // of stream
	lost      atomic.Bool // stream is gone, or another one; set by the service "stream"
	recorded  map[string]record
	seen      uint64 // last sequence of the stream for which positions were recorded; this and recorded are guarded by Broker.positions
}

// serveServer is the service "server".
func (b *Broker) serveServer(ctx context.Context, beat func(string)) error {
	unlock, err := lockStore(b.cfg.Store)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := b.newRun()
	if err != nil {
		return err
	}
	defer r.stop()
	if err := r.start(ctx, beat); err != nil {
		return err
	}
	if err := b.prepare(ctx, r); err != nil {
		return err
	}
	b.running.Store(r)
	select {
	case b.started <- struct{}{}:
	default:
	}
	defer b.retire(ctx, r)
	b.cfg.Log.WithField("store", b.cfg.Store).Info("Broker is running")
	tick := time.NewTicker(b.cfg.pace.check)
	defer tick.Stop()
	for {
		beat("watch the server")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := r.fault(); err != nil {
			return err
		}
	}
}

// lockStore makes the store's directory and keeps others from it; the server itself
// would let two of them damage it. The lock ends with the process, however that ends.
func lockStore(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
		return nil, fmt.Errorf("close store to others: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of store: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrStoreInUse
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock store %s: %w", dir, err)
	}
	return func() { _ = file.Close() }, nil
}

// newRun makes a server that is yet to start.
func (b *Broker) newRun() (*run, error) {
	r := &run{clients: newClients(), recorded: map[string]record{}}
	r.log = &serverLog{log: b.cfg.Log.WithField("part", "nats"), refusals: b.refusals, clients: r.clients}
	srv, err := server.NewServer(b.serverOptions(r.clients))
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	srv.SetLoggerV2(r.log, b.cfg.Log.Logger.IsLevelEnabled(logrus.TraceLevel), false, false)
	r.srv = srv
	return r, nil
}

func (b *Broker) serverOptions(clients *clients) *server.Options {
	opts := &server.Options{
		ServerName: b.cfg.ServerName, NoSigs: true,
		DontListen:                 true, // connections come from this package alone
		CustomClientAuthentication: gatekeeper{b, clients},
		MaxConn:                    2 * (MaxConnections + MaxListenerConnections), // a part of it for the agent itself
		MaxPayload:                 MaxPayload, MaxPending: maxPending,
		AuthTimeout:  b.cfg.pace.handshake.Seconds(),
		PingInterval: pingInterval, MaxPingsOut: pingsOut, WriteDeadline: writeDeadline,
		MaxClosedClients:       MaxConnections,
		JetStream:              true,
		DisableJetStreamBanner: true,
		StoreDir:               b.cfg.Store,
		JetStreamMaxStore:      maxStore, JetStreamMaxMemory: maxMemory,
		SyncAlways: true, // synced, then acknowledged
		// A collector has one batch under way; by default all together have 50.
		JetStreamLimits: server.JSLimitOpts{MaxBatchInflightPerStream: MaxConnections, MaxBatchInflightTotal: MaxConnections},
	}
	if b.cfg.Version != "" {
		opts.Metadata = map[string]string{"version": b.cfg.Version}
	}
	return opts
}

// start starts the server and connects to it. To load a big store takes a while.
func (r *run) start(ctx context.Context, beat func(string)) error {
	var loading sync.WaitGroup
	defer loading.Wait()
	done := make(chan struct{}) // closed by the loader
	loading.Go(func() {
		defer close(done)
		r.srv.Start()
	})
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for waiting := true; waiting; {
		beat("load the store")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			waiting = false
		case <-tick.C:
		}
	}
	if why := r.log.fatal.Load(); why != nil {
		return fmt.Errorf("start server: %s", *why)
	}
	if !r.srv.ReadyForConnections(startTimeout) || !r.srv.JetStreamEnabled() {
		return fmt.Errorf("start server: not ready: %s", r.log.lastFault())
	}
	return nil
}

// prepare connects to the server and sees to its streams.
func (b *Broker) prepare(ctx context.Context, r *run) error {
	nc, err := nats.Connect("", nats.InProcessServer(r.srv), nats.UserInfo(agentUser, b.password),
		nats.CustomInboxPrefix(agentInbox), nats.NoReconnect(), nats.Name("broker"))
	if err != nil {
		return fmt.Errorf("connect to server: %w", err)
	}
	r.nc = nc
	if r.js, err = jetstream.New(nc); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if r.stream, err = r.js.CreateOrUpdateStream(ctx, b.streamConfig()); err != nil {
		return fmt.Errorf("make stream: %w", err)
	}
	if r.positions, err = r.js.CreateOrUpdateStream(ctx, positionsConfig()); err != nil {
		return fmt.Errorf("make stream of positions: %w", err)
	}
	r.created = r.stream.CachedInfo().Created.UTC()
	return nil
}

// retire takes the server out of service, and keeps what must outlive it.
func (b *Broker) retire(ctx context.Context, r *run) {
	b.running.CompareAndSwap(r, nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if r.fault() != nil {
		return
	}
	if err := b.savePositions(ctx, r); err != nil {
		b.cfg.Log.WithError(err).Warn("Positions not recorded at stop")
	}
}

// stop ends the server in order.
func (r *run) stop() {
	if r.nc != nil {
		r.nc.Close()
	}
	r.srv.Shutdown()
	r.srv.WaitForShutdown()
}

// fault is why a server that was started is of no use any more, or nil.
func (r *run) fault() error {
	switch {
	case !r.srv.Running():
		return errors.New("server has ended by itself")
	case !r.srv.JetStreamEnabled():
		return fmt.Errorf("JetStream was disabled: %s", r.log.lastFault())
	case r.lost.Load():
		return errors.New("stream of events was deleted")
	case r.nc.IsClosed():
		return fmt.Errorf("connection to server was lost: %w", errors.Join(r.nc.LastError(), fs.ErrClosed))
	}
	return nil
}
