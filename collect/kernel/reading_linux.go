package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/hung"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// maxArgsText is how many bytes of arguments are kept, as of eBPF.
const maxArgsText = 8 << 10

const hostProc = "/proc"

const maxSmallFile = 8 << 10 // more than a status file or a path can be

// processFiles reads /proc. Nothing of it is safe for concurrent use but for what is
// the worker's: the others are read by whoever is the worker at the time.
type processFiles struct {
	root int  // the directory
	live bool // it is that of this host; a test may have made it up
	hung *hung.Set
	rest [maxSmallFile]byte
}

// imageFields are those of a reading that an exec replaces.
var imageFields = event.FieldSet(0).With(event.FieldName).With(event.FieldExe).With(event.FieldExeDeleted).With(event.FieldArgs)

// idFields are those in which a status file has ids.
var idFields = event.FieldSet(0).With(event.FieldUID).With(event.FieldGID).With(event.FieldEUID).
	With(event.FieldEGID).With(event.FieldCapabilities)

var sessionFields = event.FieldSet(0).With(event.FieldSession).With(event.FieldTTY)

// reading is what was read of a process. Fields without a value are in missing.
type reading struct {
	stat       procfile.Stat // but for Comm
	comm       string
	status     procfile.Status
	exe        string
	exeDeleted bool
	args       []string
	missing    event.Mask
}

var errGone = errors.New("the process is gone")

func newProcessFiles(dir string, maxHung int) (*processFiles, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &processFiles{root: root, live: dir == hostProc, hung: hung.NewSet(maxHung)}, nil
}

func (p *processFiles) close() error { return unix.Close(p.root) }

// start is when a process of a stat file started, to the tick.
func start(st *procfile.Stat) time.Duration { return time.Duration(st.Start) * procfile.Tick }

// stat reads the stat file of whoever has the PID now.
func (p *processFiles) stat(pid int32) (st procfile.Stat, comm string, err error) {
	return p.statBelow(p.root, pid, "/stat\x00")
}

func (p *processFiles) statBelow(dir int, pid int32, name string) (st procfile.Stat, comm string, err error) {
	var path [32]byte
	n, err := readBelow(dir, append(pathOf(path[:0], pid, dir == p.root), name...), p.rest[:])
	if err != nil {
		return st, "", err
	}
	if err := st.Parse(p.rest[:n]); err != nil {
		return st, "", err
	}
	comm = procfile.Unescape(st.Comm)
	st.Comm = nil // it is part of what will be read over
	return st, comm, nil
}

// exists reports whether somebody has the PID.
func (p *processFiles) exists(pid int32) bool {
	return p.live && unix.Kill(int(pid), 0) != unix.ESRCH
}

// pathOf is the PID below the root, and nothing below the process's own directory.
func pathOf(b []byte, pid int32, below bool) []byte {
	if below {
		b = strconv.AppendInt(b, int64(pid), 10)
	}
	return b
}

// known reads what a process hands down to its children.
func (p *processFiles) known(pid int32, r *reading) error {
	dir, err := p.open(pid)
	if err != nil {
		return err
	}
	defer closeRaw(dir)
	if r.stat, r.comm, err = p.statBelow(dir, pid, "stat\x00"); err != nil {
		return err
	}
	p.readStatus(dir, r)
	return nil
}

// image reads all of a process that has run a program. First what is soonest gone: a
// process that ends gives its memory back, and is then a mere entry. The directory is
// that of one process, whoever has the PID later. Its errors are errGone and
// [hung.ErrAbandoned].
func (p *processFiles) image(w *hung.Worker, pid int32, id hung.ID, r *reading) error {
	dir, err := p.open(pid)
	if err != nil {
		return errGone
	}
	defer closeRaw(dir)
	args, cut, argsErr := p.readArgs(w, dir, id)
	if errors.Is(argsErr, hung.ErrAbandoned) {
		return argsErr
	}
	exeErr := p.readExe(w, dir, id, r)
	if errors.Is(exeErr, hung.ErrAbandoned) {
		return exeErr
	}
	if r.stat, r.comm, err = p.statBelow(dir, pid, "stat\x00"); err != nil {
		return errGone
	}
	p.readStatus(dir, r)
	// An empty text is that of a process without arguments, or of one without memory:
	// which had memory afterwards had it before.
	if argsErr == nil && len(args) == 0 && exeErr != nil && !errors.Is(exeErr, unix.EACCES) {
		argsErr = errGone
	}
	r.miss(exeErr, event.FieldExe, event.FieldExeDeleted)
	r.miss(argsErr, event.FieldArgs)
	if argsErr == nil {
		var many bool
		if r.args, many = procfile.SplitArgs(args); many || cut {
			r.missing.Truncated = r.missing.Truncated.With(event.FieldArgs)
		}
	}
	return nil
}

