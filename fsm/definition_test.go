package fsm

import (
	"strings"
	"testing"
)

type (
	word  string
	act   string
	plain = definition[word, act]
	from  = []word
	moves = []rule[word, act]
)

// sound is a definition without fault, for tests to spoil.
func sound() plain {
	return plain{
		name:   "door",
		states: from{"open", "shut", "locked"},
		events: []act{"close", "lock", "unlock"},
		rules:  moves{{"close", from{"open"}, "shut"}, {"lock", from{"shut"}, "locked"}, {"unlock", from{"locked"}, "shut"}},
	}
}

func TestNewSound(t *testing.T) {
	m, err := sound().New()
	if err != nil {
		t.Fatal(err)
	}
	if m.State() != "open" || m.Name() != "door" {
		t.Errorf("state %s of %s", m.State(), m.Name())
	}
}

func TestNewFaults(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(d *plain)
		want  []string // each in the error
	}{
		{"no name", func(d *plain) { d.name = "" }, []string{"no name"}},
		{"no states", func(d *plain) { d.states = nil }, []string{"no states", `unknown state "open"`}},
		{"empty state", func(d *plain) { d.states = append(d.states, "") }, []string{"state 3 has no name"}},
		{"empty event", func(d *plain) { d.events = append(d.events, "") }, []string{"event 3 has no name"}},
		{"state twice", func(d *plain) { d.states = append(d.states, "shut") }, []string{`state "shut" is declared twice`}},
		{"event twice", func(d *plain) { d.events = append(d.events, "lock") }, []string{`event "lock" is declared twice`}},
		{"unknown event", func(d *plain) { d.rules[0].on = "slam" }, []string{`unknown event "slam"`, `event "close" has no rule`}},
		{"unknown source", func(d *plain) { d.rules[2].from = from{"lokced"} }, []string{`rule for "unlock" names unknown state "lokced"`}},
		{"unknown target", func(d *plain) { d.rules[2].to = "ajar" }, []string{`rule for "unlock" names unknown state "ajar"`}},
		{"no source", func(d *plain) { d.rules[2].from = nil }, []string{`rule for "unlock" starts nowhere`}},
		{"unused event", func(d *plain) { d.events = append(d.events, "paint") }, []string{`event "paint" has no rule`}},
		{"unused state", func(d *plain) { d.states = append(d.states, "gone") }, []string{`state "gone" is out of reach`}},
		{"unreachable island", func(d *plain) { d.rules[1].from = from{"locked"} }, []string{`state "locked" is out of reach`}},
		{"contradiction", func(d *plain) { d.rules = append(d.rules, rule[word, act]{"close", from{"open"}, "locked"}) }, []string{`two rules for "close" in state "open"`}},
		{"source twice", func(d *plain) { d.rules[0].from = from{"open", "open"} }, []string{`two rules for "close" in state "open"`}},
		{"several", func(d *plain) { d.name = ""; d.events = append(d.events, "a", "b") }, []string{"no name", `"a" has no rule`, `"b" has no rule`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := sound()
			tt.spoil(&d)
			m, err := d.New()
			if err == nil || m != nil {
				t.Fatalf("New = %v, %v; want only an error", m, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q\n does not name %q", err, want)
				}
			}
		})
	}
}

func TestMustNewPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("mustNew accepted a definition with a fault")
		}
	}()
	plain{}.mustNew()
}
