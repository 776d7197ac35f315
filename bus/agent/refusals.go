package agent

import (
	"sync"

	"daemoneye.dev/procmond/bus/rpc"
)

// Reasons under which refused messages are counted. A code of rpc.Code stands for
// itself, behind the name of the service: "registration malformed_request".
const (
	reasonOverflow     = "queue full"
	reasonInbox        = "inbox of another"
	reasonHeartbeat    = "heartbeat malformed"
	reasonUnregistered = "heartbeat unregistered"
	reasonImpostor     = "heartbeat of another id"
)

// refusals counts what was refused, by reason: the reasons are this package's own, so
// there are few. Its methods never block.
type refusals struct {
	mu     sync.Mutex // guards what follows
	counts []rpc.Refusal
}

// add counts n refusals; who is who was refused last.
func (r *refusals) add(reason, who string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.counts {
		if r.counts[i].Reason == reason {
			r.counts[i].Count += n
			r.counts[i].Last = who
			return
		}
	}
	r.counts = append(r.counts, rpc.Refusal{Reason: reason, Count: n, Last: who})
}

// all is a copy, in the order of the first of each.
func (r *refusals) all() []rpc.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]rpc.Refusal{}, r.counts...)
}
