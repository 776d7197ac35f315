package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"daemoneye.dev/procmond/bus"
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/hash"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
	"daemoneye.dev/procmond/supervisor/tree"
)

// Groups of the tree.
const (
	groupCollection = "collection"
	groupDelivery   = "delivery"
	groupAdmin      = "admin"
)

// collectorPath is the collector's place in the tree.
const collectorPath = groupCollection + "/collector"

// build adds every service to the tree, in the order in which they are stopped.
func (s *Supervisor) build() error {
	var err error
	s.tree, err = tree.New(tree.Config{Log: s.cfg.Log, Deadline: s.cfg.Watchdog / 2})
	if err != nil {
		return err
	}
	if err := s.addCollector(); err != nil {
		return err
	}
	if err := s.addLink(); err != nil {
		return err
	}
	s.add(groupDelivery, s.cfg.Store, tree.Options{Deadline: unwatched})
	for _, service := range s.cfg.Services {
		s.add(groupAdmin, service, tree.Options{Deadline: unwatched})
	}
	if err := s.addControl(); err != nil {
		return err
	}
	watchdog := newWatchdog(s)
	s.add(groupAdmin, watchdog, tree.Options{Progress: watchdog.progress})
	return nil
}

// unwatched is the deadline of a service that has no progress to show while
// there is nothing to do. What the store writes is watched by its own commit
// deadline.
const unwatched = -1

// addLink adds what there is only in coordinated mode. Requests stop first: those
// who asked for the end are answered by then.
func (s *Supervisor) addLink() error {
	if s.cfg.Broker == nil {
		return nil
	}
	var err error
	if s.link, err = newLink(s); err != nil {
		return err
	}
	s.solitude = solitude{timeout: s.cfg.Broker.BeginTimeout, since: s.started}
	return errors.Join(s.link.addDelivery(), s.link.addControl())
}

// hotKeys are the caller's and the publisher's.
func (s *Supervisor) hotKeys() map[string]collect.HotKey {
	keys := map[string]collect.HotKey{keyWindow: func(value string) (func(), error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > bus.MaxWindow {
			return nil, fmt.Errorf("%q: want a whole number from 1 to %d", value, bus.MaxWindow)
		}
		return func() {
			if s.link != nil { // else there is nobody to send anything to
				_ = s.link.publisher.SetWindow(n) // it was checked
			}
		}, nil
	}}
	maps.Copy(keys, s.cfg.Hot)
	return keys
}

// keyWindow is the hot key of the publisher.
const keyWindow = "max_events_in_flight"

func (s *Supervisor) add(group string, service tree.Service, opts tree.Options) {
	path := group + "/" + service.String()
	if s.cfg.wrap != nil {
		service = s.cfg.wrap(path, service)
	}
	s.paths = append(s.paths, path)
	s.tree.Add(group, service, opts)
}

func (s *Supervisor) addCollector() error {
	progress := new(tree.Progress)
	addHasher, err := s.makeHasher()
	if err != nil {
		return err
	}
	collector, err := collect.New(collect.Config{
		Scanner:       s.cfg.Scanner,
		Sink:          s.cfg.Store,
		Loader:        s.cfg.Store,
		Machine:       s.machine,
		Mailbox:       s.mailbox,
		Host:          s.cfg.Host,
		Version:       s.cfg.Version,
		Settings:      s.cfg.Settings,
		Events:        s.collectEvents(),
		Groups:        s.cfg.Groups,
		Hasher:        s.collectHasher(),
		HasLink:       s.cfg.Broker != nil,
		IsUnavailable: func(err error) bool { return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrReplaced) },
		Available:     s.cfg.Store.Available(),
		Done:          tree.ErrDone,
		Hot:           s.hotKeys(),
		Restart:       s.cfg.Restart,
		OnTransition:  s.moved,
		Progress:      progress,
		ScanDeadline:  s.cfg.Watchdog / 2,
		Trim:          s.cfg.Trim,
		Log:           s.cfg.Log.WithField("service", "collector"),
	})
	if err != nil {
		return err
	}
	s.add(groupCollection, collector, tree.Options{Progress: progress})
	addHasher() // stopped later, so that the last cycle has it
	return nil
}

