package hash

import (
	"cmp"
	"maps"
	"slices"
)

// Stats is what a hasher has done so far.
type Stats struct {
	Hashed   uint64 // files read to their end
	Bytes    uint64 // read, also of files that came to nothing
	Hits     uint64 // processes whose digest was known
	Misses   uint64 // processes that had to wait for theirs
	Skipped  uint64 // processes without one
	Deferred uint64 // times that a process or a result found no room and is asked for again
	Skips    []Skip // by reason, ordered

	Cached  int // digests kept
	Waiting int // processes in the queue
	// Stuck are calls to files that have not returned. Suspended says that there
	// are so many that no other file is touched.
	Stuck     int
	Suspended bool
}

// Skip is how many processes have no digest for one reason.
type Skip struct {
	Reason string
	Count  uint64
}

// Stats never waits.
func (h *Hasher) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Cached, s.Waiting = len(h.cache.entries), h.queue.size
	s.Stuck, s.Suspended = h.stuck, h.stuck >= mostStuck
	for _, reason := range slices.SortedFunc(maps.Keys(h.skips), cmp.Compare[string]) {
		s.Skips = append(s.Skips, Skip{reason, h.skips[reason]})
	}
	return s
}
