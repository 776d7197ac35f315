package store

import (
	"context"
	"errors"
	"path"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// inspectTransitions is how many transitions an Inspection shows.
const inspectTransitions = 20

// inspectLogs is how many bytes of logs Inspect reads under the store's lock. A
// daemon that works leaves less than 25 MiB, spare files included.
const inspectLogs = 48 << 20

// Inspection is what a store that no daemon runs tells of its last run.
type Inspection struct {
	Stats Stats
	// Clean says that the last run ended in order, at CleanAt.
	Clean   bool
	CleanAt time.Time
	// AsOf is when the process table was last complete, BootID of which boot it
	// is, Processes how many it holds.
	AsOf      time.Time
	BootID    string
	Processes int
	// LastEvent is when the last event was observed.
	LastEvent   time.Time
	Transitions []Transition // the newest ones, newest last
	// Damage says, in one line, what is wrong with a store that the next daemon will
	// set aside. Of everything but Stats.Path and Stats.Epoch, what could not be
	// read is then zero.
	Damage string
}

// Inspect looks at the store in dir, which no daemon may have open, and changes
// nothing in it. It holds the store's lock for much less than a second; a daemon
// that starts meanwhile waits for it. Errors: fs.ErrNotExist, [ErrLocked],
// [ErrNotStore], [ErrNewerFormat], [ErrPermission], ctx's, or I/O.
func Inspect(ctx context.Context, dir string) (*Inspection, error) {
	return inspect(ctx, readFS(), dir, inspectLogs)
}

func inspect(ctx context.Context, vs vfs.FS, dir string, maxLogs int64) (*Inspection, error) {
	id, lock, err := lockForReading(ctx, vs, dir)
	if err != nil {
		return nil, err
	}
	if logBytes(vs, dir) > maxLogs {
		if err := lock.Close(); err != nil {
			return nil, err
		}
		return inspectCopy(ctx, dir, id)
	}
	in, err := inspectLocked(ctx, vs, dir, id, lock)
	return in, errors.Join(err, lock.Close())
}

func inspectLocked(ctx context.Context, vs vfs.FS, dir string, id identity, lock *pebble.Lock) (*Inspection, error) {
	in := newInspection(dir, id)
	r, err := openReading(vs, dir, dir, id, lock)
	if err == nil {
		err = errors.Join(in.read(ctx, r), r.close())
	}
	return in, in.keepDamage(err)
}

// inspectCopy reads a copy, because opening takes long.
func inspectCopy(ctx context.Context, dir string, id identity) (*Inspection, error) {
	in := newInspection(dir, id)
	c, err := OpenCopy(ctx, dir)
	if err == nil {
		err = errors.Join(in.read(ctx, c.reading), c.Close())
	}
	return in, in.keepDamage(err)
}

func newInspection(dir string, id identity) *Inspection {
	return &Inspection{Stats: Stats{
		Path: dir, Epoch: id.epoch(), QuarantinedTo: id.QuarantinedTo, QuarantinedAt: id.QuarantinedAt,
		RewoundTo: id.rewoundTo(readFS(), dir), RewoundAt: id.RewoundAt,
	}}
}

// logBytes sums up the logs of a database; what can't be known is 0.
func logBytes(vs vfs.FS, dir string) (sum int64) {
	names, err := vs.List(dir)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if path.Ext(name) != ".log" {
			continue
		}
		if info, err := vs.Stat(vs.PathJoin(dir, name)); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// keepDamage makes an error that is about the store's content a finding.
func (in *Inspection) keepDamage(err error) error {
	if err == nil || isRefusal(err) && !isCorruption(err) {
		return err
	}
	if in.Damage == "" {
		in.Damage = reasonOf(err)
	}
	return nil
}

// read fills in what can be read. Its steps stand alone: damage of one leaves the
// others.
func (in *Inspection) read(ctx context.Context, r *reading) error {
	in.Stats = r.stats()
	for _, step := range []func(context.Context, *reading) error{
		func(context.Context, *reading) error { return r.damage },
		in.readMark, in.readTable, in.readLast,
		func(ctx context.Context, r *reading) (err error) {
			in.Transitions, err = readTransitions(ctx, r.db, inspectTransitions)
			return err
		},
	} {
		if err := in.keepDamage(step(ctx, r)); err != nil {
			return err
		}
	}
	return nil
}

func (in *Inspection) readMark(_ context.Context, r *reading) error {
	mark, err := readMeta(r.db, metaClean)
	in.CleanAt = parseTime(mark)
	in.Clean = !in.CleanAt.IsZero()
	return err
}

func (in *Inspection) readTable(ctx context.Context, r *reading) error {
	var table event.Table
	err := readTable(ctx, r.db, &table)
	in.AsOf, in.BootID, in.Processes = table.AsOf, table.BootID, len(table.Processes)
	return err
}

func (in *Inspection) readLast(ctx context.Context, r *reading) error {
	err := r.view().query(ctx, Query{Limit: 1, Newest: true}, func(e *event.Event) error {
		in.LastEvent = e.Observed
		return nil
	})
	if errors.Is(err, ErrUndecodable) {
		return nil // an older one that can be decoded was taken; Verify tells
	}
	return err
}
