package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"daemoneye.dev/procmond/bus/unixsock"
)

// ErrInUse says that another agent answers on the socket.
var ErrInUse = errors.New("socket is in use by another agent")

// listenUnix makes the socket, and its directory if there is none.
func listenUnix(ctx context.Context, cfg Config) (*unixsock.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of the socket: %w", err)
	}
	l, err := unixsock.Listen(ctx, cfg.Socket, cfg.socketMode(), cfg.Group)
	if errors.Is(err, unixsock.ErrInUse) {
		return nil, fmt.Errorf("%s: %w: stop that agent, or use another --socket", cfg.Socket, ErrInUse)
	}
	return l, err
}
