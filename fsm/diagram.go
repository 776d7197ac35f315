package fsm

import "github.com/looplab/fsm"

//go:generate go test . -count=1 -run TestDocument -update

// The names of the machines, as [Diagram] takes them and transitions carry them.
const (
	MachineCollector    = "collector"
	MachineRegistration = "registration"
	MachineAgent        = "agent"
)

// Diagram draws a machine as a Mermaid state diagram, the same text at every
// call. It is empty for a machine that does not exist.
func Diagram(machine string) string {
	switch machine {
	case MachineCollector:
		return draw(collector().library())
	case MachineRegistration:
		return draw(registration().library())
	case MachineAgent:
		return draw(agent().library())
	}
	return ""
}

func draw(m *fsm.FSM) string {
	text, err := fsm.VisualizeWithType(m, fsm.MermaidStateDiagram)
	if err != nil {
		panic(err) // only for a diagram type that the library does not know
	}
	return text
}
