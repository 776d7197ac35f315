package unixsock

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

// NoGroup leaves a socket with the group that the system gives it.
const NoGroup = -1

// probeTimeout is how long a socket that is in the way may take to prove that
// somebody listens.
const probeTimeout = time.Second

// ErrInUse says that somebody else answers on a socket.
var ErrInUse = errors.New("socket is in use")

// Listener is a listening socket with a name.
type Listener struct {
	*net.UnixListener
	path string
	made fs.FileInfo // what was put at path
}

// Listen makes a socket. It is bound under a name that nobody knows, no longer than
// the path's: a dot, and a PID in at most five characters; and it gets its path when
// it has its group and mode. The error is [ErrInUse] if somebody listens at path; it
// waits for that up to a second.
func Listen(ctx context.Context, path string, mode fs.FileMode, group int) (*Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	hidden := filepath.Join(filepath.Dir(path), "."+strconv.FormatInt(int64(os.Getpid()), 36))
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove %s: %w", hidden, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // its name changes below
	made, err := publish(hidden, path, mode, group)
	if err != nil {
		_ = l.Close()
		_ = os.Remove(hidden)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &Listener{UnixListener: l, path: path, made: made}, nil
}

// Close takes the path away too, unless another socket has taken its place.
func (l *Listener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// publish gives a bound socket its group, its mode, and then its name.
func publish(hidden, path string, mode fs.FileMode, group int) (fs.FileInfo, error) {
	if group != NoGroup {
		if err := os.Lchown(hidden, -1, group); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(hidden, mode); err != nil {
		return nil, err
	}
	made, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(hidden, path)
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
		return fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("probe socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
