package main

import (
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/portable"
	"daemoneye.dev/procmond/collect/procfs"
)

// openSnapshots returns the source that the setting asks for, and its name.
func openSnapshots(setting string) (collect.Scanner, string, error) {
	if setting == settings.SnapshotsPortable {
		scanner, err := portable.New(portable.Config{})
		return scanner, settings.SnapshotsPortable, err
	}
	scanner, err := procfs.New(procfs.Config{})
	return scanner, settings.SnapshotsProcfs, err
}
