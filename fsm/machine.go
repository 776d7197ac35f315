package fsm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/looplab/fsm"
)

// CauseInitial is the cause of the state that a machine is made in.
const CauseInitial = "initial"

// ErrInvalid reports an event that the machine does not accept in its state, or
// does not know at all. The machine has not changed.
var ErrInvalid = errors.New("transition not allowed")

// Transition is what [Machine.Fire] did, in plain strings: journals and JSON
// take it as it is.
type Transition struct {
	Machine string    // name of the machine: collector, registration, agent
	From    string    // state before
	To      string    // state after
	Event   string    // what was fired
	Cause   string    // why, in the words of who fired
	At      time.Time // when it took place
}

// Changed reports whether the state is another one than before. It is false
// for an event that is accepted again in the state that it leads to.
func (t Transition) Changed() bool { return t.From != t.To }

// Snapshot is a consistent view of a machine.
type Snapshot struct {
	State       string    // state it is in
	Since       time.Time // when it came there
	Cause       string    // cause of the transition that led there, or [CauseInitial]
	Transitions uint64    // changes of state since the machine was made
}

// Machine is a finite state machine with states S and events E, safe for
// concurrent use. Make one with [NewCollector], [NewRegistration] or [NewAgent].
type Machine[S, E ~string] struct {
	name   string // never changes
	events []E    // in the order of the definition; never changes

	mu          sync.Mutex // guards everything below; never held while foreign code runs
	machine     *fsm.FSM   // its own locks don't cover a whole transition
	since       time.Time
	cause       string
	transitions uint64
}

// Name is the machine's name, as transitions carry it.
func (m *Machine[S, E]) Name() string { return m.name }

// Fire applies e and returns what it did. The error wraps [ErrInvalid] and
// names machine, event, state and the events allowed there.
//
// It takes no context on purpose: the library refuses every later event once
// one context was cancelled, which would trap a draining daemon.
func (m *Machine[S, E]) Fire(e E, cause string) (Transition, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.machine.Current()
	err := m.machine.Event(context.Background(), string(e))
	if err != nil && !errors.As(err, new(fsm.NoTransitionError)) {
		return Transition{}, fmt.Errorf("fire %s at %s in state %s (allowed: %s): %w", e, m.name, from, m.allowedText(), ErrInvalid)
	}
	t := Transition{Machine: m.name, From: from, To: m.machine.Current(), Event: string(e), Cause: cause, At: time.Now()}
	if t.Changed() {
		m.since, m.cause = t.At, cause
		m.transitions++
	}
	return t, nil
}

// State is the state the machine is in.
func (m *Machine[S, E]) State() S {
	m.mu.Lock()
	defer m.mu.Unlock()
	return S(m.machine.Current())
}

// Snapshot is the state with its history in brief.
func (m *Machine[S, E]) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Snapshot{State: m.machine.Current(), Since: m.since, Cause: m.cause, Transitions: m.transitions}
}

// Allowed lists the events that Fire would accept now, in the order of the
// definition. Another goroutine may fire before the caller does.
func (m *Machine[S, E]) Allowed() []E {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.allowed()
}

// allowed needs m.mu.
func (m *Machine[S, E]) allowed() []E {
	var can []E
	for _, e := range m.events {
		if m.machine.Can(string(e)) {
			can = append(can, e)
		}
	}
	return can
}

// allowedText needs m.mu.
func (m *Machine[S, E]) allowedText() string {
	var text []string
	for _, e := range m.allowed() {
		text = append(text, string(e))
	}
	if len(text) == 0 {
		return "none"
	}
	return strings.Join(text, ", ")
}