// collectEvents is nil, and not a nil listener, if nobody tells.
func (s *Supervisor) collectEvents() collect.Events {
	if s.cfg.Events == nil {
		return nil
	}
	return s.cfg.Events
}

// makeHasher makes the hasher, if one is wanted, and returns what adds it to the
// tree.
func (s *Supervisor) makeHasher() (add func(), err error) {
	if s.cfg.Hashes == nil {
		return func() {}, nil
	}
	progress := new(tree.Progress)
	cfg := *s.cfg.Hashes
	cfg.Progress, cfg.Log = progress, s.cfg.Log.WithField("service", "hasher")
	s.hasher, err = hash.New(cfg)
	return func() { s.add(groupCollection, s.hasher, tree.Options{Progress: progress}) }, err
}

// collectHasher is the hasher as the collector knows it.
func (s *Supervisor) collectHasher() collect.Hasher {
	if s.hasher == nil {
		return nil
	}
	return s.hasher
}

func (s *Supervisor) addControl() error {
	progress := new(tree.Progress)
	server, err := control.New(control.Config{
		Path:          s.cfg.SocketPath,
		Source:        s,
		Events:        storedEvents{s.cfg.Store},
		Processes:     storedEvents{s.cfg.Store},
		MetricsListen: s.cfg.MetricsListen,
		Progress:      progress,
		Log:           s.cfg.Log.WithField("service", "control"),
	})
	if err != nil {
		return err
	}
	s.control = server
	s.add(groupAdmin, server, tree.Options{Progress: progress})
	return nil
}

// storedEvents gives the control socket the store's events, in its words.
type storedEvents struct{ store *store.Store }

func (e storedEvents) Head() uint64 { return e.store.Head() }

func (e storedEvents) Epoch() event.Epoch { return e.store.Stats().Epoch }

func (e storedEvents) Wait(ctx context.Context, after uint64) (uint64, error) {
	head, err := e.store.Wait(ctx, event.Epoch{}, after)
	return head, inWordsOfControl(err)
}

func (e storedEvents) Query(ctx context.Context, q control.Query, fn func(*event.Event) error) error {
	return inWordsOfControl(e.store.Query(ctx, StoreQuery(q), fn))
}

func (e storedEvents) ProcessesAt(ctx context.Context, at time.Time, progress func(done, total uint64)) (*control.ProcessTable, error) {
	past, err := e.store.Past(ctx, at, progress)
	if err != nil {
		return nil, inWordsOfControl(err)
	}
	return ProcessTable(past), nil
}

// ProcessTable is a table of the past in the words of the control socket.
func ProcessTable(p *store.Past) *control.ProcessTable {
	t := &control.ProcessTable{At: p.At, AsOf: p.AsOf, Gaps: p.Gaps, Processes: make([]control.TableProcess, len(p.Lives))}
	for i := range p.Lives {
		l := &p.Lives[i]
		t.Processes[i] = control.TableProcess{Process: &l.Process, Doubts: doubts(l)}
	}
	return t
}

func doubts(l *store.Life) (all []control.Doubt) {
	if l.SeenLater {
		all = append(all, control.DoubtSeenLater)
	}
	if !l.LastSeen.IsZero() {
		all = append(all, control.DoubtMayHaveEnded)
	}
	if l.EndLost {
		all = append(all, control.DoubtEndLost)
	}
	return all
}

// StoreQuery is a query in the store's words.
func StoreQuery(q control.Query) store.Query {
	return store.Query{
		Since: q.Since, Until: q.Until,
		After: q.After, AfterEpoch: q.AfterEpoch,
		PIDs: q.PIDs, Process: q.Process, Exe: q.Exe, Kinds: q.Kinds,
		Limit: q.Limit, Newest: q.Newest,
	}
}

func inWordsOfControl(err error) error {
	var early *store.BeforeRecordError
	switch {
	case errors.As(err, &early):
		return &control.BeforeRecordError{Oldest: early.Oldest}
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrReplaced):
		return fmt.Errorf("%w: %w", control.ErrUnavailable, err)
	case errors.Is(err, store.ErrEpoch):
		return anotherEpoch{err}
	}
	return err
}

// anotherEpoch is [control.ErrEpoch] in the store's words alone, which say the same.
type anotherEpoch struct{ error }

func (e anotherEpoch) Unwrap() []error { return []error{e.error, control.ErrEpoch} }
