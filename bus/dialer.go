package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"daemoneye.dev/procmond/bus/rpc"
)

const (
	// dialTimeout bounds connect(2), which waits only if the agent's queue is full.
	dialTimeout = 2 * time.Second
	// maxSecret bounds what is read of a secret's file, in bytes.
	maxSecret = 4096
)

// errPostponed ends the library's first attempt, which it makes in the goroutine
// that opens the link: the second one, at once, is made in its own.
var errPostponed = errors.New("not tried yet")

// dialer connects to the broker's Unix socket for the client library, which asks
// it once for each attempt. It reads the secret first: without one there is no
// point in connecting.
type dialer struct {
	socket   string
	secret   func() (string, error)
	attempts atomic.Uint64          // the postponed one included
	read     atomic.Pointer[string] // secret of this attempt
}

// Dial ignores its arguments: they name what the library takes for a host.
func (d *dialer) Dial(_, _ string) (net.Conn, error) {
	if d.attempts.Add(1) == 1 {
		return nil, errPostponed
	}
	secret, err := d.secret()
	if err != nil {
		return nil, err
	}
	d.read.Store(&secret)
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	return conn, nil
}

// SkipTLSHandshake tells the library that a Unix socket needs none, whatever the
// server offers.
func (d *dialer) SkipTLSHandshake() bool { return true }

// user gives the library the name and secret of the attempt that Dial began.
func (d *dialer) user(id string) (user, password string) {
	if secret := d.read.Load(); secret != nil {
		return id, *secret
	}
	return id, ""
}

// secretFile reads the secret of id anew at each call, so that one that the agent
// has made again is taken at the next attempt.
func secretFile(socket, id string) func() (string, error) {
	path := rpc.SecretPath(socket, id)
	return func() (string, error) {
		text, err := readSecret(path)
		if err != nil {
			return "", fmt.Errorf("read secret of %s: %w", id, err)
		}
		if text == "" {
			return "", fmt.Errorf("read secret of %s: %s is empty", id, path)
		}
		return text, nil
	}
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, maxSecret+1)
	n, err := f.Read(buf)
	if n > maxSecret {
		return "", fmt.Errorf("%s has more than %d bytes", path, maxSecret)
	}
	if n == 0 {
		return "", nil
	}
	return strings.TrimSpace(string(buf[:n])), err
}
