//go:build !linux

package main

import (
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect/portable"
)

// openSnapshots returns the only source that there is here.
func openSnapshots(*settings.Values) (snapshotSource, error) {
	scanner, err := portable.New(portable.Config{})
	return asPortable(scanner, err)
}
