package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"daemoneye.dev/procmond/bus/unixsock"
)

// ErrInUse says that another process answers on the control socket.
var ErrInUse = errors.New("control socket is in use")

// listen makes the control socket.
func listen(ctx context.Context, path string) (*unixsock.Listener, error) {
	if err := prepareDir(path); err != nil {
		return nil, err
	}
	l, err := unixsock.Listen(ctx, path, 0o600, unixsock.NoGroup)
	switch {
	case errors.Is(err, unixsock.ErrInUse):
		return nil, fmt.Errorf("%s: %w: stop the other daemon, or use another --database", path, ErrInUse)
	case err != nil:
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	return l, nil
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
