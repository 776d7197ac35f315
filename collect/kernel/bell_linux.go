//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bell is where the reader says that it wants to be woken by the next record (struct
// reader). A program that wakes it takes that back.
type bell struct {
	mapped []byte
	rests  *uint64     // in mapped
	armed  atomic.Bool // the reader has not taken it back
}

func newBell(fd int) (*bell, error) {
	mapped, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map where the reader rests: %w", err)
	}
	return &bell{mapped: mapped, rests: (*uint64)(unsafe.Pointer(unsafe.SliceData(mapped)))}, nil
}

func (b *bell) close() error { return unix.Munmap(b.mapped) }

// arm comes before the reader looks if there is a record already.
func (b *bell) arm() {
	b.armed.Store(true) // first, or who is woken at once takes it for a mistake
	atomic.StoreUint64(b.rests, 1)
}

func (b *bell) disarm() {
	if b.armed.Load() {
		atomic.StoreUint64(b.rests, 0)
		b.armed.Store(false)
	}
}

// rung reports whether a program has woken the reader since it armed the bell.
func (b *bell) rung() bool { return b.armed.Load() && atomic.LoadUint64(b.rests) == 0 }
