package portable

import "time"

// Host is what names a host and its boot. A field that the host does not have
// is zero; [ReadHost] fails only where a wrong value would make wrong identities.
type Host struct {
	// MachineID is the machine's own id, which is not for publication: see
	// [daemoneye.dev/procmond/collect/event.HostIDFromMachine]. Empty if it has none.
	MachineID string
	// BootID is the kernel's id of this boot.
	BootID string
	// PIDNamespace is the inode of the namespace that PIDs are of; 0 where
	// there are none.
	PIDNamespace uint64
	// BootTime is on the wall clock as it is set now, sleep included.
	BootTime time.Time
	// TicksPerSecond is the unit of [event.Process.StartTicks].
	TicksPerSecond uint64
}
