package event

// Field names a field of [Process] in masks and changes.
type Field uint8

// The fields. Their numbers are bits on the wire and never change; at most 64.
const (
	FieldUnknown Field = iota
	FieldParent
	FieldName
	FieldExe
	FieldArgs
	FieldCWD
	FieldUID
	FieldGID
	FieldEUID
	FieldEGID
	FieldLoginUID
	FieldSession
	FieldTTY
	FieldCapabilities
	FieldStartTime
	FieldCgroup
	FieldContainer
	FieldNamespaces
	FieldEnv
	FieldState
	FieldThreads
	FieldRSS
	FieldCPU
	FieldHash
	FieldExit
	FieldExeDeleted
	FieldChanges
	FieldLoginSession
	fieldCount
)

func (f Field) String() string {
	return name(uint8(f), "unknown", "parent_id", "name", "exe", "args", "cwd", "uid", "gid", "euid", "egid",
		"login_uid", "session", "tty", "capabilities", "start_time", "cgroup", "container_id", "namespaces",
		"env", "state", "threads", "rss", "cpu", "hash", "exit_code", "exe_deleted", "changes", "login_session")
}

// FieldSet is a set of fields.
type FieldSet uint64

// Has reports whether f is in the set.
func (s FieldSet) Has(f Field) bool { return s&(1<<f) != 0 }

// With returns the set with f in it.
func (s FieldSet) With(f Field) FieldSet { return s | 1<<f }

// Without returns the set with f not in it.
func (s FieldSet) Without(f Field) FieldSet { return s &^ (1 << f) }

// Mask says which fields are not what the host would have said, and why.
type Mask struct {
	Gone        FieldSet // the process had ended before it could be read
	Denied      FieldSet // procmond lacks the permission
	Unsupported FieldSet // this platform or source does not give it
	Failed      FieldSet // reading it failed otherwise
	Truncated   FieldSet // the value is there but was cut to a limit; of a start time: it may be a clock tick late
	Inherited   FieldSet // the value is the parent's
}

// Absent is the set of fields that have no value at all.
func (m Mask) Absent() FieldSet { return m.Gone | m.Denied | m.Unsupported | m.Failed }

// IsZero reports whether everything was read.
func (m Mask) IsZero() bool { return m == Mask{} }
