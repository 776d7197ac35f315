package collect

import "daemoneye.dev/procmond/collect/event"

// execs are replacements of an image that a scanner has told of, and that are
// not durable yet: StartTicks by PID. A scanner tells of each only once, so they
// must outlive a scan or an append that fails.
type execs map[int32]uint64

// noteAll adds those that all holds, which may be of a scan that failed.
func (x execs) noteAll(all []Observation) {
	for i := range all {
		if o := &all[i]; o.ExecChanged {
			x[o.PID] = o.StartTicks
		}
	}
}

// markAll tells of them again in a snapshot, sorted by PID. One whose process is
// not there any more is left alone.
func (x execs) markAll(all []Observation) {
	for pid, ticks := range x {
		if o := findObservation(all, pid); o != nil && o.StartTicks == ticks && o.Process != nil {
			o.ExecChanged = true
		}
	}
}

// written forgets those that a durable batch reports.
func (x execs) written(b *event.Batch) {
	for _, e := range b.Events {
		if e.Kind == event.KindExec {
			delete(x, e.Process.PID)
		}
	}
}
