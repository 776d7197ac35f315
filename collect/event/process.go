package event

import "time"

// Process is what is known of one process. A field that could not be read has
// its zero value and stands in Missing; a zero value that does not is the truth.
type Process struct {
	ID       ID
	ParentID ID // zero if the parent is not known
	PID      int32
	PPID     int32

	Name       string // the kernel's short name (comm), at most 15 bytes on Linux
	Exe        string // path of the executable, without a " (deleted)" mark
	ExeDeleted bool   // the executable is no longer at Exe
	Args       []string
	CWD        string

	UID, GID, EUID, EGID uint32
	LoginUID             uint32 // audit login uid; 4294967295 is unset
	LoginSession         uint32 // the kernel's audit session of that login; 0 or 4294967295 is none
	Session              int32  // of setsid(2)
	TTY                  int32  // device number, 0 is none
	CapEffective         uint64 // effective capabilities

	// StartTicks is the start in the platform's own unit since boot (Linux:
	// field 22 of /proc/PID/stat, clock ticks). It names the process with PID
	// and Generation, and never comes from the wall clock. 0 if unknown.
	StartTicks uint64
	// Generation counts the reuses of a PID within one tick.
	Generation uint32
	// StartTime is the same moment on the wall clock, for people.
	StartTime time.Time

	Cgroup      string
	ContainerID string
	Namespaces  []Namespace // those that differ from the daemon's own
	Env         []string    // allow-listed NAME=value pairs

	State   State
	Threads int32
	RSS     uint64        // bytes
	RSSKind RSSKind       // how true RSS is
	CPU     time.Duration // user and system time of the thread group

	Hash Hash

	Missing Mask
}

// Namespace is one namespace of a process.
type Namespace struct {
	Type  string // "pid", "mnt", "net", ... as in /proc/PID/ns
	Inode uint64
}

// State is what the kernel says a process is doing: the letter of field 3 of
// /proc/PID/stat (proc_pid_stat(5)), or 0 if unknown.
type State byte

// StateZombie is a process that has ended and was not yet reaped. A table keeps
// it, after its stop, so that it is not taken for a new process.
const StateZombie State = 'Z'

// RSSKind says how true a resident size is.
type RSSKind uint8

// The kinds. Their numbers are on the wire and never change.
const (
	// RSSApproximate is a counter that the kernel keeps for speed. Linux adds what
	// each CPU (before 6.2 each thread) has counted to it only now and then: it is
	// off by some dozens of pages for each of them, either way.
	RSSApproximate RSSKind = iota
	// RSSExact is the sum of all that was counted, at the time of the reading.
	RSSExact
)

func (k RSSKind) String() string { return name(uint8(k), "approximate", "exact") }

// Hash is the digest of an executable.
type Hash struct {
	Algorithm string // "sha256"
	Value     []byte
	Status    HashStatus
	Reason    string // why it was skipped
}

// HashStatus says whether a hash is there.
type HashStatus uint8

// The statuses. Their numbers are on the wire and never change.
const (
	HashNone    HashStatus = iota // hashing is off
	HashDone                      // Value holds the digest
	HashPending                   // a modify with the digest will follow
	HashSkipped                   // see Reason
)

func (s HashStatus) String() string {
	return name(uint8(s), "none", "done", "pending", "skipped")
}
