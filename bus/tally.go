package bus

import (
	"maps"
	"slices"
	"sync"

	"daemoneye.dev/procmond/bus/rpc"
)

// tally counts what became of requests, by operation. Operations that nobody offers
// count as unreadable ones, so that no sender can make it grow.
type tally struct {
	mu     sync.Mutex // guards counts
	counts map[rpc.Operation]*rpc.OperationStats
}

func newTally(operations []rpc.Operation) *tally {
	t := &tally{counts: make(map[rpc.Operation]*rpc.OperationStats)}
	for _, op := range append(operations, "") {
		t.counts[op] = &rpc.OperationStats{Operation: op}
	}
	return t
}

// add counts one request; code is empty if it succeeded.
func (t *tally) add(op rpc.Operation, code rpc.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.counts[op]
	if !ok {
		c = t.counts[""]
	}
	c.Count++
	if code != "" {
		c.Errors++
	}
	if code == rpc.CodeTimeout {
		c.Timeouts++
	}
}

// stats are ordered by operation.
func (t *tally) stats() []rpc.OperationStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	stats := make([]rpc.OperationStats, 0, len(t.counts))
	for _, op := range slices.Sorted(maps.Keys(t.counts)) {
		stats = append(stats, *t.counts[op])
	}
	return stats
}
