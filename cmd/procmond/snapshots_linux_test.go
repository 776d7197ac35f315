package main

import "testing"

// TestSnapshotSources runs the daemon with each source and looks for itself in what
// it recorded.
func TestSnapshotSources(t *testing.T) {
	for setting, want := range map[string]string{"auto": "procfs", "procfs": "procfs", "portable": "portable"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			database := newDatabase(t)
			d := startDaemon(t, database, "--interval", "5", "--snapshots", setting)
			d.awaitCycle(1)
			doc, _ := readState(t, database)
			if doc.Sources.Snapshots != want {
				t.Errorf("source %q, want %q", doc.Sources.Snapshots, want)
			}
		})
	}
}
