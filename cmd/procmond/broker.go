package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"daemoneye.dev/procmond/supervisor"
)

// longestSocketPath is what every supported system takes for a Unix socket: 104
// bytes on macOS, 108 on Linux, one of them for the end.
const longestSocketPath = 103

// brokerSocket checks the socket that the environment names; empty is standalone
// mode. That nobody listens there yet is no fault.
func brokerSocket(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if strings.ContainsRune(path, 0) || strings.Contains(path, "://") {
		return "", errors.New("want the path of a Unix socket")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the broker's socket: %w", err)
	}
	if len(path) > longestSocketPath {
		return "", fmt.Errorf("the path of a socket has at most %d bytes, this one has %d", longestSocketPath, len(path))
	}
	return path, nil
}

// brokerConfig is nil in standalone mode.
func (d *daemonRun) brokerConfig() *supervisor.Broker {
	if d.broker == "" {
		return nil
	}
	return &supervisor.Broker{Socket: d.broker, ID: d.values.ID, BeginTimeout: d.values.BeginTimeout}
}

func (d *daemonRun) mode() string {
	if d.broker == "" {
		return "standalone"
	}
	return modeCoordinated
}
