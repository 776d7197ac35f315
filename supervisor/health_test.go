package supervisor

import (
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

// linked spoils facts of a daemon with an agent.
func linked(spoil func(f *facts)) func(*facts) {
	return func(f *facts) {
		f.registration = fsm.Snapshot{State: string(fsm.RegistrationRegistered)}
		f.link = &control.Link{Control: control.Connection{State: connected}}
		spoil(f)
	}
}

func failing(since time.Time) *control.Delivery {
	return &control.Delivery{State: "resuming", FailingSince: &since, LastError: "no luck"}
}

func TestHealth(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	well := facts{now: now, store: store.Stats{InService: true}, machine: fsm.Snapshot{State: string(fsm.CollectorRunning)}}
	tests := map[string]struct {
		spoil   func(f *facts)
		level   Level
		reasons []string // what each must contain
	}{
		"well": {func(*facts) {}, LevelHealthy, nil},
		"full disk": {func(f *facts) {
			f.store = store.Stats{Full: true, Since: now, Reason: "no space left"}
			f.collect = collect.Status{OutOfServiceSince: now, LastError: "no space left"}
		}, LevelDegraded, []string{"takes nothing since 2026-03-04 05:06:07: no space left"}},
		"broken store": {func(f *facts) {
			f.store = store.Stats{Since: now, Reason: "input/output error"}
			f.collect = collect.Status{OutOfServiceSince: now, LastError: "input/output error"}
		}, LevelUnhealthy, []string{"out of service since 2026-03-04 05:06:07: input/output error"}},
		"store is back, the collector not yet": {func(f *facts) {
			f.collect = collect.Status{OutOfServiceSince: now}
		}, LevelDegraded, []string{"waits for the store"}},
		"damaged store yesterday": {func(f *facts) {
			f.store.QuarantinedTo, f.store.QuarantinedAt = "aside", now.Add(-quarantineWarning+time.Second)
		}, LevelDegraded, []string{"aside"}},
		"damaged store long ago": {func(f *facts) {
			f.store.QuarantinedTo, f.store.QuarantinedAt = "aside", now.Add(-quarantineWarning)
		}, LevelHealthy, nil},
		"no hashes": {func(f *facts) { f.hashes = &hash.Stats{Stuck: 4, Suspended: true} }, LevelDegraded, []string{"4 calls to executables have not returned"}},
		"hashes":    {func(f *facts) { f.hashes = &hash.Stats{Stuck: 1} }, LevelHealthy, nil},
		"clock":     {func(f *facts) { f.store.RetentionPaused = true }, LevelDegraded, []string{"wall clock jumped"}},
		"metrics":   {func(f *facts) { f.unserved = "address in use" }, LevelDegraded, []string{"Metrics can not be served: address in use."}},
		"hung": {func(f *facts) {
			f.services = []tree.Status{{Path: "a/b", State: tree.StateHung, BeatAge: 90 * time.Second, Activity: "scan"}}
		}, LevelUnhealthy, []string{"a/b has made no progress for 1m30s, in scan"}},
		"failing": {func(f *facts) {
			f.services = []tree.Status{{Path: "a/b", State: tree.StateBackoff, BackoffUntil: now, LastError: "no luck"}}
		}, LevelDegraded, []string{"a/b keeps failing and rests until 2026-03-04 05:06:07: no luck"}},
		"gone": {func(f *facts) {
			f.services = []tree.Status{{Path: "a/b", State: tree.StateDone}}
		}, LevelDegraded, []string{"a/b does not run"}},
		"about to start": {func(f *facts) {
			f.services = []tree.Status{{Path: "a/b", State: tree.StateStopped, Since: now}}
		}, LevelHealthy, nil},
		"stopped": {func(f *facts) {
			f.services = []tree.Status{{Path: "a/b", State: tree.StateStopped, Since: now.Add(-startGrace)}}
		}, LevelDegraded, []string{"a/b does not run"}},
		"gone because of the stop": {func(f *facts) {
			f.stopping, f.services = true, []tree.Status{{Path: "a/b", State: tree.StateDone}}
		}, LevelHealthy, nil},
		"stopped collector": {func(f *facts) {
			f.machine = fsm.Snapshot{State: string(fsm.CollectorStopped), Cause: "asked to"}
		}, LevelUnhealthy, []string{"asked to"}},
		"the collector's own": {func(f *facts) {
			f.collect = collect.Status{Degraded: []string{"One.", "Two."}}
		}, LevelDegraded, []string{"One.", "Two."}},
		"waits for its agent": {linked(func(f *facts) {
			f.machine = fsm.Snapshot{State: string(fsm.CollectorWaitingForAgent), Since: now}
		}), LevelDegraded, []string{"waits for the agent since 2026-03-04 05:06:07"}},
		"refused by its agent": {linked(func(f *facts) {
			f.registration = fsm.Snapshot{State: string(fsm.RegistrationFailed), Since: now, Cause: "rejected: the id is taken"}
		}), LevelDegraded, []string{"Registration failed at 2026-03-04 05:06:07: rejected: the id is taken."}},
		"registers": {linked(func(f *facts) {
			f.registration = fsm.Snapshot{State: string(fsm.RegistrationUnregistered), Since: now.Add(-registrationGrace)}
		}), LevelHealthy, nil},
		"no agent": {linked(func(f *facts) {
			f.registration = fsm.Snapshot{State: string(fsm.RegistrationUnregistered), Since: now.Add(-registrationGrace - 1)}
			f.link.Control = control.Connection{State: "reconnecting", LastError: "no such file"}
		}), LevelDegraded, []string{"No agent has this collector registered since 2026-03-04 05:05:36: no such file. Events wait in the store."}},
		"pressure": {linked(func(f *facts) {
			f.pressure = control.Pressure{On: true, Since: &now, Cause: "The agent's stream is full."}
		}), LevelDegraded, []string{"less often since 2026-03-04 05:06:07: The agent's stream is full."}},
		"delivery failed a moment ago": {linked(func(f *facts) { f.delivery = failing(now.Add(-deliveryGrace)) }), LevelHealthy, nil},
		"delivery fails": {
			linked(func(f *facts) { f.delivery = failing(now.Add(-deliveryGrace - 1)) }),
			LevelDegraded,
			[]string{"can not be delivered since 2026-03-04 05:06:01: no luck."},
		},
		"it all ends": {linked(func(f *facts) {
			f.stopping, f.pressure.On, f.delivery = true, true, failing(time.Time{})
		}), LevelHealthy, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := well
			tt.spoil(&f)
			h := judge(f)
			if h.Level != tt.level || len(h.Reasons) != len(tt.reasons) {
				t.Fatalf("%v: %q, want %v: %q", h.Level, h.Reasons, tt.level, tt.reasons)
			}
			for i, want := range tt.reasons {
				if !strings.Contains(h.Reasons[i], want) {
					t.Errorf("%q lacks %q", h.Reasons[i], want)
				}
			}
		})
	}
}
