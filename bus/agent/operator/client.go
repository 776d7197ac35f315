package operator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// Errors of [Dial] and of requests. What is wrong and where is in the text.
var (
	ErrNotRunning = errors.New("no agent runs here")
	ErrForbidden  = errors.New("this user may not ask the agent")
	// ErrSilent reports an agent that is there and does not answer.
	ErrSilent = errors.New("the agent does not answer")
)

// dialTimeout bounds the way to the broker: the other end is on this host.
const dialTimeout = 2 * time.Second

// Client is a connection to the agent. Its methods are safe for concurrent use.
type Client struct {
	nc *nats.Conn
}

// Dial connects to the agent whose broker has the socket. follow keeps the connection
// across restarts of the agent: changed is told when it goes (false) and comes back
// (true).
func Dial(socket string, follow bool, changed func(connected bool)) (*Client, error) {
	secret, err := readSecret(socket)
	if err != nil {
		return nil, err
	}
	options := []nats.Option{
		nats.Name("operator"),
		nats.SetCustomDialer(dialer{socket}), nats.SkipHostLookup(), nats.Timeout(dialTimeout),
		nats.UserInfo(rpc.UserOperator, secret), nats.CustomInboxPrefix(rpc.InboxPrefix(rpc.UserOperator)),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // what matters comes back from calls
	}
	if follow {
		options = append(options, nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.ReconnectBufSize(-1),
			nats.DisconnectErrHandler(func(nc *nats.Conn, _ error) {
				if !nc.IsClosed() {
					changed(false)
				}
			}),
			nats.ReconnectHandler(func(*nats.Conn) { changed(true) }))
	} else {
		options = append(options, nats.NoReconnect())
	}
	nc, err := nats.Connect("nats://agent", options...)
	if err != nil {
		return nil, dialError(socket, err)
	}
	return &Client{nc: nc}, nil
}

// Close ends the connection.
func (c *Client) Close() { c.nc.Close() }

// dialer goes to a Unix socket, whatever the address.
type dialer struct{ socket string }

func (d dialer) Dial(string, string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout) // the interface has none
	defer cancel()
	return new(net.Dialer).DialContext(ctx, "unix", d.socket)
}

// SkipTLSHandshake says that the socket is as far as this goes.
func (d dialer) SkipTLSHandshake() bool { return true }

// maxSecret is longer than any secret.
const maxSecret = 4096

// readSecret reads the operator's. Where there is none, no agent has ever run; where
// it can not be read, it is another user's.
func readSecret(socket string) (string, error) {
	path := rpc.SecretPath(socket, rpc.UserOperator)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("%w: there is no %s", ErrNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%w: %s can not be read", ErrForbidden, path)
	case err != nil:
		return "", fmt.Errorf("read secret: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || len(secret) > maxSecret {
		return "", fmt.Errorf("read secret: %s holds none", path)
	}
	return secret, nil
}

// dialError says what a failed connection means.
func dialError(socket string, err error) error {
	switch {
	// The library turns a refused connection into its ErrNoServers.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("%w: nobody listens on %s", ErrNotRunning, socket)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("%w: refused on %s: %w", ErrForbidden, socket, err)
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrMaxConnectionsExceeded):
		return fmt.Errorf("%w: on %s: %w", ErrSilent, socket, err)
	case isDown(err):
		return fmt.Errorf("%w: it is starting or stopping", ErrSilent)
	}
	// A socket that accepts and hangs up: the peer check, or an agent that ends.
	return fmt.Errorf("%w: the connection to %s ended at once: %w", ErrForbidden, socket, err)
}

// isDown recognizes the broker's word that no server runs behind its socket.
func isDown(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "server is not running") || strings.Contains(text, "server is shutting down")
}

// Ask sends a request to the agent, and returns the payload of its answer. ctx needs a
// deadline, which the request carries. What the agent or a collector refuses is an
// *rpc.Error.
func (c *Client) Ask(ctx context.Context, op rpc.Operation, payload any) (json.RawMessage, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("ask the agent: no deadline")
	}
	q := rpc.Request{RequestID: rand.Text(), Operation: op, Deadline: deadline.UTC()}
	var err error
	if payload != nil {
		if q.Payload, err = json.Marshal(payload); err != nil {
			return nil, fmt.Errorf("encode payload: %w", err)
		}
	}
	text, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	msg, err := c.nc.RequestWithContext(ctx, rpc.SubjectAgent, text)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w: it is starting or stopping", ErrSilent)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return nil, fmt.Errorf("%w in time", ErrSilent)
	case err != nil:
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	var response rpc.Response
	if err := json.Unmarshal(msg.Data, &response); err != nil {
		return nil, fmt.Errorf("read answer of the agent: %w", err)
	}
	switch {
	case response.Error != nil:
		return nil, response.Error
	case response.Status != rpc.StatusOK:
		return nil, fmt.Errorf("read answer of the agent: status %q", response.Status)
	}
	return response.Payload, nil
}
