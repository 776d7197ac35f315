package fsm

// AgentState is where the agent is in its life.
type AgentState string

// The states of the agent.
const (
	AgentLoading       AgentState = "loading"        // waits for the collectors it expects
	AgentReady         AgentState = "ready"          // all are there
	AgentSteady        AgentState = "steady"         // all were told to begin
	AgentStartupFailed AgentState = "startup_failed" // some did not come in time; it serves the others and waits on
	AgentShuttingDown  AgentState = "shutting_down"  // at the end; for good
)

// AgentEvent moves the agent.
type AgentEvent string

// The events of the agent.
const (
	AgentAllReady AgentEvent = "all_ready" // every expected collector is registered
	AgentBegin    AgentEvent = "begin"     // BeginMonitoring was sent
	AgentTimeout  AgentEvent = "timeout"   // the time for getting ready is over
	AgentShutdown AgentEvent = "shutdown"  // the agent ends; accepted in every state
)

// NewAgent makes the agent's machine, in [AgentLoading].
func NewAgent() *Machine[AgentState, AgentEvent] { return agent().mustNew() }

func agent() definition[AgentState, AgentEvent] {
	states := []AgentState{AgentLoading, AgentReady, AgentSteady, AgentStartupFailed, AgentShuttingDown}
	return definition[AgentState, AgentEvent]{
		name:   MachineAgent,
		states: states,
		events: []AgentEvent{AgentAllReady, AgentBegin, AgentTimeout, AgentShutdown},
		rules: []rule[AgentState, AgentEvent]{
			{AgentAllReady, []AgentState{AgentLoading, AgentStartupFailed}, AgentReady},
			{AgentBegin, []AgentState{AgentReady}, AgentSteady},
			{AgentTimeout, []AgentState{AgentLoading}, AgentStartupFailed},
			{AgentShutdown, states, AgentShuttingDown},
		},
	}
}
