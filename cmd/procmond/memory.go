package main

import "runtime/debug"

// gcPercent is what may be garbage of the daemon's memory. With Go's 100 the table
// of 10,000 processes, most of what the daemon holds, would be paid for twice
// (docs/performance.md). The environment's GOGC wins.
const gcPercent = 50

func (p invocation) limitGarbage() {
	if p.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// trimMemory gives back what a large cycle, or the daemon's start, needed and
// nothing else does. It takes some 20 ms.
func (d *daemonRun) trimMemory() {
	debug.FreeOSMemory()
	if err := dropProgramPages(); err != nil {
		d.log.WithError(err).Debug("Pages of the program can not be given back")
	}
}
