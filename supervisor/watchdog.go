package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/supervisor/tree"
)

const (
	// watchEvery is how often the watchdog looks. A second is soon enough to
	// name a hang and to be ready, and costs nothing to notice.
	watchEvery = time.Second
	// healthEventEvery is how often a change of health is recorded at most, so
	// that a health that flaps does not fill the store.
	healthEventEvery = 10 * time.Second
)

// watchdog judges the daemon: it computes health, proves progress to the
// service manager, and ends the process when a service hangs.
type watchdog struct {
	s        *Supervisor
	progress *tree.Progress

	looked   time.Time // when it last looked
	resumed  time.Time // when the process went on after a suspension; zero: never
	ready    bool
	status   string
	recorded Level     // last health written to the store
	at       time.Time // when
}

func newWatchdog(s *Supervisor) *watchdog {
	return &watchdog{s: s, progress: new(tree.Progress)}
}

func (w *watchdog) String() string { return "watchdog" }

// Serve looks once a second until ctx ends.
func (w *watchdog) Serve(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look judges once.
func (w *watchdog) look(ctx context.Context) {
	w.progress.Beat("watch")
	s := w.s
	w.noticeSuspension(time.Now())
	health := judge(s.facts(time.Now()))
	w.announce(health)
	s.link.tell(health)
	w.abortOnHang()
	// What touches the store comes last, and does not wait for it.
	ctx, cancel := context.WithTimeout(ctx, journalDeadline)
	defer cancel()
	s.journal.flush(ctx)
	w.record(ctx, health)
}

// noticeSuspension notes that the process did not run for a while (it was stopped,
// or its machine was): then a beat that is overdue says nothing, and each service
// gets its whole time again.
func (w *watchdog) noticeSuspension(now time.Time) {
	if !w.looked.IsZero() && now.Sub(w.looked) > suspension {
		w.resumed = now
	}
	w.looked = now
}

// suspension is a time between two looks that no loaded machine explains.
const suspension = 5 * watchEvery

// announce tells the service manager what changed, and that there is progress
// if that is proven: no service hangs.
func (w *watchdog) announce(h Health) {
	n := Notice{Alive: len(w.hung()) == 0}
	if !w.ready && w.s.ready() {
		w.ready, n.Ready = true, true
	}
	if status := w.s.statusLine(h); status != w.status {
		w.status, n.Status = status, status
	}
	w.s.notify(n)
}

// record writes a change of health into the stream of events: what happened to
// the sensor belongs to the history that it keeps.
func (w *watchdog) record(ctx context.Context, h Health) {
	epoch := w.s.mailbox.Status().Epoch
	if !w.ready || epoch.IsZero() || h.Level == w.recorded || time.Since(w.at) < healthEventEvery {
		return
	}
	now := time.Now()
	e := &event.Event{
		HostID: w.s.cfg.Host.HostID, BootID: w.s.cfg.Host.BootID,
		Kind: event.KindSensor, Source: event.SourceSensor,
		Time: now, Observed: now,
		Sensor: &event.Sensor{
			What:    event.SensorHealth,
			Detail:  strings.Join(append([]string{fmt.Sprintf("Health went from %s to %s.", w.recorded, h.Level)}, h.Reasons...), " "),
			Version: w.s.cfg.Version,
		},
	}
	event.Clip(e)
	err := w.s.cfg.Store.Append(ctx, &event.Batch{Epoch: epoch, Events: []*event.Event{e}})
	if err == nil { // else it is tried again: the store may be what is ill
		w.recorded, w.at = h.Level, now
	}
}

// abortOnHang ends the process when a service has shown no progress for the
// watchdog's whole time. In Go nothing can end a goroutine from outside.
func (w *watchdog) abortOnHang() {
	limit := w.s.cfg.Watchdog
	if limit == 0 {
		return
	}
	if !w.resumed.IsZero() && time.Since(w.resumed) < limit {
		return
	}
	for _, hung := range w.hung() {
		if hung.BeatAge >= limit {
			w.s.cfg.Abort(fmt.Sprintf("service %s has made no progress for %s, in %s",
				hung.Path, round(hung.BeatAge), orUnknown(hung.Activity)))
			return
		}
	}
}

// hung are the services without progress. A collector that waits for the store is
// none of them: the store watches its own writes, and a full disk ends nobody.
func (w *watchdog) hung() []tree.Status {
	waits := !w.s.cfg.Store.Stats().InService
	return slices.DeleteFunc(w.s.tree.Hung(), func(s tree.Status) bool { return waits && s.Path == collectorPath })
}

// ready reports whether the daemon does its job: the first snapshot is durable,
// or it waits for an agent.
func (s *Supervisor) ready() bool {
	return s.mailbox.Status().Cycle.Count > 0 || (s.cfg.Broker != nil && s.machine.State() == fsm.CollectorWaitingForAgent)
}

// statusLine is one line for the service manager.
func (s *Supervisor) statusLine(h Health) string {
	status := s.mailbox.Status()
	line := fmt.Sprintf("%s, %s: %d processes, %d events kept", h.Level, s.machine.State(), status.Cycle.Processes, s.cfg.Store.Stats().Kept)
	if len(h.Reasons) > 0 {
		line += "; " + h.Reasons[0]
	}
	return line
}

func (s *Supervisor) notify(n Notice) {
	if s.cfg.Notify != nil {
		s.cfg.Notify(n)
	}
}
