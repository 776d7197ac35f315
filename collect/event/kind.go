package event

import "fmt"

// Kind is what happened.
type Kind uint8

// The kinds. Their numbers are on the wire and never change.
const (
	KindUnknown Kind = iota
	KindStart        // a process began
	KindExec         // its image was replaced
	KindModify       // some of its attributes changed
	KindStop         // it ended
	KindLoss         // something could not be seen or kept
	KindSensor       // the daemon about itself
)

// Source is how procmond learned of an event.
type Source uint8

// The sources. Their numbers are on the wire and never change.
const (
	SourceUnknown   Source = iota
	SourceKernel           // an event of the kernel
	SourceScan             // a comparison of two snapshots
	SourceRecovered        // a comparison with the table that an earlier run left
	SourceSensor           // the daemon itself
)

// LossCause is why something is missing.
type LossCause uint8

// The causes. Their numbers are on the wire and never change.
const (
	LossUnknown      LossCause = iota
	LossDown                   // procmond did not run
	LossStore                  // the store was out of service
	LossQuarantine             // a damaged store was set aside
	LossMaxProcesses           // --max-processes left processes out
	LossShed                   // the backlog budget was used up
	LossRing                   // the kernel's event buffer overflowed
	LossQueue                  // a queue inside procmond overflowed
	LossScan                   // a snapshot failed
	LossRewind                 // the store went back in time (a restored copy)
)

// SensorWhat is what the daemon reports about itself.
type SensorWhat uint8

// What a sensor event reports. The numbers are on the wire and never change.
const (
	SensorUnknown SensorWhat = iota
	SensorStarted
	SensorStopped
	SensorCrashed // the run before this one ended without a clean mark
	SensorConfig  // configuration changed
	SensorSource  // a source of events or snapshots changed
	SensorHealth  // health changed
)

func (k Kind) String() string {
	return name(uint8(k), "unknown", "start", "exec", "modify", "stop", "loss", "sensor")
}

// OfProcess reports whether events of this kind speak of a process.
func (k Kind) OfProcess() bool { return k != KindLoss && k != KindSensor }

func (s Source) String() string {
	return name(uint8(s), "unknown", "kernel", "scan", "recovered", "sensor")
}

func (c LossCause) String() string {
	return name(uint8(c), "unknown", "down", "store_unavailable", "store_quarantined", "max_processes",
		"shed", "ring_overflow", "queue_overflow", "scan_failed", "store_rewound")
}

func (w SensorWhat) String() string {
	return name(uint8(w), "unknown", "started", "stopped", "crashed", "config", "source", "health")
}

// ParseKind returns the kind with this name. It accepts no number.
func ParseKind(s string) (Kind, error) {
	for k := KindStart; k <= KindSensor; k++ {
		if k.String() == s {
			return k, nil
		}
	}
	return KindUnknown, fmt.Errorf("unknown kind %q: want start, exec, modify, stop, loss or sensor", s)
}

// name returns names[i]; a number from a later version prints as itself.
func name(i uint8, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("#%d", i)
}
