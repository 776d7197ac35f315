package supervisor

import (
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

// quarantineWarning is how long a store that was set aside keeps health
// degraded.
const quarantineWarning = 24 * time.Hour

// startGrace is how long a service may take from being added to running.
const startGrace = 5 * time.Second

// Level is how well the daemon is. Higher is worse.
type Level int

// The levels.
const (
	LevelHealthy Level = iota
	LevelDegraded
	LevelUnhealthy
)

func (l Level) String() string {
	return [...]string{"healthy", "degraded", "unhealthy"}[l]
}

// Health is a level with its reasons, each a sentence.
type Health struct {
	Level   Level
	Reasons []string
}

func (h *Health) add(l Level, format string, args ...any) {
	h.Level = max(h.Level, l)
	h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
}

// facts is what health is judged by.
type facts struct {
	now      time.Time
	services []tree.Status
	store    store.Stats
	collect  collect.Status
	machine  fsm.Snapshot
	hashes   *hash.Stats // nil if there is no hasher
	events   kernel.Status
	unserved string // why metrics are not served
	stopping bool

	registration fsm.Snapshot
	link         *control.Link     // nil in standalone mode, like delivery
	delivery     *control.Delivery //
	pressure     control.Pressure
}

// judge names every reason why the daemon is not healthy.
func judge(f facts) Health {
	var h Health
	judgeStore(&h, f)
	judgeServices(&h, f)
	judgeCollector(&h, f)
	judgeLink(&h, f)
	if f.unserved != "" {
		h.add(LevelDegraded, "Metrics can not be served: %s.", f.unserved)
	}
	return h
}

func judgeStore(h *Health, f facts) {
	switch {
	case f.store.InService:
	case f.store.Full:
		h.add(LevelDegraded, "The store takes nothing since %s: %s. What it has is safe, and it goes on by itself when there is room.",
			clock(f.store.Since), f.store.Reason)
	default:
		h.add(LevelUnhealthy, "The store is out of service since %s: %s.", clock(f.store.Since), f.store.Reason)
	}
	if f.store.QuarantinedTo != "" && f.now.Sub(f.store.QuarantinedAt) < quarantineWarning {
		h.add(LevelDegraded, "A damaged store was set aside at %s: see %s.", clock(f.store.QuarantinedAt), f.store.QuarantinedTo)
	}
	if f.store.RewoundTo != "" && f.now.Sub(f.store.RewoundAt) < quarantineWarning {
		h.add(LevelDegraded, "The store was an older copy of itself and began a new epoch at %s: see %s.", clock(f.store.RewoundAt), f.store.RewoundTo)
	}
	if f.store.RetentionPaused {
		h.add(LevelDegraded, "The wall clock jumped, so retention waits before it removes anything.")
	}
}

func judgeServices(h *Health, f facts) {
	for _, s := range f.services {
		switch s.State {
		case tree.StateHung:
			h.add(LevelUnhealthy, "Service %s has made no progress for %s, in %s.", s.Path, round(s.BeatAge), orUnknown(s.Activity))
		case tree.StateBackoff:
			h.add(LevelDegraded, "Service %s keeps failing and rests until %s: %s.", s.Path, clock(s.BackoffUntil), s.LastError)
		case tree.StateStopped, tree.StateDone:
			starting := s.State == tree.StateStopped && f.now.Sub(s.Since) < startGrace
			if !f.stopping && !starting {
				h.add(LevelDegraded, "Service %s does not run.", s.Path)
			}
		}
	}
}

func judgeCollector(h *Health, f facts) {
	if f.machine.State == string(fsm.CollectorStopped) && !f.stopping {
		h.add(LevelUnhealthy, "The collector has stopped: %s.", f.machine.Cause)
	}
	if outage := f.collect.OutOfServiceSince; !outage.IsZero() && f.store.InService {
		h.add(LevelDegraded, "The collector waits for the store since %s.", clock(outage))
	}
	if f.hashes != nil && f.hashes.Suspended {
		h.add(LevelDegraded, "No hashes are computed: %d calls to executables have not returned, because a file system does not answer.", f.hashes.Stuck)
	}
	if f.events.Faulty {
		h.add(LevelDegraded, "There are no kernel events, though event_driven asks for %s: %s.", f.events.Mode, f.events.Why)
	}
	for _, reason := range f.collect.Degraded {
		h.add(LevelDegraded, "%s", reason)
	}
}

// registrationGrace is how long a daemon may be without its agent before that is
// worth a word: agents are restarted, and then it registers again by itself.
const registrationGrace = 30 * time.Second

// deliveryGrace is how long delivery may fail: an agent that starts has a broker before
// it answers.
const deliveryGrace = 5 * time.Second

// judgeLink says what of coordinated mode is not as it should be.
func judgeLink(h *Health, f facts) {
	if f.link == nil || f.stopping {
		return
	}
	if f.machine.State == string(fsm.CollectorWaitingForAgent) {
		h.add(LevelDegraded, "Monitoring has not begun: it waits for the agent since %s.", clock(f.machine.Since))
	}
	switch registered := f.registration.State == string(fsm.RegistrationRegistered); {
	case f.registration.State == string(fsm.RegistrationFailed):
		h.add(LevelDegraded, "Registration failed at %s: %s. It is tried again every minute.", clock(f.registration.Since), f.registration.Cause)
	case !registered && f.now.Sub(f.registration.Since) > registrationGrace:
		h.add(LevelDegraded, "No agent has this collector registered since %s%s. Events wait in the store.", clock(f.registration.Since), whyNot(f.link))
	}
	if f.pressure.On {
		h.add(LevelDegraded, "Snapshots are taken less often since %s: %s", clock(orZero(f.pressure.Since)), f.pressure.Cause)
	}
	if d := f.delivery; d != nil && d.FailingSince != nil && f.now.Sub(*d.FailingSince) > deliveryGrace {
		h.add(LevelDegraded, "Events can not be delivered since %s: %s.", clock(*d.FailingSince), d.LastError)
	}
}

// whyNot is what keeps the control connection down.
func whyNot(l *control.Link) string {
	if l.Control.State == connected || l.Control.LastError == "" {
		return ""
	}
	return ": " + l.Control.LastError
}

// orZero is the moment, or the zero time.
func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

func round(d time.Duration) time.Duration { return d.Round(time.Second) }

func orUnknown(s string) string {
	if s == "" {
		return "an unknown place"
	}
	return s
}
