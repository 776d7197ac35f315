package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/collect/portable"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor"
	"daemoneye.dev/procmond/supervisor/control"
)

// supervisorConfig connects the parts.
func (d *daemonRun) supervisorConfig(st *store.Store) (supervisor.Config, error) {
	host, err := d.host()
	if err != nil {
		return supervisor.Config{}, err
	}
	snapshots, err := d.newSnapshots()
	if err != nil {
		return supervisor.Config{}, fmt.Errorf("make scanner: %w", err)
	}
	collection, err := collectSettings(&d.values)
	if err != nil {
		return supervisor.Config{}, err
	}
	socket, err := control.SocketPath(d.database)
	if err != nil {
		return supervisor.Config{}, fmt.Errorf("find control socket: %w", err)
	}
	return supervisor.Config{
		Store: st, Events: d.listen(), Scanner: snapshots.scanner, Groups: snapshots.groups, Sources: snapshots.sources, Host: host, Settings: collection,
		Hashes: d.hashConfig(), Broker: d.brokerConfig(), Window: d.values.MaxEventsInFlight,
		SocketPath: socket, MetricsListen: d.values.MetricsListen, Version: readBuild().version,
		Watchdog: d.values.Watchdog, Abort: d.last.watchdog, Notify: d.notify,
		Services: d.services(st), Hot: d.hotKeys(), Restart: settings.ColdKeys(), Log: d.log, LogLinesLost: d.logQueue.Lost,
		Trim: d.trimMemory,
	}, nil
}

// listen is nil if nobody is to tell of processes between two snapshots.
func (d *daemonRun) listen() *kernel.Listener {
	mode := kernel.Mode(d.values.EventDriven)
	if mode == kernel.ModeOff {
		return nil
	}
	return kernel.Listen(mode, kernel.Config{RingBytes: int(d.values.EventBuffer), ReceiveBytes: int(d.values.EventBuffer)})
}

// snapshotSource is a scanner and what state says of it.
type snapshotSource struct {
	scanner collect.Scanner
	groups  collect.Groups // nil without enhanced metadata
	sources control.Sources
}

// newSnapshots returns the source of snapshots, and says in the log what it does not
// give though it was asked for.
func (d *daemonRun) newSnapshots() (source snapshotSource, err error) {
	if d.scanner != nil {
		source, err = asPortable(d.scanner())
	} else {
		source, err = openSnapshots(&d.values)
	}
	if err != nil {
		return snapshotSource{}, err
	}
	s := &source.sources
	switch {
	case !d.values.EnhancedMetadata:
		s.EnhancedMetadata = control.MetadataOff
	case s.Snapshots == settings.SnapshotsPortable:
		s.EnhancedMetadata = control.MetadataUnsupported
		d.log.Warn("enhanced-metadata has no effect: portable snapshots do not have it; on Linux those of procfs do")
	default:
		s.EnhancedMetadata = control.MetadataOn
		if s.RSSKind != event.RSSExact.String() {
			d.log.Info("This kernel has no exact resident size to read (Linux 6.16 has): the memory of processes is approximate")
		}
	}
	return source, nil
}

// asPortable is the source that every platform has.
func asPortable(scanner collect.Scanner, err error) (snapshotSource, error) {
	return snapshotSource{
		scanner: scanner,
		sources: control.Sources{Snapshots: settings.SnapshotsPortable, RSSKind: event.RSSApproximate.String()},
	}, err
}

// hashConfig is nil if no hashes are wanted.
func (d *daemonRun) hashConfig() *hash.Config {
	if !d.values.ComputeHashes {
		return nil
	}
	return &hash.Config{MaxSize: int64(d.values.HashMaxSize), Rate: int64(d.values.HashRate)}
}

// collectSettings are the collector's part of the settings.
func collectSettings(v *settings.Values) (collect.Settings, error) {
	scope, scopeErr := collect.ParseScope(v.Exclude)
	redactor, redactErr := event.NewRedactor(v.Redact)
	return collect.Settings{
		Interval: v.Interval, MinLifetime: v.MinProcessLifetime,
		MemoryThreshold: v.MemoryThreshold, CPUThreshold: v.CPUThreshold,
		MaxProcesses: v.MaxProcesses, Exclude: scope, Redactor: redactor,
	}, errors.Join(scopeErr, redactErr)
}

// hotKeys are those that belong to nobody but this package.
func (d *daemonRun) hotKeys() map[string]collect.HotKey {
	return map[string]collect.HotKey{
		"log_level": func(value string) (func(), error) {
			level, err := logrus.ParseLevel(value)
			return func() { d.logger.SetLevel(level) }, err
		},
	}
}

// host says who this host is in events.
func (d *daemonRun) host() (collect.Host, error) {
	facts, err := portable.ReadHost()
	if err != nil {
		return collect.Host{}, fmt.Errorf("read facts of this host: %w", err)
	}
	id := d.values.HostID
	if id == "" && facts.MachineID != "" {
		id = event.HostIDFromMachine(facts.MachineID)
	}
	if id == "" {
		if id, err = keptHostID(d.database + ".host-id"); err != nil {
			return collect.Host{}, err
		}
	}
	return collect.Host{HostID: id, BootID: facts.BootID, PIDNamespace: facts.PIDNamespace, BootTime: facts.BootTime}, nil
}

// keptHostID is the random id of a machine that has none of its own. It is kept
// beside the store, so that it outlives one that has to be set aside.
func keptHostID(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(text))
		if err := event.ValidHostID(id); err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read host id: %w", err)
	}
	id := event.RandomHostID()
	// Never half a file: what is there after a crash is whole or absent.
	if err := os.WriteFile(path+".new", []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep host id: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return "", fmt.Errorf("keep host id: %w", err)
	}
	return id, nil
}
