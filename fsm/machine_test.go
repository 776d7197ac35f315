package fsm

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyMachine hides the types of a machine from tests that are about all three.
type anyMachine struct {
	fire     func(event, cause string) (Transition, error)
	state    func() string
	snapshot func() Snapshot
	allowed  func() []string
}

func untyped[S, E ~string](m *Machine[S, E]) anyMachine {
	return anyMachine{
		fire:     func(event, cause string) (Transition, error) { return m.Fire(E(event), cause) },
		state:    func() string { return string(m.State()) },
		snapshot: m.Snapshot,
		allowed: func() (all []string) {
			for _, e := range m.Allowed() {
				all = append(all, string(e))
			}
			return all
		},
	}
}

type subject struct {
	name string
	text string
	new  func() anyMachine
}

func subjects() []subject {
	return []subject{
		{"collector", collectorTable, func() anyMachine { return untyped(NewCollector()) }},
		{"registration", registrationTable, func() anyMachine { return untyped(NewRegistration()) }},
		{"agent", agentTable, func() anyMachine { return untyped(NewAgent()) }},
	}
}

func eachMachine(t *testing.T, f func(t *testing.T, s subject, tab table)) {
	for _, s := range subjects() {
		t.Run(s.name, func(t *testing.T) { f(t, s, parse(t, s.text)) })
	}
}

// inState is a new machine that was led to state.
func inState(t testing.TB, s subject, tab table, state string) anyMachine {
	t.Helper()
	m := s.new()
	for _, e := range tab.path(t, state) {
		if _, err := m.fire(e, "setup"); err != nil {
			t.Fatal(err)
		}
	}
	if m.state() != state {
		t.Fatalf("setup led to %s, want %s", m.state(), state)
	}
	return m
}

func TestEveryPair(t *testing.T) {
	eachMachine(t, func(t *testing.T, s subject, tab table) {
		for _, state := range tab.states {
			for _, event := range tab.events {
				t.Run(state+"/"+event, func(t *testing.T) {
					testPair(t, s.name, inState(t, s, tab, state), state, event, tab.to[state][event])
				})
			}
		}
	})
}

func testPair(t *testing.T, machine string, m anyMachine, state, event, want string) {
	before := m.snapshot()
	allowed := m.allowed()
	if got := slices.Contains(allowed, event); got != (want != "") {
		t.Errorf("Allowed() = %v", allowed)
	}
	tr, err := m.fire(event, "because")
	switch {
	case want == "":
		testRefused(t, machine, state, event, tr, err, allowed)
		want = state
	case err != nil:
		t.Fatalf("Fire: %v", err)
	default:
		exp := Transition{Machine: machine, From: state, To: want, Event: event, Cause: "because", At: tr.At}
		if diff := cmp.Diff(exp, tr); diff != "" {
			t.Errorf("transition (-want +got):\n%s", diff)
		}
	}
	after := m.snapshot()
	if m.state() != want || after.State != want {
		t.Errorf("state = %s, snapshot %s, want %s", m.state(), after.State, want)
	}
	if want == state {
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("nothing changed, but the snapshot did:\n%s", diff)
		}
		return
	}
	exp := Snapshot{State: want, Since: tr.At, Cause: "because", Transitions: before.Transitions + 1}
	if diff := cmp.Diff(exp, after); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

func testRefused(t *testing.T, machine, state, event string, tr Transition, err error, allowed []string) {
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("Fire = %v, want ErrInvalid", err)
	}
	if tr != (Transition{}) {
		t.Errorf("a refused event gave the transition %+v", tr)
	}
	want := fmt.Sprintf("fire %s at %s in state %s (allowed: %s): transition not allowed", event, machine, state, strings.Join(allowed, ", "))
	if len(allowed) == 0 {
		t.Errorf("no event at all is allowed in %s", state)
	}
	if err.Error() != want {
		t.Errorf("error\n got %s\nwant %s", err, want)
	}
}

// The tables above must not be shorter than the machines.
func TestTablesAreComplete(t *testing.T) {
	check := func(t *testing.T, tab table, states, events []string) {
		if diff := cmp.Diff(states, tab.states); diff != "" {
			t.Errorf("states:\n%s", diff)
		}
		if diff := cmp.Diff(events, tab.events); diff != "" {
			t.Errorf("events:\n%s", diff)
		}
	}
	c, r, a := collector(), registration(), agent()
	check(t, parse(t, collectorTable), texts(c.states), texts(c.events))
	check(t, parse(t, registrationTable), texts(r.states), texts(r.events))
	check(t, parse(t, agentTable), texts(a.states), texts(a.events))
}

func texts[N ~string](names []N) (all []string) {
	for _, n := range names {
		all = append(all, string(n))
	}
	return all
}

func TestUnknownEvent(t *testing.T) {
	eachMachine(t, func(t *testing.T, s subject, tab table) {
		for _, event := range []string{"", "nope", "Begin", tab.states[0]} {
			m := s.new()
			if _, err := m.fire(event, "x"); !errors.Is(err, ErrInvalid) {
				t.Errorf("Fire(%q) = %v, want ErrInvalid", event, err)
			}
			if m.state() != tab.states[0] {
				t.Errorf("Fire(%q) led to %s", event, m.state())
			}
		}
	})
}

func TestInitial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, s := range subjects() {
			m := s.new()
			made := time.Now()
			<-time.After(time.Second) // of the bubble's clock
			want := Snapshot{State: parse(t, s.text).states[0], Since: made, Cause: CauseInitial}
			if diff := cmp.Diff(want, m.snapshot()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", s.name, diff)
			}
		}
	})
}

func TestAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewCollector()
		<-time.After(time.Minute) // of the bubble's clock
		tr, err := m.Fire(CollectorBegin, "agent")
		if err != nil || !tr.At.Equal(time.Now()) {
			t.Errorf("Fire = %+v, %v at %s", tr, err, time.Now())
		}
	})
}

// The first reason for an end is kept.
func TestRepeatedEndKeepsItsCause(t *testing.T) {
	m := NewCollector()
	if tr, err := m.Fire(CollectorAbort, "first"); err != nil || !tr.Changed() {
		t.Fatalf("Fire = %+v, %v", tr, err)
	}
	want := m.Snapshot()
	tr, err := m.Fire(CollectorAbort, "second")
	if err != nil || tr.Changed() || tr.Cause != "second" {
		t.Errorf("second abort = %+v, %v; want no error and no change", tr, err)
	}
	if diff := cmp.Diff(want, m.Snapshot()); diff != "" {
		t.Errorf("snapshot changed:\n%s", diff)
	}
}

// Machines against a model of three lines, over random events.
func TestModel(t *testing.T) {
	eachMachine(t, func(t *testing.T, s subject, tab table) {
		events := append(slices.Clone(tab.events), "nonsense")
		rapid.Check(t, func(t *rapid.T) {
			m := s.new()
			state, changes, cause := tab.states[0], uint64(0), CauseInitial
			for i, e := range rapid.SliceOfN(rapid.SampledFrom(events), 0, 60).Draw(t, "events") {
				why := fmt.Sprint("event ", i)
				to := tab.to[state][e]
				tr, err := m.fire(e, why)
				if (err == nil) != (to != "") || tr.To != to {
					t.Fatalf("%s in %s: %+v, %v; want %q", e, state, tr, err, to)
				}
				if to != "" && to != state {
					state, cause = to, why
					changes++
				}
				got := m.snapshot()
				if want := (Snapshot{state, got.Since, cause, changes}); got != want {
					t.Fatalf("snapshot %+v, want %+v", got, want)
				}
			}
		})
	})
}

// Many goroutines fire at one machine: the transitions they get must form one
// unbroken chain of allowed steps, none lost, none twice.
func TestConcurrentFire(t *testing.T) {
	tab := parse(t, registrationTable)
	m := NewRegistration()
	const goroutines, fires = 8, 2000
	var wg sync.WaitGroup
	var steps [goroutines][]Transition
	var order atomic.Uint64
	for g := range goroutines {
		wg.Go(func() {
			for i := range fires {
				e := RegistrationEvent(tab.events[(g+i)%len(tab.events)])
				tr, err := m.Fire(e, fmt.Sprint(order.Add(1)))
				if err != nil {
					if !errors.Is(err, ErrInvalid) {
						t.Errorf("Fire(%s) = %v", e, err)
					}
					continue
				}
				steps[g] = append(steps[g], tr)
				_ = m.Allowed()
				if s := m.Snapshot(); s.State == "" || s.Transitions == 0 {
					t.Errorf("snapshot %+v after a transition", s)
				}
			}
		})
	}
	wg.Wait()
	checkChain(t, tab, slices.Concat(steps[:]...), m.Snapshot())
}

// checkChain looks for a walk that takes every step once. By its counts: each
// state must have been left as often as it was entered, but for the ends.
func checkChain(t *testing.T, tab table, all []Transition, end Snapshot) {
	t.Helper()
	balance := map[string]int{tab.states[0]: 1}
	for _, tr := range all {
		if tab.to[tr.From][tr.Event] != tr.To {
			t.Fatalf("step %+v is not in the table", tr)
		}
		balance[tr.From]--
		balance[tr.To]++
	}
	for state, n := range balance {
		want := 0
		if state == end.State {
			want = 1
		}
		if n != want {
			t.Errorf("state %s was entered %d times more than left, want %d", state, n, want)
		}
	}
	if uint64(len(all)) != end.Transitions || len(all) == 0 {
		t.Errorf("%d steps, %d transitions counted", len(all), end.Transitions)
	}
	if last := slices.MaxFunc(all, func(a, b Transition) int { return a.At.Compare(b.At) }); last.At.After(end.Since) {
		t.Errorf("last step at %s, in this state since %s", last.At, end.Since)
	}
}

// Whoever fires may panic or exit right afterwards: the machine goes on.
func TestNeverWedged(t *testing.T) {
	m := NewRegistration()
	func() {
		defer func() { _ = recover() }()
		if _, err := m.Fire(RegistrationRegister, "panics next"); err == nil {
			panic("effect failed")
		}
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer runtime.Goexit()
		if _, err := m.Fire(RegistrationAccept, "exits next"); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	for range 3 {
		if _, err := m.Fire(RegistrationDisconnect, "network"); err != nil {
			t.Fatal(err)
		}
		for range 10 { // refusals don't wear it out either
			if _, err := m.Fire(RegistrationDone, "wrong"); !errors.Is(err, ErrInvalid) {
				t.Fatalf("Fire = %v, want ErrInvalid", err)
			}
		}
		for _, e := range []RegistrationEvent{RegistrationRegister, RegistrationAccept} {
			if _, err := m.Fire(e, "again"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func BenchmarkFire(b *testing.B) {
	m := NewRegistration()
	events := []RegistrationEvent{RegistrationRegister, RegistrationDisconnect}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := m.Fire(events[i&1], "benchmark"); err != nil {
			b.Fatal(err)
		}
	}
}
