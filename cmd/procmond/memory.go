package main

import (
	"errors"
	"os"
	"runtime/debug"
	"unsafe"
)

// gcPercent is what may be garbage of the daemon's memory. With Go's 100 the table
// of 10,000 processes, most of what the daemon holds, would be paid for twice
// (docs/performance.md). The environment's GOGC wins.
const gcPercent = 50

func (p invocation) limitGarbage() {
	if p.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// ballastBytes are counted as live by the garbage collector and never touched, so they
// take no memory. With a table of a few hundred processes next to nothing is live, and
// each 4 MB of garbage would be a collection: every second, where a thousand programs a
// second are started. With it there is one for each 4 MB more.
const ballastBytes = 8 << 20

// newBallast returns the ballast without memory behind it: where the allocator gave it
// what was in use before, it has written zeros to all of it.
func newBallast() ([]byte, error) {
	b := make([]byte, ballastBytes)
	page := uintptr(os.Getpagesize())
	before := -uintptr(unsafe.Pointer(&b[0])) & (page - 1)
	whole := (ballastBytes - before) &^ (page - 1)
	return b, dropZeros(b[before : before+whole])
}

// trimMemory gives back what a large cycle, or the daemon's start, needed and
// nothing else does. It takes some 20 ms.
func (d *daemonRun) trimMemory() {
	var err error
	if d.trimmed && d.ballast == nil { // not before the first snapshot: it would raise its peak
		d.ballast, err = newBallast()
	}
	d.trimmed = true
	debug.FreeOSMemory()
	if err := errors.Join(err, dropProgramPages()); err != nil {
		d.log.WithError(err).Debug("Memory can not be given back")
	}
}
