package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// probeTimeout is how long a socket that is in the way may take to prove that
// somebody listens.
const probeTimeout = time.Second

// ErrInUse says that another process answers on the control socket.
var ErrInUse = errors.New("control socket is in use")

// socket is the listener behind the control socket.
type socket struct {
	*net.UnixListener
	path string
	made fs.FileInfo // what listen put at path
}

// remove closes the socket and takes its name away, unless another one has taken
// its place.
func (s *socket) remove() {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
		_ = os.Remove(s.path)
	}
	_ = s.Close()
}

// listen makes the control socket. It is bound under a name that nobody knows,
// given its mode and then renamed, so that its path never has another mode. That
// name is no longer than the path's: a dot, and a PID in at most five characters.
func listen(ctx context.Context, path string) (*socket, error) {
	if err := prepareDir(path); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	hidden := filepath.Join(filepath.Dir(path), "."+strconv.FormatInt(int64(os.Getpid()), 36))
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove %s: %w", hidden, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // its name changes below
	made, err := publish(hidden, path)
	if err != nil {
		_ = l.Close()
		_ = os.Remove(hidden)
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return &socket{UnixListener: l, path: path, made: made}, nil
}

// publish gives a bound socket its mode, then its name.
func publish(hidden, path string) (fs.FileInfo, error) {
	if err := os.Chmod(hidden, 0o600); err != nil {
		return nil, err
	}
	made, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(hidden, path)
}

// prepareDir makes sure that the socket's directory can be trusted when it is
// one of ours; the database's own directory is the operator's choice.
func prepareDir(path string) error {
	dir := filepath.Dir(path)
	if !slices.Contains(privateDirs(os.Geteuid()), dir) {
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
