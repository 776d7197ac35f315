package store

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRefusalsComeBeforeSpace: what is wrong with the directory is said at once, and
// not when there is space.
func TestRefusalsComeBeforeSpace(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		want          error
	}{
		"foreign":      {"passwd", "root", ErrNotStore},
		"newer format": {identityFile, `{"store": "procmond", "format": 99, "epoch": "x"}`, ErrNewerFormat},
	} {
		t.Run(name, func(t *testing.T) {
			full := newFullFS(vfs.NewMem())
			if err := errors.Join(full.MkdirAll("db", 0o700), writeFile(full, "db/"+c.file, []byte(c.content))); err != nil {
				t.Fatal(err)
			}
			full.avail.Store(1 << 20)
			if s, err := Open(t.Context(), testConfig(t, full)); !errors.Is(err, c.want) || s != nil {
				t.Errorf("open: %v", err)
			}
		})
	}
	t.Run("locked", func(t *testing.T) {
		mem := vfs.NewMem()
		s := mustOpen(t, testConfig(t, mem))
		full := newFullFS(mem)
		full.avail.Store(1 << 20)
		if s, err := Open(t.Context(), testConfig(t, full)); !errors.Is(err, ErrLocked) || s != nil {
			t.Errorf("open: %v", err)
		}
		mustClose(t, s, true)
	})
}

// TestRefusalAtReopen: Fatal is told what Open would have returned.
func TestRefusalAtReopen(t *testing.T) {
	full := newFullFS(vfs.NewMem())
	full.avail.Store(1 << 20)
	c := testConfig(t, full)
	var reason error
	c.Fatal = func(err error) { reason = err }
	s := mustOpen(t, c) // nothing there yet: out of service
	if err := errors.Join(full.MkdirAll("db", 0o700), writeFile(full, "db/passwd", nil)); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }() // Fatal returned
		_ = s.reopen(t.Context(), leaveBroken)
	}()
	if !errors.Is(reason, ErrNotStore) {
		t.Errorf("fatal: %v", reason)
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}
