package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"daemoneye.dev/procmond/bus/unixsock"
	"daemoneye.dev/procmond/collect/event"
)

// answerTimeout is how long a daemon may take to say what state it is in before
// it is called not responding.
const answerTimeout = 800 * time.Millisecond

// headerTimeout is how long a daemon may take to find the first of the events that
// were asked for. A query of the newest looks at all that it has, millions perhaps.
const headerTimeout = 2 * time.Minute

// askAgain is how long after it was turned away a client asks once more.
const askAgain = 50 * time.Millisecond

// What a client may find instead of an answer.
var (
	// ErrNotListening says that nobody listens: no daemon runs on this socket.
	ErrNotListening = errors.New("no daemon listens")
	// ErrForbidden says that the daemon, or the socket's mode, refuses us.
	ErrForbidden = errors.New("no permission for the control socket")
	// ErrBusy says that the daemon turns connections away.
	ErrBusy = errors.New("too many clients ask the daemon at once")
	// ErrBrokenOff says that an answer is not complete: the daemon ended, or the
	// reader was too slow for it.
	ErrBrokenOff = errors.New("the daemon broke off")
	// ErrImpostor says that a stranger's program listens where the daemon should.
	ErrImpostor = errors.New("a program of another user listens there")
)

// NotRespondingError says that a daemon accepts connections and does not
// answer.
type NotRespondingError struct {
	PID int // who listens, 0 if unknown
}

func (e *NotRespondingError) Error() string {
	if e.PID == 0 {
		return "the daemon does not answer"
	}
	return fmt.Sprintf("the daemon (pid %d) does not answer", e.PID)
}

// Client asks a daemon. It is safe for concurrent use.
type Client struct {
	path    string
	trusted []int // user ids; constant
	http    *http.Client
}

// Dial returns a client of the socket at path; it does not connect yet. It
// believes a daemon of root, of this process's own user, and of the users given.
func Dial(path string, trusted ...int) *Client {
	c := &Client{path: path, trusted: append(trusted, 0, os.Geteuid())}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		MaxIdleConns:          1,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: headerTimeout,
	}}
	return c
}

// DialDatabase returns a client of the daemon of a database, which may also be of the
// user whom the database belongs to.
func DialDatabase(database string) (*Client, error) {
	path, err := SocketPath(database)
	if err != nil {
		return nil, fmt.Errorf("find control socket of %s: %w", database, err)
	}
	return Dial(path, ownerOf(database)), nil
}

// dial connects, and believes only a listener that may be the daemon: the socket
// may be in a directory where others can make one too.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	p, err := unixsock.PeerOf(conn.(*net.UnixConn))
	if err == nil && !slices.Contains(c.trusted, p.UID) {
		err = fmt.Errorf("%w: user %d, pid %d", ErrImpostor, p.UID, p.PID)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Ping returns nil if the daemon answers within a second.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := c.request(ctx, "/ping", nil)
	if err != nil {
		return err
	}
	return body.Close()
}

// State asks for the state and waits less than a second. The errors are
// [ErrNotListening], [*NotRespondingError], [ErrForbidden], [ErrImpostor] and
// [ErrBusy], or a broken answer.
func (c *Client) State(ctx context.Context) (*State, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := c.request(ctx, "/state", nil)
	if errors.Is(err, ErrBusy) { // or it is about to end: then nobody listens the next time
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
		}
		body, err = c.request(ctx, "/state", nil)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	var state State
	if err := json.NewDecoder(body).Decode(&state); err != nil {
		if ctx.Err() != nil {
			return nil, &NotRespondingError{PID: c.peer()}
		}
		return nil, fmt.Errorf("read state: %w", err)
	}
	return &state, nil
}

// Events calls fn with each event's JSON line, without its newline, until all
// were read, fn fails, or ctx ends. The line is valid only during the call. The
// errors are those of OpenEvents and of [EventStream.Each].
func (c *Client) Events(ctx context.Context, q Query, fn func(line []byte) error) error {
	stream, err := c.OpenEvents(ctx, q)
	if err != nil {
		return err
	}
	defer stream.Close()
	return stream.Each(fn)
}

