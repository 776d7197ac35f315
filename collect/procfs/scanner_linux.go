package procfs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/internal/hung"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// rereadEvery is in how many scans each known process is read whole once.
const rereadEvery = 30

// Defaults of [Config].
const (
	DefaultPatience = 500 * time.Millisecond
	DefaultMaxHung  = 8
)

// errHidden says that the host lists a process and shows nothing of it.
var errHidden = errors.New("process is hidden")

// Config says how to scan. Its zero value scans the host.
type Config struct {
	// Proc is where the process file system is mounted, "/proc" if empty.
	Proc string
	// Patience is how long reading the arguments and the environment of a process may
	// take, at least, until they are given up; up to twice that. 0 is [DefaultPatience].
	Patience time.Duration
	// MaxHung is how many such readings may hang at once. 0 is [DefaultMaxHung].
	MaxHung int
	// Enhanced asks for the working directory, control group, container, namespaces
	// and login of each process too, and for its exact resident size.
	Enhanced bool
	// Env are the names of the environment variables to record of each process, with
	// Enhanced.
	Env []string
}

// Scanner implements [collect.Scanner]. It is not safe for concurrent use.
type Scanner struct {
	config   Config
	pageSize uint64
	hung     *hung.Set
	// readKnown reads the stat file of a known process: readStat, unless Proc is
	// not a process file system and may block.
	readKnown func(proc int, name string, buf []byte) (int, error)
	seed      maphash.Seed
	enhanced  *enhanced // nil if not asked for

	proc  int       // the process file system, open during a scan or probe
	boot  time.Time // on the wall clock as it is set at the scan or probe in progress
	list  lister
	known table
	scans uint64 // begun so far
	// owed says that the last scan failed after reporting processes that its
	// caller then had to throw away, so that the next one must be full.
	owed bool

	stat  [2][procfile.MaxStat]byte // two, to compare a first with a second reading
	statm [maxStatm]byte
	rest  [maxRest]byte // status, exe
	path  []byte        // what PIDs are written into
	text  []byte        // arguments and environment; the worker's while there is one
}

var _ collect.Scanner = (*Scanner)(nil)

// New returns a scanner that knows no process yet: its first scan reports each
// one whole.
func New(c Config) (*Scanner, error) {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Patience <= 0 {
		c.Patience = DefaultPatience
	}
	if c.MaxHung <= 0 {
		c.MaxHung = DefaultMaxHung
	}
	s := &Scanner{
		config: c, pageSize: uint64(os.Getpagesize()), seed: maphash.MakeSeed(),
		hung: hung.NewSet(c.MaxHung),
		text: make([]byte, minText), path: make([]byte, 0, maxPath),
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	defer s.close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.proc, &fs); err == nil && fs.Type == unix.PROC_SUPER_MAGIC {
		s.readKnown = readStat
	} else {
		s.readKnown = readFile
	}
	if c.Enhanced {
		s.enhanced = newEnhanced(s.proc, c.Env)
	}
	return s, nil
}

// open looks at the process file system and the clock, anew each time: one may
// have been mounted again, the other set. A process keeps the start time that it
// was first reported with.
func (s *Scanner) open() error {
	boot, err := bootTime()
	if err != nil {
		return err
	}
	fd, err := unix.Open(s.config.Proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open process file system: %w", &os.PathError{Op: "open", Path: s.config.Proc, Err: err})
	}
	s.boot, s.proc = boot, fd
	return nil
}

func (s *Scanner) close() { closeFD(s.proc) }

// bootTime is when the clock that start times are measured on was zero, on the
// wall clock as it is set now.
func bootTime() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("read clock since boot: %w", err)
	}
	return time.Now().Round(0).Add(-time.Duration(since.Nano())), nil
}

// Scan implements [collect.Scanner]. A process that is gone before it could be
// read is counted and never an error, nor is one that can not be read; what keeps
// procmond from reading at all (no file descriptors, no /proc) is one, because
// the processes not seen would be taken for ended ones.
func (s *Scanner) Scan(ctx context.Context, full bool, snap *collect.Snapshot) error {
	*snap = collect.Snapshot{Began: time.Now(), Observations: snap.Observations[:0]}
	full = full || s.owed
	s.owed = true
	s.scans++
	if err := s.open(); err != nil {
		return err
	}
	defer s.close()
	pids, err := s.list.list(s.proc)
	if err != nil {
		return err
	}
	snap.Observations = slices.Grow(snap.Observations, len(pids))
	next := 0
	s.known.rewind()
	err = s.watched(func(w *hung.Worker) error {
		for ; next < len(pids); next++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.add(w, pids[next], full, snap); err != nil {
				return err
			}
		}
		return nil
	})
	s.known.settle(s.scans, err == nil)
	switch {
	case err != nil:
		return err
	case len(snap.Observations) == 0:
		return errors.New("list processes: no process can be read, not even this one")
	}
	s.owed = false
	snap.Ended = time.Now()
	return nil
}

// watched does work on workers, see [watched].
func (s *Scanner) watched(work func(*hung.Worker) error) (err error) {
	text := s.text
	s.text = nil
	s.text, err = hung.Run(s.hung, s.config.Patience, text, work)
	return err
}

// add appends what is seen of pid to the snapshot.
func (s *Scanner) add(w *hung.Worker, pid int32, full bool, snap *collect.Snapshot) error {
	o, err := s.observe(w, pid, s.known.at(pid), want{whole: full || s.turn(pid), report: full})
	switch {
	case err == nil:
		snap.Observations = append(snap.Observations, o)
	case errors.Is(err, collect.ErrGone):
		snap.Vanished++
	case errors.Is(err, hung.ErrAbandoned), isExhausted(err):
		return fmt.Errorf("read process %d: %w", pid, err)
	default:
		snap.Hidden++
	}
	return nil
}

// turn reports whether pid is to be read whole in this scan, known or not.
func (s *Scanner) turn(pid int32) bool {
	return (uint64(uint32(pid))+s.scans)%rereadEvery == 0
}

// Probe implements [collect.Scanner]. It counts as a report: the next scan
// repeats nothing of it that has not changed.
func (s *Scanner) Probe(ctx context.Context, pid int32) (o collect.Observation, err error) {
	if err := ctx.Err(); err != nil {
		return collect.Observation{}, err
	}
	if err := s.open(); err != nil {
		return collect.Observation{}, err
	}
	defer s.close()
	s.known.rewind()
	err = s.watched(func(w *hung.Worker) error {
		seen, err := s.observe(w, pid, s.known.at(pid), want{whole: true, report: true})
		if err == nil {
			o = seen // a worker that was given up has an error and leaves it alone
		}
		return err
	})
	s.known.settle(s.scans, false)
	if err != nil {
		return collect.Observation{}, fmt.Errorf("probe process %d: %w", pid, err)
	}
	return o, nil
}