func (r *reading) miss(err error, fields ...event.Field) {
	for _, f := range fields {
		switch {
		case err == nil:
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			r.missing.Denied = r.missing.Denied.With(f)
		default:
			r.missing.Failed = r.missing.Failed.With(f)
		}
	}
}

func (p *processFiles) readStatus(dir int, r *reading) {
	n, err := readBelow(dir, []byte("status\x00"), p.rest[:])
	if err == nil {
		err = r.status.Parse(p.rest[:n])
	}
	if err != nil {
		r.status = procfile.Status{}
		r.miss(err, event.FieldUID, event.FieldGID, event.FieldEUID, event.FieldEGID, event.FieldCapabilities)
	}
}

var errHangs = errors.New("reading it hangs")

// readArgs reads the arguments into the worker's own memory.
func (p *processFiles) readArgs(w *hung.Worker, dir int, id hung.ID) (args []byte, cut bool, err error) {
	if !p.hung.Room(id) {
		return nil, false, errHangs
	}
	if w.Text == nil {
		w.Text = make([]byte, maxArgsText+1)
	}
	w.Begin(id)
	n, err := readWaiting(dir, []byte("cmdline\x00"), w.Text)
	if abandoned := w.End(); abandoned != nil {
		return nil, false, abandoned
	}
	if err != nil {
		return nil, false, err
	}
	return w.Text[:min(n, maxArgsText)], n > maxArgsText, nil
}

// readExe reads the path of the executable.
func (p *processFiles) readExe(w *hung.Worker, dir int, id hung.ID, r *reading) error {
	name := [...]byte{'e', 'x', 'e', 0}
	n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&p.rest[0])), uintptr(len(p.rest)), 0, 0)
	if errno != 0 {
		return errno
	}
	path, marked := bytes.CutSuffix(p.rest[:n], []byte(procfile.DeletedMark))
	r.exe = string(p.rest[:n])
	if !marked {
		return nil
	}
	named, err := p.isNamed(w, dir, id, r.exe)
	if err != nil {
		return err
	}
	if !named {
		r.exe, r.exeDeleted = string(path), true
	}
	return nil
}

// isNamed reports whether the executable is the file at path, as the daemon or the
// process itself sees it: then the mark is part of the file's name. It asks the file's
// own file system, which may hang; if it does, there is no such file.
func (p *processFiles) isNamed(w *hung.Worker, dir int, id hung.ID, path string) (named bool, err error) {
	if !p.hung.Room(id) {
		return false, nil
	}
	w.Begin(id)
	var running, file unix.Stat_t
	if unix.Fstatat(dir, "exe", &running, 0) == nil {
		for _, name := range []string{path, "root" + path} {
			if unix.Fstatat(dir, name, &file, unix.AT_SYMLINK_NOFOLLOW) == nil && file.Dev == running.Dev && file.Ino == running.Ino {
				named = true
			}
		}
	}
	return named, w.End()
}

// The calls that follow do not tell the Go scheduler, but for readWaiting: the kernel
// answers from its own memory, in microseconds and without a lock that a process can
// hold, and a thread in a hurry must not wait for its turn in Go after each.

func (p *processFiles) open(pid int32) (int, error) {
	var path [16]byte
	return openRaw(p.root, append(strconv.AppendInt(path[:0], int64(pid), 10), 0), unix.O_PATH|unix.O_DIRECTORY)
}

// openRaw opens a file below dir. path ends in a NUL byte.
func openRaw(dir int, path []byte, flags uintptr) (int, error) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(unsafe.SliceData(path))),
		flags|unix.O_CLOEXEC|unix.O_LARGEFILE, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func closeRaw(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// readBelow reads a file of /proc below dir in one read. path ends in a NUL byte.
func readBelow(dir int, path, buf []byte) (int, error) {
	fd, err := openRaw(dir, path, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	closeRaw(fd)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// readWaiting is readBelow for a file of which reading may hang; opening does not.
func readWaiting(dir int, path, buf []byte) (int, error) {
	fd, err := openRaw(dir, path, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer closeRaw(fd)
	for {
		n, err := unix.Read(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}
