package store

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// inspectTransitions is how many transitions an Inspection shows.
const inspectTransitions = 20

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
	// Damage says what is wrong with a store that can not be opened; everything but
	// Stats.Path and Stats.Epoch is then unknown. The next daemon sets it aside.
	Damage string
}

// Inspect looks at the store in dir, which no daemon may have open, and changes
// nothing. It holds the store's lock for much less than a second; a daemon that
// starts meanwhile waits for it. Errors: fs.ErrNotExist, [ErrLocked],
// [ErrNotStore], [ErrNewerFormat], [ErrPermission] or I/O.
func Inspect(ctx context.Context, dir string) (*Inspection, error) {
	return inspect(ctx, vfs.Default, dir)
}

func inspect(ctx context.Context, vs vfs.FS, dir string) (*Inspection, error) {
	in := &Inspection{Stats: Stats{Path: dir}}
	err := locked(ctx, vs, dir, func(id identity, lock *pebble.Lock) error {
		in.Stats.Epoch = id.epoch()
		r, err := openReading(vs, dir, dir, id, lock)
		if err == nil {
			err = errors.Join(in.read(ctx, r), r.close())
		}
		if isCorruption(err) {
			in.Damage = err.Error()
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

func (in *Inspection) read(ctx context.Context, r *reading) error {
	in.Stats = r.stats()
	mark, err := readMeta(r.db, metaClean)
	if err != nil {
		return err
	}
	in.CleanAt = parseTime(mark)
	in.Clean = !in.CleanAt.IsZero()
	var table event.Table
	if err := readTable(ctx, r.db, &table); err != nil {
		return err
	}
	in.AsOf, in.BootID, in.Processes = table.AsOf, table.BootID, len(table.Processes)
	if in.Transitions, err = readTransitions(ctx, r.db, inspectTransitions); err != nil {
		return err
	}
	return r.view().query(ctx, Query{Limit: 1, Newest: true}, func(e *event.Event) error {
		in.LastEvent = e.Observed
		return nil
	})
}
