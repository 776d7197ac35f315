package fsm

import (
	"strings"
	"testing"
)

// A table says where each event leads from each state; "-" is refused. It is
// written from the design, apart from the definitions that it checks. The
// first row is the initial state.

const collectorTable = `
                   begin    shutdown       finish   abort
waiting_for_agent  running  shutting_down  -        stopped
running            -        shutting_down  -        stopped
shutting_down      -        -              stopped  stopped
stopped            -        -              -        stopped
`

const registrationTable = `
               register     accept      reject  exhaust  disconnect    deregister     done
unregistered   registering  -           -       -        -             -              -
registering    -            registered  failed  failed   unregistered  -              -
registered     -            -           -       -        unregistered  deregistering  -
deregistering  -            -           -       -        unregistered  -              unregistered
failed         registering  -           -       -        -             -              -
`

const agentTable = `
                all_ready  begin   timeout         shutdown
loading         ready      -       startup_failed  shutting_down
ready           -          steady  -               shutting_down
steady          -          -       -               shutting_down
startup_failed  ready      -       -               shutting_down
shutting_down   -          -       -               shutting_down
`

// table is a parsed table: table.to[state][event] is empty where refused.
type table struct {
	states, events []string
	to             map[string]map[string]string
}

func parse(t testing.TB, text string) table {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	tab := table{events: strings.Fields(lines[0]), to: map[string]map[string]string{}}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		if len(cells) != len(tab.events)+1 {
			t.Fatalf("table row %q has %d cells, want %d", line, len(cells), len(tab.events)+1)
		}
		state := cells[0]
		tab.states = append(tab.states, state)
		tab.to[state] = map[string]string{}
		for i, e := range tab.events {
			if cells[i+1] != "-" {
				tab.to[state][e] = cells[i+1]
			}
		}
	}
	return tab
}

// path is a shortest list of events that leads from the first state to state.
func (tab table) path(t testing.TB, state string) []string {
	t.Helper()
	type step struct {
		state string
		path  []string
	}
	seen := map[string]bool{}
	for queue := []step{{state: tab.states[0]}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at.state == state {
			return at.path
		}
		if seen[at.state] {
			continue
		}
		seen[at.state] = true
		for _, e := range tab.events {
			if to := tab.to[at.state][e]; to != "" {
				queue = append(queue, step{to, append(append([]string(nil), at.path...), e)})
			}
		}
	}
	t.Fatalf("the table has no way to %s", state)
	return nil
}
