package fsm

// CollectorState is where the collector is in its life.
type CollectorState string

// The states of the collector.
const (
	CollectorWaitingForAgent CollectorState = "waiting_for_agent" // collects nothing until it may begin
	CollectorRunning         CollectorState = "running"           // collects
	CollectorShuttingDown    CollectorState = "shutting_down"     // finishes what it has begun, takes nothing new
	CollectorStopped         CollectorState = "stopped"           // at the end; for good
)

// CollectorEvent moves the collector.
type CollectorEvent string

// The events of the collector.
const (
	CollectorBegin    CollectorEvent = "begin"    // BeginMonitoring, the begin timeout, or standalone mode
	CollectorShutdown CollectorEvent = "shutdown" // an orderly end was asked for
	CollectorFinish   CollectorEvent = "finish"   // everything accepted is durable
	CollectorAbort    CollectorEvent = "abort"    // the end without draining; accepted in every state
)

// NewCollector makes the collector's machine, in [CollectorWaitingForAgent].
func NewCollector() *Machine[CollectorState, CollectorEvent] { return collector().mustNew() }

func collector() definition[CollectorState, CollectorEvent] {
	states := []CollectorState{CollectorWaitingForAgent, CollectorRunning, CollectorShuttingDown, CollectorStopped}
	return definition[CollectorState, CollectorEvent]{
		name:   MachineCollector,
		states: states,
		events: []CollectorEvent{CollectorBegin, CollectorShutdown, CollectorFinish, CollectorAbort},
		rules: []rule[CollectorState, CollectorEvent]{
			{CollectorBegin, []CollectorState{CollectorWaitingForAgent}, CollectorRunning},
			{CollectorShutdown, []CollectorState{CollectorWaitingForAgent, CollectorRunning}, CollectorShuttingDown},
			{CollectorFinish, []CollectorState{CollectorShuttingDown}, CollectorStopped},
			{CollectorAbort, states, CollectorStopped},
		},
	}
}
