//go:build !linux

package kernel

import "runtime"

// OpenConnector fails: only Linux has a process connector.
func OpenConnector(Config) (Source, error) {
	return nil, &Unavailable{Source: "connector", Reason: ReasonSystem, What: "there is no process connector on " + runtime.GOOS}
}
