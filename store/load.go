package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"daemoneye.dev/procmond/collect/event"
)

// Load returns the process table as of the last durable batch, and what is known
// of the run that left it.
func (s *Store) Load(ctx context.Context) (*event.Table, error) {
	n, err := s.writer(ctx) // nothing is being written while we look
	if err != nil {
		return nil, err
	}
	defer s.release()
	t := &event.Table{Epoch: n.epoch, Head: n.head, Empty: n.head == 0}
	s.mu.Lock()
	t.CleanAt = s.clean
	s.mu.Unlock()
	t.Clean = !t.CleanAt.IsZero()
	if t.Empty {
		t.PreviousEpoch, t.PreviousSeq = n.ident.previous(), n.ident.PreviousSeq
		t.Quarantined = n.ident.QuarantinedTo
		t.Rewound = n.ident.rewoundTo(s.conf.FS, s.conf.Dir)
	}
	if err := readTable(ctx, n.db, t); err != nil {
		return nil, s.readFailed(err)
	}
	return t, nil
}

// readTable reads the processes, AsOf and BootID of a database.
func readTable(ctx context.Context, r pebble.Reader, t *event.Table) error {
	asOf, err := readMeta(r, metaAsOf)
	if err != nil {
		return err
	}
	boot, err := readMeta(r, metaBoot)
	if err != nil {
		return err
	}
	mark, err := readMeta(r, metaMark)
	if err != nil {
		return err
	}
	t.AsOf, t.BootID = parseTime(asOf), string(boot)
	t.Mark, _ = parseNumber(mark)
	lower, upper := keySpan(prefixProcess)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("read table: %w", err)
	}
	for it.First(); it.Valid() && ctx.Err() == nil; it.Next() {
		p := new(event.Process)
		if err := event.DecodeProcess(it.Value(), p); err != nil {
			return errors.Join(fmt.Errorf("%w: process %x of the table: %w", errDamaged, it.Key()[len(prefixProcess):], err), it.Close())
		}
		t.Processes = append(t.Processes, p)
	}
	return errors.Join(ctx.Err(), it.Error(), it.Close())
}
