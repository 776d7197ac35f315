package supervisor

import (
	"sync"

	"daemoneye.dev/procmond/bus/rpc"
)

// end is how the daemon comes to its end: somebody asks for it, and is told how it
// went while there is still a way to answer.
type end struct {
	once   sync.Once
	reason string // written before asked is closed
	// asked is closed by the first ask: the daemon is to stop.
	asked chan struct{}
	// farewell is closed by Run when everything but what answers has stopped; result
	// is written before.
	farewell chan struct{}
	result   rpc.ShutdownResult
}

func newEnd() *end { return &end{asked: make(chan struct{}), farewell: make(chan struct{})} }

// ask asks for the end. Only the first reason counts.
func (e *end) ask(reason string) {
	e.once.Do(func() {
		e.reason = reason
		close(e.asked)
	})
}

// why is the reason of the stop; the operator's, unless somebody asked.
func (e *end) why() string {
	select {
	case <-e.asked:
		return e.reason
	default:
		return "stopped by the operator"
	}
}

// tell lets those who asked answer. It is called once.
func (e *end) tell(result rpc.ShutdownResult) {
	e.result = result
	close(e.farewell)
}
