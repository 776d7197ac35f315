package store

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A write that finds no space succeeds once the ballast is gone, and the ballast
// comes back with the space.
func TestBallastMakesRoom(t *testing.T) {
	mem := vfs.NewMem()
	gone := func() bool {
		_, err := mem.Stat("db/" + ballastFile)
		return errors.Is(err, fs.ErrNotExist)
	}
	full := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && !gone() {
			return syscall.ENOSPC
		}
		return nil
	})}
	s := mustOpen(t, testConfig(t, injectFaults(mem, full)))
	if gone() {
		t.Fatal("no ballast")
	}
	full.On()
	mustAppend(t, s, testBatch(testTime, 1))
	if !gone() {
		t.Error("the ballast is still there")
	}
	full.Off()
	s.maintain(t.Context())
	if gone() {
		t.Error("the ballast did not come back")
	}
	mustClose(t, s, true)
}
