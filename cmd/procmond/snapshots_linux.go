package main

import (
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect/portable"
	"daemoneye.dev/procmond/collect/procfs"
	"daemoneye.dev/procmond/supervisor/control"
)

// openSnapshots returns the source that the settings ask for.
func openSnapshots(v *settings.Values) (snapshotSource, error) {
	if v.Snapshots == settings.SnapshotsPortable {
		scanner, err := portable.New(portable.Config{})
		return asPortable(scanner, err)
	}
	scanner, err := procfs.New(procfs.Config{Enhanced: v.EnhancedMetadata, Env: v.EnvAllow})
	if err != nil {
		return snapshotSource{}, err
	}
	sources := control.Sources{Snapshots: settings.SnapshotsProcfs, RSSKind: scanner.RSSKind().String()}
	source := snapshotSource{scanner: scanner, sources: sources}
	if v.EnhancedMetadata {
		if source.groups, err = procfs.NewGroups(""); err != nil {
			return snapshotSource{}, err
		}
	}
	return source, nil
}
