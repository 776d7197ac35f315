package hash

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
)

// algorithm is the name of the digest in events.
const algorithm = "sha256"

// Why there is no digest. The texts are in events and in metrics.
const (
	reasonNone      = "no executable"               // a kernel thread, or a process that has ended
	reasonGone      = "process is gone"             // nobody, or another process, has the PID
	reasonReplaced  = "image was replaced"          // by an exec, before it could be read
	reasonDenied    = "permission denied"           //
	reasonSpecial   = "not a regular file"          //
	reasonBig       = "too big"                     // for Config.MaxSize
	reasonChanged   = "changed while it was read"   //
	reasonDeadline  = "not read within deadline"    //
	reasonNoAnswer  = "file system does not answer" //
	reasonFailed    = "read failed"                 //
	reasonUncertain = "path may name another file"  // it is younger than the process
	reasonUnknown   = "start time is not known"     // so that the PID proves nothing
	reasonInternal  = "internal error"              // a panic, which the log has
)

// skip is why there is no digest, as an error.
type skip struct {
	reason string // one of the above
	detail string
}

func (s *skip) Error() string {
	if s.detail == "" {
		return s.reason
	}
	return s.reason + ": " + s.detail
}

// skipOf is the reason that an error of the host amounts to.
func skipOf(err error) *skip {
	var known *skip
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return &skip{reason: reasonGone}
	case errors.Is(err, fs.ErrPermission):
		return &skip{reason: reasonDenied}
	}
	return &skip{reason: reasonFailed, detail: cause(err)}
}

// cause is what the host said, without a path that an event has already.
func cause(err error) string {
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

func (s *skip) hash() event.Hash {
	return event.Hash{Status: event.HashSkipped, Reason: s.Error()}
}

// ofProcess reports whether the reason lies in the process through which the file
// was reached, and not in the file.
func (s *skip) ofProcess() bool {
	switch s.reason {
	case reasonNone, reasonGone, reasonReplaced, reasonDenied, reasonUncertain, reasonUnknown:
		return true
	}
	return false
}

// tooBig says of a file how big it is, and whether it only says so.
func tooBig(f *file) *skip {
	sparse := ""
	if f.allocated < f.size/2 {
		sparse = fmt.Sprintf(", sparse: %d on disk", f.allocated)
	}
	return &skip{reason: reasonBig, detail: fmt.Sprintf("%d bytes%s", f.size, sparse)}
}
