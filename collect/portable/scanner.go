package portable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"daemoneye.dev/procmond/collect"
)

// rereadEvery is in how many scans each known process is read whole once.
const rereadEvery = 30

// errHidden says that the host lists a process and shows nothing of it.
var errHidden = errors.New("process is hidden")

// Config says how to scan. Its zero value scans the host.
type Config struct {
	// Proc is where the process file system is mounted, "/proc" if empty.
	// Only Linux uses it.
	Proc string
}

// Scanner implements [collect.Scanner]. It is not safe for concurrent use.
type Scanner struct {
	platform
	known map[int32]*record // by PID; pruned at the end of each scan
	scans uint64            // begun so far
	// owed says that the last scan failed after reporting processes that its
	// caller then had to throw away, so that the next one must be full.
	owed bool
}

var _ collect.Scanner = (*Scanner)(nil)

// New returns a scanner that knows no process yet: its first scan reports each
// one whole.
func New(c Config) (*Scanner, error) {
	p, err := newPlatform(c)
	if err != nil {
		return nil, err
	}
	return &Scanner{platform: p, known: make(map[int32]*record)}, nil
}

// Scan implements [collect.Scanner]. A process that is gone before it could be
// read is counted and never an error; what keeps procmond from reading at all
// (no file descriptors, no /proc) is one, because the processes not seen would
// be taken for ended ones.
func (s *Scanner) Scan(ctx context.Context, full bool, snap *collect.Snapshot) error {
	*snap = collect.Snapshot{Began: time.Now(), Observations: snap.Observations[:0]}
	full = full || s.owed
	s.owed = true
	s.scans++
	if err := s.begin(); err != nil {
		return err
	}
	pids, err := process.PidsWithContext(s.context(ctx))
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, pid := range slices.Compact(pids) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.add(ctx, pid, full, snap); err != nil {
			return err
		}
	}
	if len(snap.Observations) == 0 {
		return errors.New("list processes: no process can be read, not even this one")
	}
	s.prune(len(snap.Observations))
	s.owed = false
	snap.Ended = time.Now()
	return nil
}

// add appends what is seen of pid to the snapshot.
func (s *Scanner) add(ctx context.Context, pid int32, full bool, snap *collect.Snapshot) error {
	o, err := s.observe(ctx, pid, full || s.turn(pid))
	switch {
	case errors.Is(err, collect.ErrGone):
		snap.Vanished++
	case errors.Is(err, errHidden):
		snap.Hidden++
	case err != nil:
		return fmt.Errorf("read process %d: %w", pid, err)
	default:
		snap.Observations = append(snap.Observations, o)
	}
	return nil
}

// turn reports whether pid is to be read whole in this scan, known or not.
func (s *Scanner) turn(pid int32) bool {
	return (uint64(uint32(pid))+s.scans)%rereadEvery == 0
}

// prune forgets the processes that this scan, which saw n, did not see.
func (s *Scanner) prune(n int) {
	if len(s.known) == n {
		return
	}
	for pid, r := range s.known {
		if r.seen != s.scans {
			delete(s.known, pid)
		}
	}
}

// Probe implements [collect.Scanner]. It counts as a report: the next scan
// repeats nothing of it that has not changed.
func (s *Scanner) Probe(ctx context.Context, pid int32) (collect.Observation, error) {
	if err := ctx.Err(); err != nil {
		return collect.Observation{}, err
	}
	if err := s.begin(); err != nil {
		return collect.Observation{}, err
	}
	o, err := s.observe(ctx, pid, true)
	if err != nil {
		return collect.Observation{}, fmt.Errorf("probe process %d: %w", pid, err)
	}
	return o, nil
}
