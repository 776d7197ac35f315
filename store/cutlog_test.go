package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDamagedLogIsReadUpToTheDamage damages the log at many places: what comes
// before is there, in order, and the store itself is not touched.
func TestDamagedLogIsReadUpToTheDamage(t *testing.T) {
	const events = 60
	sound := killedStore(t, events)
	name, _, data := lastLogOf(t, sound)
	last := 0
	for at := 700; at < len(data)*3/4; at += len(data) / 7 {
		dir := copyStore(t, sound)
		if err := flip(filepath.Join(dir, name), at); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenCopy(t.Context(), dir)
		if err != nil {
			t.Fatalf("damage at %d of %d: %v", at, len(data), err)
		}
		got, err := seqs(t, c.Query, Query{})
		if err != nil || !IsDamaged(c.Damage()) || len(got) < last || len(got) >= events || len(got) > 0 && (got[0] != 1 || !slices.IsSorted(got)) {
			t.Errorf("damage at %d of %d: %d events (%v), damage %v", at, len(data), len(got), err, c.Damage())
		}
		last = len(got)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if after, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(after, before) {
			t.Errorf("the store's log was touched: %v", err)
		}
	}
	if last == 0 {
		t.Error("nothing was ever read")
	}
}
