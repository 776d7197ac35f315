//go:build amd64 || arm64

package kernel

import (
	"bytes"
	"errors"
	"os"
	"time"
	"unsafe"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// What a program could not read (enum failure).
const (
	exeFailed  = 1
	argsFailed = 2
)

var errRecord = errors.New("a record that no program writes")

// decode fills r, which is zero, from what a program wrote. b is aligned to 8 bytes;
// nothing of r points into it.
func decode(b []byte, r *Record) error {
	head, ok := view[processHead](b)
	if !ok {
		return errRecord
	}
	r.Kind = Kind(head.Kind)
	r.PID, r.PPID, r.CPU = head.Pid, head.Ppid, int(head.Cpu)
	r.Start, r.ParentStart, r.At = time.Duration(head.Start), time.Duration(head.ParentStart), time.Duration(head.At)
	switch r.Kind {
	case KindFork:
		if f, ok := view[processForkRecord](b); ok {
			decodeImage(&f.Image, r)
			r.Creator = f.Creator
			return nil
		}
	case KindExec:
		if x, ok := view[processExecRecord](b); ok {
			return decodeExec(x, b[unsafe.Sizeof(*x):], r)
		}
	case KindExit:
		if x, ok := view[processExitRecord](b); ok {
			r.Exit = exitOf(x)
			return nil
		}
	}
	return errRecord
}

// view is the T that b begins with.
func view[T processHead | processForkRecord | processExecRecord | processExitRecord](b []byte) (*T, bool) {
	var t T
	if uintptr(len(b)) < unsafe.Sizeof(t) {
		return nil, false
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(b))), true
}

func decodeImage(m *processImage, r *Record) {
	r.UID, r.GID, r.EUID, r.EGID = m.Uid, m.Gid, m.Euid, m.Egid
	r.CapEffective, r.CgroupID = m.Capabilities, m.Cgroup
	r.Session, r.TTY = m.Session, m.Tty
	name, _, _ := bytes.Cut(m.Comm[:], []byte{0})
	r.Comm = string(name)
}

// decodeExec takes names and arguments from data, which is what follows x.
func decodeExec(x *processExecRecord, data []byte, r *Record) error {
	exe, args := uint64(x.ExeBytes), uint64(x.ArgsBytes)
	if exe+args > uint64(len(data)) {
		return errRecord
	}
	decodeImage(&x.Image, r)
	r.ExeDeleted = x.ExeDeleted != 0
	r.Exe = joinNames(data[:exe])
	var cut bool
	r.Args, cut = procfile.SplitArgs(data[exe : exe+args])
	if cut || x.ArgsTotal > args {
		r.Missing.Truncated = r.Missing.Truncated.With(event.FieldArgs)
	}
	if x.Failed&exeFailed != 0 {
		r.Exe, r.ExeDeleted = "", false
		r.Missing.Failed = r.Missing.Failed.With(event.FieldExe).With(event.FieldExeDeleted)
	}
	if x.Failed&argsFailed != 0 {
		r.Args = nil
		r.Missing.Truncated = r.Missing.Truncated.Without(event.FieldArgs)
		r.Missing.Failed = r.Missing.Failed.With(event.FieldArgs)
	}
	return nil
}

// joinNames makes a path of names that each end in a NUL byte, the file's first.
func joinNames(b []byte) string {
	var short [256]byte
	path := short[:0]
	b = bytes.TrimSuffix(b, []byte{0})
	for {
		i := bytes.LastIndexByte(b, 0)
		path = append(path, '/')
		path = append(path, b[i+1:]...)
		if i < 0 {
			return string(path)
		}
		b = b[:i]
	}
}

func exitOf(x *processExitRecord) *event.Exit {
	e := exitStatus(x.Status)
	e.CPU, e.MaxRSS = time.Duration(x.CpuTime), x.MaxRss*uint64(os.Getpagesize())
	return e
}
