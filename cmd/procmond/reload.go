package main

import (
	"context"
	"time"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/supervisor"
)

// reloadDeadline bounds how long the collector may take to answer.
const reloadDeadline = 10 * time.Second

// reload reads the configuration again. All or nothing: a fault leaves what is
// running alone, and every one is logged.
func (d *daemonRun) reload(s *supervisor.Supervisor) {
	d.notifier.Reloading()
	defer d.notifier.Reloaded()
	next, faults, warnings := settings.Resolve(d.input)
	for _, warning := range warnings {
		d.log.Warn(warning)
	}
	if len(faults) > 0 {
		d.logFaults(faults)
		return
	}
	if s == nil {
		d.log.Warn("The configuration can not be read again before the store is open")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadDeadline)
	defer cancel()
	result, err := s.Reload(ctx, collect.Update{Values: settings.Hot(&next)})
	if err != nil {
		d.log.WithError(err).Error("The new configuration was refused; the running one stays")
		return
	}
	d.takeOver(next)
	d.log.WithField("config_version", result.Version).Info("The configuration was read again")
}
