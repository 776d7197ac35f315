package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/supervisor/tree"
)

const (
	groupAgent    = "agent"
	groupChildren = "children"
	// stopGrace is what a child's service may take beyond Timing.Stop: to kill, and
	// to reap.
	stopGrace = 5 * time.Second
	// watchEvery is the time between two looks for services that hang.
	watchEvery = time.Second
)

// Service is one that is run with the agent's own, with what the tree has to know of
// it. Zero options stand for the agent's defaults.
type Service struct {
	Group string
	tree.Service
	Options tree.Options
}

// Run runs services that the agent stands on (the broker), its own, and watchers of
// it, until ctx ends, and stops them in order: the watchers, the children, the
// agent's own, and the base from its last to its first; see the package's
// documentation. The error names services that did not stop in time. It is called
// once.
func (a *Agent) Run(ctx context.Context, base []Service, watchers ...Service) error {
	t, err := tree.New(tree.Config{Log: a.log, Deadline: a.cfg.Timing.Watchdog})
	if err != nil {
		return fmt.Errorf("run agent: %w", err)
	}
	basePaths, ownPaths, watcherPaths := add(t, base), add(t, a.ownServices()), add(t, watchers)
	children := add(t, a.childServices())
	a.tree.Store(t)
	t.Start(ctx)
	a.watch(ctx, t)
	a.fire(fsm.AgentShutdown, "asked to stop")
	return errors.Join(stopEach(t, watcherPaths), stopAll(t, children), stopEach(t, ownPaths), stopEach(t, basePaths), t.Close(0))
}

// add adds services, and returns their paths.
func add(t *tree.Tree, services []Service) []string {
	var paths []string
	for _, s := range services {
		t.Add(s.Group, s, s.Options)
		paths = append(paths, s.Group+"/"+s.String())
	}
	return paths
}

func (a *Agent) childServices() []Service {
	var all []Service
	for _, c := range a.children {
		all = append(all, Service{groupChildren, c, tree.Options{Progress: c.progress, Timeout: a.cfg.Timing.Stop + stopGrace}})
	}
	return all
}

func (a *Agent) ownServices() []Service {
	progress := func() *tree.Progress { return new(tree.Progress) }
	var (
		registrations = &registration{a, progress()}
		beats         = &heartbeats{a, progress()}
		coordinates   = &coordination{a, progress()}
		answers       = &requests{a, progress()}
	)
	// In the reverse of the order in which they are stopped: who leaves is heard to
	// the end.
	return []Service{
		{groupAgent, registrations, tree.Options{Progress: registrations.progress}},
		{groupAgent, beats, tree.Options{Progress: beats.progress}},
		{groupAgent, coordinates, tree.Options{Progress: coordinates.progress}},
		{groupAgent, answers, tree.Options{Progress: answers.progress}},
	}
}

// watch waits for the end of ctx, and ends the process if a service hangs.
func (a *Agent) watch(ctx context.Context, t *tree.Tree) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if hung := t.Hung(); len(hung) > 0 {
				a.cfg.Abort(hungText(hung))
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func hungText(hung []tree.Status) string {
	var parts []string
	for _, s := range hung {
		parts = append(parts, fmt.Sprintf("%s (last activity: %s, %s ago)", s.Path, s.Activity, s.BeatAge.Round(time.Second)))
	}
	return "no progress of " + strings.Join(parts, "; ")
}

// stopEach stops services one after the other, the last first.
func stopEach(t *tree.Tree, paths []string) error {
	var faults []error
	for _, path := range slices.Backward(paths) {
		faults = append(faults, t.Stop(path, 0))
	}
	return errors.Join(faults...)
}

// stopAll stops services at the same time.
func stopAll(t *tree.Tree, paths []string) error {
	faults := make([]error, len(paths))
	var stopping sync.WaitGroup
	for i, path := range paths {
		stopping.Go(func() { faults[i] = t.Stop(path, 0) })
	}
	stopping.Wait()
	return errors.Join(faults...)
}
