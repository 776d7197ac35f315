package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect/event"
)

const (
	maxHeader   = 16 << 10
	idleTimeout = time.Minute
)

// limits bound what clients can ask of a server.
type limits struct {
	connections int           // at once, on each of its listeners
	followers   int           // streams that go on, at once; fewer, so that state is always answered
	rebuilds    int           // tables of the past that are rebuilt at once
	header      time.Duration // for sending a request
	write       time.Duration // for reading what was asked for, or each part of a stream
	late        time.Duration // from when an event was observed until it is there
	selfCheck   time.Duration // between two requests of the server to itself
	retry       time.Duration // between two attempts to listen for metrics
}

func defaultLimits() limits {
	return limits{connections: 32, followers: 16, rebuilds: 2, header: 5 * time.Second, write: 10 * time.Second, late: time.Second, selfCheck: 5 * time.Second, retry: 10 * time.Second}
}

// Source says what state the daemon is in. State must not block.
type Source interface{ State() *State }

// Events are the durable events.
type Events interface {
	// Query calls fn with each matching event, in order. The event is valid
	// only during the call. Errors that clients can act on wrap ErrUnavailable
	// or ErrEpoch.
	Query(ctx context.Context, q Query, fn func(*event.Event) error) error
	// Head is the durable head, and Epoch its epoch; zero if it is not known yet.
	Head() uint64
	Epoch() event.Epoch
	// Wait blocks until the durable head is above after, and returns it.
	Wait(ctx context.Context, after uint64) (uint64, error)
}

// Errors of [Events] that become an HTTP status of their own.
var (
	ErrUnavailable = errors.New("events can not be read now")
	ErrEpoch       = errors.New("store has another epoch")
)

// Progress hears that the server works.
type Progress interface{ Beat(activity string) }

// Config is what a [Server] is made from.
type Config struct {
	Path   string // of the socket, see [SocketPath]
	Source Source
	Events Events
	// Processes are those of the host, now and in the past.
	Processes Processes
	// MetricsListen is a TCP address for /metrics and /healthz alone; empty is
	// none. While it can not be had, the control socket serves on.
	MetricsListen string
	Progress      Progress // may be nil
	Log           *logrus.Entry
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults []error
	fault := func(bad bool, what string) {
		if bad {
			faults = append(faults, errors.New(what))
		}
	}
	fault(c.Path == "", "path of the control socket is missing")
	fault(len(c.Path) > maxSocketPath(), "path of the control socket is too long: "+c.Path)
	fault(c.Source == nil, "source of state is missing")
	fault(c.Events == nil, "events are missing")
	fault(c.Processes == nil, "processes are missing")
	fault(c.Log == nil, "log is missing")
	return errors.Join(faults...)
}

// Server is the service behind the control socket.
type Server struct {
	cfg     Config
	metrics http.Handler
	limits  limits
	// followers holds one value for each stream that goes on; never closed.
	followers chan struct{}
	// rebuilds holds one value for each table of the past that is rebuilt, which takes
	// a core; never closed.
	rebuilds chan struct{}
	pid      int                // whose connections are the server's own
	allowed  func(uid int) bool // who may ask

	refused   atomic.Uint64 // connections of other users
	busy      atomic.Uint64 // connections above the limit
	slow      atomic.Uint64 // clients that were dropped because they did not read
	bad       atomic.Uint64 // requests that were answered with an error
	unwatched atomic.Uint64 // self-checks that failed
	unlisted  atomic.Uint64 // attempts to listen for metrics that failed
	// unserved is why metrics are not served over TCP, nil while they are.
	unserved atomic.Pointer[string]
}

// New returns a server; Serve starts it.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure control socket: %w", err)
	}
	own := os.Geteuid()
	s := &Server{
		cfg:     cfg,
		limits:  defaultLimits(),
		pid:     os.Getpid(),
		allowed: func(uid int) bool { return uid == 0 || uid == own },
	}
	s.followers = make(chan struct{}, s.limits.followers)
	s.rebuilds = make(chan struct{}, s.limits.rebuilds)
	s.metrics = s.newMetrics()
	return s, nil
}

func (s *Server) String() string { return "control socket" }

// Serve listens until ctx ends, then ends every request and removes the socket.
// It can be called again after an error.
func (s *Server) Serve(ctx context.Context) error {
	l, err := listen(ctx, s.cfg.Path)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(nil)
	group.Go(func() { cancel(s.serveOn(ctx, s.newGate(l, s.checkPeer), s.routes())) })
	if s.cfg.MetricsListen != "" {
		group.Go(func() { s.servePublic(ctx) })
	}
	s.selfCheck(ctx)
	return context.Cause(ctx)
}

