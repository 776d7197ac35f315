package procfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// lister lists the PIDs below a process file system, into memory that it keeps.
type lister struct {
	buf  [32 << 10]byte
	pids []int32
}

// list returns the PIDs, sorted, each once; valid until the next call.
func (l *lister) list(proc int) ([]int32, error) {
	l.pids = l.pids[:0]
	for {
		n, err := unix.ReadDirent(proc, l.buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("list processes: %w", err)
		case n == 0:
			l.order()
			return l.pids, nil
		}
		if l.pids, err = appendPIDs(l.pids, l.buf[:n]); err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
	}
}

// order sorts what a file system other than /proc lists in an order of its own.
func (l *lister) order() {
	if !slices.IsSorted(l.pids) {
		slices.Sort(l.pids)
	}
	l.pids = slices.Compact(l.pids)
}

// Where the parts of a linux_dirent64 are, getdents64(2).
const (
	direntLength = 16
	direntName   = 19
)

var errDirent = errors.New("directory entry is cut")

// appendPIDs appends the PIDs among the entries in b, which getdents64 has filled.
func appendPIDs(pids []int32, b []byte) ([]int32, error) {
	for len(b) > 0 {
		if len(b) <= direntName {
			return pids, errDirent
		}
		size := int(binary.NativeEndian.Uint16(b[direntLength:]))
		if size <= direntName || size > len(b) {
			return pids, errDirent
		}
		if pid, ok := parsePID(b[direntName:size]); ok {
			pids = append(pids, pid)
		}
		b = b[size:]
	}
	return pids, nil
}

// maxPID is more than pid_max can be set to, 2^22.
const maxPID = 1 << 30

// parsePID takes a name up to its NUL byte if it is a PID in its only form.
func parsePID(name []byte) (pid int32, ok bool) {
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	if len(name) == 0 || len(name) > 10 || name[0] == '0' {
		return 0, false
	}
	var v int64
	for _, c := range name {
		if c-'0' > 9 {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return int32(v), v < maxPID
}
