package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"daemoneye.dev/procmond/fsm"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor/control"
)

// DeadState is the report on a database that no daemon serves: what its last run
// left. It changes nothing. If a process holds the store all the same, the report
// says that it does not respond. Errors are those of [store.Inspect] but
// [store.ErrLocked]; fs.ErrNotExist says that there is no store.
func DeadState(ctx context.Context, database string) (*control.State, error) {
	in, err := store.Inspect(ctx, database)
	var locked *store.LockedError
	if errors.As(err, &locked) {
		return SilentState(database, locked.PID), nil
	}
	if err != nil {
		return nil, err
	}
	return reportOf(in), nil
}

// SilentState is the report on a daemon that is there and does not answer.
func SilentState(database string, pid int) *control.State {
	s := blank(database)
	s.Running = true
	s.Health = control.HealthNotResponding
	s.PID = pid
	s.Reasons = []string{silence(pid)}
	return s
}

func silence(pid int) string {
	if pid == 0 {
		return "A process holds the store and does not answer on the control socket."
	}
	return fmt.Sprintf("Process %d holds the store and does not answer on the control socket.", pid)
}

// NoState is the report where there is no store at all.
func NoState(database string) *control.State {
	s := blank(database)
	s.Reasons = []string{"No daemon runs, and there is no store at " + database + "."}
	return s
}

// IsNoStore reports whether err says that there is no store.
func IsNoStore(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// reportOf is the report on a dead store.
func reportOf(in *store.Inspection) *control.State {
	s := blank(in.Stats.Path)
	s.BootID = in.BootID
	if in.Damage == "" { // else it can not be told
		s.Clean = &in.Clean
	}
	s.AsOf = control.At(latest(in.AsOf, in.CleanAt, in.LastEvent))
	s.Store = storeState(in.Stats)
	s.Store.Reason = in.Damage
	if in.Stats.Owed {
		s.Mode = modeCoordinated
	}
	s.Cycle.Processes = in.Processes
	s.Loss = lossStates(in.Stats.Losses)
	s.Transitions = transitionStates(in.Transitions)
	s.Reasons = []string{ending(in, s.AsOf)}
	for _, t := range in.Transitions {
		if t.Machine == fsm.NewCollector().Name() {
			s.Collector.State, s.Collector.Since, s.Collector.Cause = t.To, control.At(t.At), t.Cause
		}
	}
	return s
}

// ending says how the last run ended.
func ending(in *store.Inspection, asOf *time.Time) string {
	switch {
	case in.Damage != "":
		return "No daemon runs, and the store is damaged: the next start sets it aside. " + in.Damage + "."
	case in.Clean:
		return "No daemon runs. The last run ended in order at " + clock(in.CleanAt) + "."
	case asOf == nil:
		return "No daemon runs. The last run ended before it had written anything."
	default:
		return "No daemon runs. The last run ended without a clean stop, not before " + clock(*asOf) + "; all that it had accepted is in the store."
	}
}

func blank(database string) *control.State {
	return &control.State{
		Mode:         modeStandalone,
		Health:       control.HealthNotRunning,
		Reasons:      []string{},
		Registration: control.Registration{State: string(fsm.RegistrationUnregistered)},
		Config:       control.ConfigState{Pending: []string{}},
		Sources:      control.Sources{Events: "none"},
		Store:        control.Store{Path: database},
		Services:     []control.Service{},
		Loss:         []control.Loss{},
		Transitions:  []control.Transition{},
		RPC:          []control.Operation{},
	}
}

func latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
