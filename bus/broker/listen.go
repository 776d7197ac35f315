package broker

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

// ErrInUse says that another agent answers on the socket.
var ErrInUse = errors.New("socket is in use by another agent")

// unixSocket is the listener behind the socket's path.
type unixSocket struct {
	*net.UnixListener
	path string
	made fs.FileInfo // what was put at path
}

// Close takes the path away too, unless another socket has taken its place.
func (s *unixSocket) Close() error {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
		_ = os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// listenUnix makes the socket. It is bound under another name, a dot and a PID in at
// most five characters, and gets its path when it has its owner and mode.
func listenUnix(ctx context.Context, cfg Config) (*unixSocket, error) {
	dir := filepath.Dir(cfg.Socket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory of the socket: %w", err)
	}
	if err := removeStale(ctx, cfg.Socket); err != nil {
		return nil, err
	}
	hidden := filepath.Join(dir, "."+strconv.FormatInt(int64(os.Getpid()), 36))
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove %s: %w", hidden, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Socket, err)
	}
	l.SetUnlinkOnClose(false) // its name changes below
	made, err := publishSocket(hidden, cfg)
	if err != nil {
		_ = l.Close()
		_ = os.Remove(hidden)
		return nil, fmt.Errorf("listen on %s: %w", cfg.Socket, err)
	}
	return &unixSocket{UnixListener: l, path: cfg.Socket, made: made}, nil
}

// publishSocket gives a bound socket its group, its mode, and then its name.
func publishSocket(hidden string, cfg Config) (fs.FileInfo, error) {
	if cfg.Group != NoGroup {
		if err := os.Lchown(hidden, -1, cfg.Group); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(hidden, cfg.socketMode()); err != nil {
		return nil, err
	}
	made, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(hidden, cfg.Socket)
}

// removeStale removes a socket on which nobody listens any more, and refuses to
// touch anything else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: something that is not a socket is in its place: move it away", path)
	}
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s: %w: stop that agent, or use another --socket", path, ErrInUse)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("probe socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
