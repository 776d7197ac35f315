package supervisor

import (
	"os"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

// State puts the present state together from what the parts publish. It does no
// I/O and waits for nobody who does.
func (s *Supervisor) State() *control.State {
	now := time.Now()
	f := s.facts(now)
	health := judge(f)
	transitions, _, _ := s.journal.transitions()
	return &control.State{
		Mode:         s.mode(),
		Running:      true,
		Health:       health.Level.String(),
		Reasons:      orEmpty(health.Reasons),
		PID:          os.Getpid(),
		Version:      s.cfg.Version,
		Coordinated:  f.collect.Coordinated,
		HostID:       s.cfg.Host.HostID,
		BootID:       s.cfg.Host.BootID,
		StartedAt:    control.At(s.started),
		AsOf:         control.At(now),
		Collector:    collectorState(f.machine, f.collect, now),
		Registration: s.registrationState(f.registration),
		Config:       control.ConfigState{Version: f.collect.ConfigVersion, Pending: orEmpty(f.collect.Pending)},
		Sources:      sourcesState(s.cfg.Sources, f.events),
		Interval:     intervalState(f.collect.Interval),
		Cycle:        cycleState(f.collect),
		Totals:       s.totalsState(f.collect.Totals),
		Hashes:       hashState(f.hashes),
		Store:        storeState(f.store),
		Services:     serviceStates(f.services),
		Loss:         lossStates(f.store.Losses),
		Transitions:  transitionStates(transitions),
		Link:         f.link,
		Delivery:     f.delivery,
		Pressure:     f.pressure,
		RPC:          s.link.operations(),
	}
}

const (
	modeStandalone  = "standalone"
	modeCoordinated = "coordinated"
)

func (s *Supervisor) mode() string {
	if s.cfg.Broker != nil {
		return modeCoordinated
	}
	return modeStandalone
}

func (s *Supervisor) facts(now time.Time) facts {
	return facts{
		now:      now,
		services: s.tree.Services(),
		store:    s.cfg.Store.Stats(),
		collect:  s.mailbox.Status(),
		machine:  s.machine.Snapshot(),
		hashes:   s.hashStats(),
		unserved: s.control.Unserved(),
		stopping: s.stopping.Load(),
		events:   s.eventsStatus(),

		registration: s.registration.Snapshot(),
		link:         s.link.state(),
		delivery:     s.link.deliveryState(now),
		pressure:     s.link.pressureState(),
	}
}

// eventsStatus is that of no source if there is none.
func (s *Supervisor) eventsStatus() kernel.Status {
	if s.cfg.Events == nil {
		return kernel.Status{Mode: kernel.ModeOff, Source: kernel.SourceNone}
	}
	return s.cfg.Events.Status()
}

func sourcesState(s control.Sources, events kernel.Status) control.Sources {
	s.Events, s.EventsSince = events.Source, control.At(events.Since)
	s.EventsWanted, s.EventsNote, s.EventsMend = string(events.Mode), events.Why, events.Mend
	s.EventsLimits = events.Limits
	return s
}

func collectorState(m fsm.Snapshot, c collect.Status, now time.Time) control.Collector {
	return control.Collector{
		State:      m.State,
		Since:      control.At(m.Since),
		Cause:      m.Cause,
		Activity:   c.Activity,
		ActivityMS: since(now, c.ActivitySince).Milliseconds(),
		LastError:  c.LastError,
		TableSize:  c.TableSize,
		Waiting:    c.Waiting,
	}
}

func intervalState(i collect.Interval) control.Interval {
	return control.Interval{ConfiguredS: i.Configured.Seconds(), CurrentS: i.Current.Seconds(), Reason: i.Why()}
}

func cycleState(c collect.Status) control.Cycle {
	return control.Cycle{
		Count:       c.Cycle.Count,
		LastAt:      control.At(c.Cycle.LastAt),
		DurationMS:  float64(c.Cycle.Duration) / float64(time.Millisecond),
		Processes:   c.Cycle.Processes,
		Events:      c.Cycle.Events,
		LeftOut:     c.Cycle.LeftOut,
		Excluded:    c.Cycle.Excluded,
		Held:        c.Held,
		Vanished:    c.Cycle.Vanished,
		Hidden:      c.Cycle.Hidden,
		Unreadable:  c.Cycle.Unreadable,
		Unconfirmed: c.Cycle.Unconfirmed,
	}
}

func (s *Supervisor) totalsState(t collect.Totals) control.Totals {
	totals := control.Totals{
		Events:      t.Events,
		ScansFailed: t.ScansFailed,
		ShortLived:  t.ShortLived,
		Outages:     t.Outages,
		NotesLost:   t.NotesLost,

		KernelEvents:          t.Heard,
		KernelEventsUnmatched: t.Unmatched,
		KernelEventsLost: control.LostEvents{
			Forks: t.Lost.Forks, Execs: t.Lost.Execs, Exits: t.Lost.Exits, Other: t.Lost.Other,
		},
		LossWindows: t.LossWindows,
	}
	if s.cfg.LogLinesLost != nil {
		totals.LogLinesLost = s.cfg.LogLinesLost()
	}
	return totals
}

// hashStats is nil if there is no hasher.
func (s *Supervisor) hashStats() *hash.Stats {
	if s.hasher == nil {
		return nil
	}
	stats := s.hasher.Stats()
	return &stats
}

func hashState(s *hash.Stats) *control.Hashes {
	if s == nil {
		return nil
	}
	state := &control.Hashes{
		Hashed: s.Hashed, Bytes: s.Bytes, Hits: s.Hits, Misses: s.Misses, Skipped: s.Skipped, Deferred: s.Deferred,
		Cached: s.Cached, Waiting: s.Waiting, Stuck: s.Stuck, Suspended: s.Suspended,
		Skips: make([]control.HashSkip, 0, len(s.Skips)),
	}
	for _, skip := range s.Skips {
		state.Skips = append(state.Skips, control.HashSkip{Reason: skip.Reason, Count: skip.Count})
	}
	return state
}

func storeState(s store.Stats) control.Store {
	return control.Store{
		Path:          s.Path,
		InService:     s.InService,
		Reason:        s.Reason,
		Since:         control.At(s.Since),
		Epoch:         epochText(s.Epoch),
		Head:          s.Head,
		Floor:         s.Floor,
		Kept:          s.Kept,
		Cursor:        s.Cursor,
		BacklogEvents: s.BacklogEvents,
		BacklogBytes:  s.BacklogBytes,
		BacklogBudget: s.BacklogBudget,
		Shed:          s.Shed,
		Sheds:         s.Sheds,
		Bytes:         s.Bytes,
		Appends:       s.Appends,
		Syncs:         s.Syncs,
		Removed:       s.Removed,
		Reopens:       s.Reopens,
		QuarantinedTo: s.QuarantinedTo,
		QuarantinedAt: control.At(s.QuarantinedAt),
		RewoundTo:     s.RewoundTo,
		RewoundAt:     control.At(s.RewoundAt),
	}
}

// epochText is empty for the epoch of a store that was not opened yet.
func epochText(e event.Epoch) string {
	if e.IsZero() {
		return ""
	}
	return e.String()
}

func serviceStates(services []tree.Status) []control.Service {
	states := make([]control.Service, 0, len(services))
	for _, s := range services {
		states = append(states, control.Service{
			Path:         s.Path,
			State:        string(s.State),
			Since:        control.At(s.Since),
			Restarts:     s.Restarts,
			Panics:       s.Panics,
			LastError:    s.LastError,
			LastErrorAt:  control.At(s.LastErrorAt),
			LastPanic:    s.LastPanic,
			BackoffUntil: control.At(s.BackoffUntil),
			Activity:     s.Activity,
			BeatAgeMS:    s.BeatAge.Milliseconds(),
		})
	}
	return states
}

func lossStates(totals []store.LossTotal) []control.Loss {
	losses := make([]control.Loss, 0, len(totals))
	for _, t := range totals {
		losses = append(losses, control.Loss{Cause: t.Cause.String(), Count: t.Events, Missing: t.Count})
	}
	return losses
}

func transitionStates(ts []store.Transition) []control.Transition {
	states := make([]control.Transition, 0, len(ts))
	for _, t := range ts {
		states = append(states, control.Transition{Machine: t.Machine, From: t.From, To: t.To, Event: t.Event, Cause: t.Cause, At: t.At})
	}
	return states
}

// orEmpty makes JSON show [] for nothing.
func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// since is how long ago t was, 0 for the zero time.
func since(now, t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return now.Sub(t)
}
