//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counters are those of one CPU (struct lost), by [Kind], in a cache line.
type counters [8]uint64

// losses are what the programs could not tell, since they were loaded.
type losses struct {
	mapped []byte
	lost   []counters // for each CPU, in mapped
	missed counters   // what a program was not run for
}

func newLosses(fd, cpus int) (*losses, error) {
	page := os.Getpagesize()
	size := (cpus*int(unsafe.Sizeof(counters{})) + page - 1) / page * page
	mapped, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the counters of losses: %w", err)
	}
	lost := unsafe.Slice((*counters)(unsafe.Pointer(unsafe.SliceData(mapped))), cpus)
	return &losses{mapped: mapped, lost: lost}, nil
}

func (l *losses) close() error { return unix.Munmap(l.mapped) }

// sum is all that was lost since the beginning.
func (l *losses) sum() Lost {
	all := l.missed
	for i := range l.lost {
		for kind := range all {
			all[kind] += atomic.LoadUint64(&l.lost[i][kind])
		}
	}
	return Lost{Forks: all[KindFork], Execs: all[KindExec], Exits: all[KindExit]}
}

// misses sets in c how often each program was not run since it ran already on that
// CPU: possible where a program can be preempted.
func (p *programs) misses(c *counters) error {
	for kind, program := range p.byKind() {
		stats, err := program.Stats()
		if err != nil {
			return fmt.Errorf("count what %v missed: %w", kind, err)
		}
		c[kind] = stats.RecursionMisses
	}
	return nil
}