// serveOn answers requests on a listener until ctx ends, then closes it and every
// connection. It returns when no request is in work any more.
func (s *Server) serveOn(ctx context.Context, l net.Listener, h http.Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var requests sync.RWMutex // held for reading by each request, for writing at the end
	defer requests.Lock()
	defer cancel()
	server := s.httpServer(ctx, &requests, h)
	closeAll := func() { _ = server.Close() }
	defer closeAll()
	defer context.AfterFunc(ctx, closeAll)()
	if err := server.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return context.Cause(ctx)
}

// Unserved is why metrics can not be served where they should be, "" if they are,
// or need not be. It never waits.
func (s *Server) Unserved() string {
	if why := s.unserved.Load(); why != nil {
		return *why
	}
	return ""
}

// servePublic serves metrics over TCP until ctx ends. An address that another
// program holds is no reason to take the control socket away: the failure is
// logged and counted, and tried again.
func (s *Server) servePublic(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.MetricsListen)
		if err == nil {
			s.unserved.Store(nil)
			err = s.serveOn(ctx, s.newGate(l, checkNobody), s.publicRoutes())
		}
		if ctx.Err() != nil {
			return
		}
		s.unlisted.Add(1)
		reason := err.Error()
		if was := s.unserved.Swap(&reason); was == nil || *was != reason {
			s.cfg.Log.WithError(err).Warnf("Metrics can not be served on %s: trying again every %v", s.cfg.MetricsListen, s.limits.retry)
		}
		select {
		case <-time.After(s.limits.retry):
		case <-ctx.Done():
		}
	}
}

// httpServer is an HTTP server with our limits, whose requests end with ctx and
// hold a read lock on requests meanwhile.
func (s *Server) httpServer(ctx context.Context, requests *sync.RWMutex, h http.Handler) *http.Server {
	h = s.limit(h)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !requests.TryRLock() {
				panic(http.ErrAbortHandler) // came as the server ended
			}
			defer requests.RUnlock()
			h.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       connContext,
		ReadHeaderTimeout: s.limits.header,
		ReadTimeout:       s.limits.header,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          stdlog.New(io.Discard, "", 0), // what clients do wrong is counted, not logged line by line
	}
}

// selfCheck asks the server through its own socket, as a client would, and
// reports progress when there is an answer. It returns when ctx ends.
func (s *Server) selfCheck(ctx context.Context) {
	client := Dial(s.cfg.Path)
	defer client.Close()
	tick := time.NewTicker(s.limits.selfCheck)
	defer tick.Stop()
	for {
		if err := client.Ping(ctx); err == nil {
			s.beat()
		} else if ctx.Err() == nil {
			s.unwatched.Add(1)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) beat() {
	if s.cfg.Progress != nil {
		s.cfg.Progress.Beat("serve")
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", s.serveState)
	mux.HandleFunc("GET /events", s.serveEvents)
	mux.HandleFunc("GET /processes", s.serveProcesses)
	s.addPublic(mux)
	return mux
}

func (s *Server) publicRoutes() http.Handler {
	mux := http.NewServeMux()
	s.addPublic(mux)
	return mux
}

func (s *Server) addPublic(mux *http.ServeMux) {
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, http.StatusNotFound, fmt.Sprintf("there is no %q", r.URL.Path), "try /state, /events, /processes, /metrics or /healthz")
	})
}

// limit refuses what no path here accepts.
func (s *Server) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.write))
		why, unwelcome := r.Context().Value(turnedAwayKey{}).(*turnedAway)
		if unwelcome {
			w.Header().Set("Connection", "close")
		}
		switch {
		case unwelcome && (why.status != http.StatusTooManyRequests || !isBrief(r.URL.Path)):
			s.fail(w, why.status, why.problem, why.hint())
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			s.fail(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed", "use GET")
		case r.ContentLength != 0:
			w.Header().Set("Connection", "close")
			s.fail(w, http.StatusRequestEntityTooLarge, "requests have no body here", "put parameters into the URL")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isBrief reports whether a path is answered at once from what is in memory. That
// is done for those above the limit too: whoever asks what is wrong must learn it.
func isBrief(path string) bool { return path == "/state" || path == "/ping" || path == "/healthz" }

func (s *Server) serveState(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.cfg.Source.State())
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	strict, err := parseRaw(r.URL.RawQuery, parseStrict)
	if err != nil {
		s.fail(w, http.StatusBadRequest, err.Error(), "try /healthz or /healthz?strict=1")
		return
	}
	state := s.cfg.Source.State()
	status := http.StatusOK
	if state.Health == HealthUnhealthy || (strict && state.Health != HealthHealthy) {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, struct {
		Health  string   `json:"health"`
		Reasons []string `json:"reasons"`
	}{state.Health, state.Reasons})
}

// fail answers with an error object.
func (s *Server) fail(w http.ResponseWriter, status int, problem, hint string) {
	s.bad.Add(1)
	writeJSON(w, status, struct {
		Error string `json:"error"`
		Hint  string `json:"hint"`
	}{problem, hint})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) // a client that has left is no error
}
