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

// Limits of the server.
const (
	maxHeader      = 16 << 10
	maxConnections = 32
	headerTimeout  = 5 * time.Second
	idleTimeout    = time.Minute
	// writeTimeout is how long a client may take to read what it asked for.
	writeTimeout = 10 * time.Second
	// selfCheckEvery is how often the server asks itself through its socket.
	selfCheckEvery = 5 * time.Second
)

// Source says what state the daemon is in. State must not block.
type Source interface{ State() *State }

// Events are the durable events.
type Events interface {
	// Query calls fn with each matching event, in order. The event is valid
	// only during the call. Errors that clients can act on wrap ErrUnavailable
	// or ErrEpoch.
	Query(ctx context.Context, q Query, fn func(*event.Event) error) error
	// Head is the durable head.
	Head() uint64
	// Wait blocks until the durable head is above after, and returns it.
	Wait(ctx context.Context, after uint64) (uint64, error)
}

// Errors of [Events] that become an HTTP status of their own.
var (
	ErrUnavailable = errors.New("events can not be read now")
	ErrEpoch       = errors.New("the store has another epoch")
)

// Progress hears that the server works.
type Progress interface{ Beat(activity string) }

// Config is what a [Server] is made from.
type Config struct {
	Path   string // of the socket, see [SocketPath]
	Source Source
	Events Events
	// MetricsListen is a TCP address for /metrics and /healthz alone; empty is
	// none.
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
	fault(c.Log == nil, "log is missing")
	return errors.Join(faults...)
}

// Server is the service behind the control socket.
type Server struct {
	cfg     Config
	metrics http.Handler
	uid     int

	refused   atomic.Uint64 // connections of other users
	busy      atomic.Uint64 // connections above the limit
	slow      atomic.Uint64 // clients that were dropped because they did not read
	bad       atomic.Uint64 // requests that were answered with an error
	unwatched atomic.Uint64 // self-checks that failed
}

// New returns a server; Serve starts it.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure control socket: %w", err)
	}
	s := &Server{cfg: cfg, uid: os.Geteuid()}
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
	defer removeOwn(l, s.cfg.Path)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var group sync.WaitGroup
	defer group.Wait()
	serve := func(l net.Listener, h http.Handler) func() {
		server := s.httpServer(ctx, h)
		group.Go(func() { cancel(fmt.Errorf("serve %s: %w", l.Addr(), server.Serve(l))) })
		return func() { _ = server.Close() }
	}
	defer serve(s.newGate(l), s.routes())()
	if s.cfg.MetricsListen != "" {
		tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.MetricsListen)
		if err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
		defer serve(tcp, s.publicRoutes())()
	}
	s.selfCheck(ctx)
	return context.Cause(ctx)
}

// httpServer is an HTTP server with our limits, whose requests end with ctx.
func (s *Server) httpServer(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           s.limit(h),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          stdlog.New(io.Discard, "", 0), // what clients do wrong is counted, not logged line by line
	}
}

// removeOwn closes the listener and removes its socket, unless another one has
// taken its place.
func removeOwn(l *net.UnixListener, path string) {
	_ = l.Close()
	_ = os.Remove(path)
}

// selfCheck asks the server through its own socket, as a client would, and
// reports progress when there is an answer. It returns when ctx ends.
func (s *Server) selfCheck(ctx context.Context) {
	client := Dial(s.cfg.Path)
	defer client.Close()
	tick := time.NewTicker(selfCheckEvery)
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
		s.fail(w, http.StatusNotFound, fmt.Sprintf("there is no %q", r.URL.Path), "try /state, /events, /metrics or /healthz")
	})
}

// limit refuses what no path here accepts.
func (s *Server) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		switch {
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

func (s *Server) serveState(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.cfg.Source.State())
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	state := s.cfg.Source.State()
	status := http.StatusOK
	strict := r.URL.Query().Get("strict") == "1"
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
