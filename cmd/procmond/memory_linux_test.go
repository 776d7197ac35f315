package main

import (
	"bytes"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestBallast: it takes no memory, though the allocator gives it what was used before.
func TestBallast(t *testing.T) {
	used := bytes.Repeat([]byte{1}, 4*ballastBytes)
	runtime.KeepAlive(used)
	runtime.GC()
	for range 4 {
		b, err := newBallast()
		if err != nil {
			t.Fatal(err)
		}
		page := unix.Getpagesize()
		resident := make([]byte, len(b)/page)
		before := -uintptr(unsafe.Pointer(&b[0])) & uintptr(page-1)
		whole := b[before : int(before)+(len(b)-int(before))/page*page]
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&whole[0])), uintptr(len(whole)), uintptr(unsafe.Pointer(&resident[0])))
		if errno != 0 {
			t.Fatal(errno)
		}
		if n := bytes.Count(resident, []byte{1}); n > 0 {
			t.Errorf("%d of its %d pages are in memory", n, len(resident))
		}
		if bytes.Count(b, []byte{0}) != len(b) {
			t.Error("there is something else than zeros in it")
		}
	}
}