// OpenEvents asks for events and returns once the daemon has agreed to send them.
// The errors are those of State, [ErrEpoch] and [ErrUnavailable].
func (c *Client) OpenEvents(ctx context.Context, q Query) (*EventStream, error) {
	if err := c.Ping(ctx); err != nil { // a daemon that hangs is found out in less than a second
		return nil, err
	}
	response, err := c.ask(ctx, "/events", q.Values()) //nolint:bodyclose // EventStream.Close does
	if err != nil {
		return nil, err
	}
	s := &EventStream{body: response.Body}
	epoch, epochErr := event.ParseEpoch(response.Header.Get(headerEpoch))
	head, headErr := strconv.ParseUint(response.Header.Get(headerHead), 10, 64)
	if epochErr == nil && headErr == nil {
		s.Epoch, s.Head = epoch, head
	}
	return s, nil
}

// EventStream is an answer that goes on.
type EventStream struct {
	// Epoch and Head are where the store stood when the answer began; zero if the
	// daemon does not tell.
	Epoch event.Epoch
	Head  uint64

	body io.ReadCloser
}

// Close ends it.
func (s *EventStream) Close() { _ = s.body.Close() }

// Each calls fn with each event's JSON line, without its newline, until all were
// read or fn fails. The line is valid only during the call. [ErrBrokenOff] says
// that there were more.
func (s *EventStream) Each(fn func(line []byte) error) error {
	lines := bufio.NewScanner(s.body)
	lines.Buffer(make([]byte, 0, 64<<10), 8<<20) // an event of 64 KiB is at most some times that in JSON
	lines.Split(wholeLines)
	for lines.Scan() {
		if err := fn(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events: %w: %w", ErrBrokenOff, err)
	}
	return nil
}

// wholeLines splits into lines, and never gives the half of one: an answer may be
// broken off anywhere.
func wholeLines(data []byte, atEnd bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEnd && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// request returns the body of a good answer.
func (c *Client) request(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	response, err := c.ask(ctx, path, query)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// ask returns a good answer, whose body the caller must close.
func (c *Client) ask(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: "procmond", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask daemon: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, refusal(response)
}

// explain tells apart why there is no answer.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("ask daemon at %s: %w", c.path, ErrNotListening)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask daemon at %s: %w", c.path, ErrForbidden)
	case errors.Is(err, ErrImpostor):
		return fmt.Errorf("ask daemon at %s: %w", c.path, err)
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, syscall.EAGAIN):
		return &NotRespondingError{PID: c.peer()}
	case isTurnedAway(err):
		// Not wrapped: a broken pipe of ours is not one of the caller's output.
		return fmt.Errorf("ask daemon at %s: %w: %s", c.path, ErrBusy, err.Error())
	default:
		return fmt.Errorf("ask daemon at %s: %w", c.path, err)
	}
}

// isTurnedAway reports whether the connection was closed before there was an answer.
// net/http has one of its errors for that in words only.
func isTurnedAway(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "server closed idle connection")
}

// refusal turns an error object into an error.
func refusal(response *http.Response) error {
	var problem struct{ Error, Hint string }
	_ = json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&problem)
	if problem.Error == "" {
		problem.Error = response.Status
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		if early := tooEarly(response); early != nil {
			return early
		}
	case http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrForbidden, problem.Error)
	case http.StatusConflict:
		return saidOnce(ErrEpoch, problem.Error)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s: %s", ErrBusy, problem.Error, problem.Hint)
	case http.StatusServiceUnavailable:
		return saidOnce(ErrUnavailable, problem.Error)
	}
	if problem.Hint != "" {
		return fmt.Errorf("the daemon refuses: %s: %s", problem.Error, problem.Hint)
	}
	return fmt.Errorf("the daemon refuses: %s", problem.Error)
}

// saidOnce is err with what the daemon said of it, which may begin with err itself.
func saidOnce(err error, said string) error {
	return fmt.Errorf("%w: %s", err, strings.TrimPrefix(said, err.Error()+": "))
}

// peer is the PID of who listens on the socket, 0 if unknown. A connection to a
// hung daemon still succeeds as long as its backlog has room.
func (c *Client) peer() int {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	p, err := unixsock.PeerOf(conn.(*net.UnixConn))
	if err != nil {
		return 0
	}
	return p.PID
}
