package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// probeTimeout is how long a socket that is in the way may take to prove that
// somebody listens.
const probeTimeout = time.Second

// ErrInUse says that another process answers on the control socket.
var ErrInUse = errors.New("control socket is in use")

// listen makes the control socket. It is bound under a private name, given its
// mode and then renamed, so that it never exists with another mode.
func listen(ctx context.Context, path string) (*net.UnixListener, error) {
	if err := prepareDir(path); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	hidden := filepath.Join(filepath.Dir(path), ".s"+strconv.Itoa(os.Getpid()))
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove %s: %w", hidden, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // its name changes below; Serve removes it
	if err := publish(hidden, path); err != nil {
		_ = l.Close()
		_ = os.Remove(hidden)
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return l, nil
}

// publish gives a bound socket its mode, then its name.
func publish(hidden, path string) error {
	if err := os.Chmod(hidden, 0o600); err != nil {
		return err
	}
	return os.Rename(hidden, path)
}

// prepareDir makes sure that the socket's directory can be trusted when it is
// the one of privateDir; the database's own directory is the operator's choice.
func prepareDir(path string) error {
	dir := filepath.Dir(path)
	if dir != privateDir() {
		return nil
	}
	return ensurePrivate(dir)
}

// removeStale removes a socket on which nobody listens any more, and refuses to
// touch anything else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: something that is not a socket is in its place: move it away", path)
	}
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s: %w: stop the other daemon, or use another --database", path, ErrInUse)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("probe control socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale control socket: %w", err)
	}
	return nil
}
