package fsm

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/looplab/fsm"
)

// rule says that on leads from each state of from to the state to.
type rule[S, E ~string] struct {
	on   E
	from []S
	to   S
}

// definition is a machine on paper. States and events are declared apart from
// the rules, so that a slip in a rule is found instead of making a new state.
type definition[S, E ~string] struct {
	name   string
	states []S // the first is the initial one
	events []E
	rules  []rule[S, E]
}

// New makes a machine in its first state. The error names every fault of the
// definition: names that are missing, declared twice or not at all, events
// without a rule, two rules for one event in one state, states out of reach.
func (d definition[S, E]) New() (*Machine[S, E], error) {
	if err := d.validate(); err != nil {
		return nil, fmt.Errorf("define machine %s: %w", d.name, err)
	}
	return &Machine[S, E]{
		name:    d.name,
		events:  slices.Clone(d.events),
		machine: d.library(),
		since:   time.Now(),
		cause:   CauseInitial,
	}, nil
}

// mustNew is for the definitions of this package, which its tests build.
func (d definition[S, E]) mustNew() *Machine[S, E] {
	m, err := d.New()
	if err != nil {
		panic(err)
	}
	return m
}

// library is the definition as looplab/fsm wants it, in the first state.
func (d definition[S, E]) library() *fsm.FSM {
	var events fsm.Events
	for _, r := range d.rules {
		from := make([]string, len(r.from))
		for i, s := range r.from {
			from[i] = string(s)
		}
		events = append(events, fsm.EventDesc{Name: string(r.on), Src: from, Dst: string(r.to)})
	}
	return fsm.NewFSM(string(d.states[0]), events, nil)
}

func (d definition[S, E]) validate() error {
	var faults []error
	if d.name == "" {
		faults = append(faults, errors.New("no name"))
	}
	if len(d.states) == 0 {
		faults = append(faults, errors.New("no states"))
	}
	faults = append(faults, checkNames("state", d.states)...)
	faults = append(faults, checkNames("event", d.events)...)
	faults = append(faults, d.checkRules()...)
	faults = append(faults, d.checkUse()...)
	return errors.Join(faults...)
}

func checkNames[N ~string](what string, names []N) (faults []error) {
	for i, n := range names {
		if n == "" {
			faults = append(faults, fmt.Errorf("%s %d has no name", what, i))
		}
		if slices.Contains(names[:i], n) {
			faults = append(faults, fmt.Errorf("%s %q is declared twice", what, n))
		}
	}
	return faults
}

// checkRules looks for undeclared names, and for rules that contradict.
func (d definition[S, E]) checkRules() (faults []error) {
	type pair struct {
		on   E
		from S
	}
	seen := map[pair]bool{}
	for _, r := range d.rules {
		if !slices.Contains(d.events, r.on) {
			faults = append(faults, fmt.Errorf("rule for unknown event %q", r.on))
		}
		if len(r.from) == 0 {
			faults = append(faults, fmt.Errorf("rule for %q starts nowhere", r.on))
		}
		for _, s := range append(slices.Clone(r.from), r.to) {
			if !slices.Contains(d.states, s) {
				faults = append(faults, fmt.Errorf("rule for %q names unknown state %q", r.on, s))
			}
		}
		for _, s := range r.from {
			p := pair{r.on, s}
			if seen[p] {
				faults = append(faults, fmt.Errorf("two rules for %q in state %q", r.on, s))
			}
			seen[p] = true
		}
	}
	return faults
}

// checkUse looks for events without a rule and states out of reach.
func (d definition[S, E]) checkUse() (faults []error) {
	for _, e := range d.events {
		if !slices.ContainsFunc(d.rules, func(r rule[S, E]) bool { return r.on == e }) {
			faults = append(faults, fmt.Errorf("event %q has no rule", e))
		}
	}
	reached := d.reachable()
	for _, s := range d.states {
		if !reached[s] {
			faults = append(faults, fmt.Errorf("state %q is out of reach", s))
		}
	}
	return faults
}

// reachable follows the rules from the first state until nothing is added.
func (d definition[S, E]) reachable() map[S]bool {
	reached := map[S]bool{}
	if len(d.states) == 0 {
		return reached
	}
	reached[d.states[0]] = true
	for more := true; more; {
		more = false
		for _, r := range d.rules {
			if !reached[r.to] && slices.ContainsFunc(r.from, func(s S) bool { return reached[s] }) {
				reached[r.to], more = true, true
			}
		}
	}
	return reached
}
