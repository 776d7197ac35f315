//go:build !linux

package main

import (
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/portable"
)

// openSnapshots returns the only source that there is here, and its name.
func openSnapshots(string) (collect.Scanner, string, error) {
	scanner, err := portable.New(portable.Config{})
	return scanner, settings.SnapshotsPortable, err
}
