package hash

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

// procHost reaches executables through the process file system.
type procHost struct{ proc string }

func newHost(proc string) host { return procHost{proc} }

// deletedMark is what the kernel adds to the path of a file without a name.
const deletedMark = " (deleted)"

func (h procHost) look(t *collect.HashTarget) (file, error) {
	dir, err := h.openProcess(t.PID)
	if err != nil {
		return file{}, err
	}
	defer func() { _ = unix.Close(dir) }() // only a handle
	// A handle, which opens nothing: the process may exec between two questions.
	exe, err := unix.Openat(dir, "exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return file{}, lookError(dir, t, err)
	}
	defer func() { _ = unix.Close(exe) }() // only a handle
	var st unix.Stat_t
	if err := unix.Fstat(exe, &st); err != nil {
		return file{}, err
	}
	path, err := readlink(handlePath(exe))
	if err != nil {
		return file{}, err
	}
	if err := isProcess(dir, t); err != nil {
		return file{}, err
	}
	// Between the scan and now the process may have replaced its image.
	if !samePath(path, t.Exe) {
		return file{}, &skip{reason: reasonReplaced}
	}
	return fileOf(&st), nil
}

// open prefers the process. If it has ended or gone on to another image, the file
// may still be at its path; the key tells.
func (h procHost) open(t *collect.HashTarget, k key) (content, error) {
	c, err := h.openImage(t, k)
	if err == nil {
		return c, nil
	}
	if byPath, pathErr := openPath(t.Exe, k); pathErr == nil {
		return byPath, nil
	}
	return nil, err
}

func (h procHost) openImage(t *collect.HashTarget, k key) (content, error) {
	dir, err := h.openProcess(t.PID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }() // only a handle
	if err := isProcess(dir, t); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(dir, "exe", openFlags, 0)
	if err != nil {
		return nil, lookError(dir, t, err)
	}
	return checked(fd, k)
}

// openProcess opens the directory of a process. It stays that of this process,
// whoever gets the PID later.
func (h procHost) openProcess(pid int32) (int, error) {
	return unix.Open(h.proc+"/"+strconv.Itoa(int(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// lookError tells a process without an executable from one that is not there.
func lookError(dir int, t *collect.HashTarget, err error) error {
	if errors.Is(err, unix.ENOENT) {
		if gone := isProcess(dir, t); gone != nil {
			return gone
		}
		return &skip{reason: reasonNone}
	}
	return err
}

// isProcess is nil if the open directory is of the target.
func isProcess(dir int, t *collect.HashTarget) error {
	if t.StartTicks == 0 {
		return &skip{reason: reasonUnknown}
	}
	fd, err := unix.Openat(dir, "stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only read
	var buf [1024]byte                    // the start is in the first 400
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return err
	}
	if startTicks(buf[:n]) != t.StartTicks {
		return &skip{reason: reasonGone}
	}
	return nil
}

// startTicks is field 22 of a stat line, 0 if it is not there. The name, field 2,
// may hold anything, parentheses too.
func startTicks(line []byte) uint64 {
	const behindName = 22 - 3
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) <= behindName {
		return 0
	}
	ticks, err := strconv.ParseUint(string(fields[behindName]), 10, 64)
	if err != nil {
		return 0
	}
	return ticks
}

// handlePath is a link to the file that a descriptor of ours is of.
func handlePath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openPath opens what is at a path if it is k. It looks first, by a handle which opens
// nothing: opening a device can do things, and the path may lead to one at any time.
func openPath(path string, k key) (content, error) {
	if path == "" {
		return nil, &skip{reason: reasonNone}
	}
	handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(handle) }() // only a handle
	if f, err := statOf(handle); err != nil {
		return nil, err
	} else if err := f.expect(k); err != nil {
		return nil, err
	}
	fd, err := unix.Open(handlePath(handle), openFlags, 0)
	if err != nil {
		return nil, err
	}
	return checked(fd, k)
}

func readlink(path string) (string, error) {
	var buf [event.MaxPath + 1]byte
	n, err := unix.Readlink(path, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// samePath compares a link with a path that was recorded, which may have been cut.
func samePath(link, recorded string) bool {
	if recorded == "" || len(link) >= event.MaxPath {
		return true
	}
	return strings.TrimSuffix(link, deletedMark) == strings.TrimSuffix(recorded, deletedMark)
}

func fileOf(st *unix.Stat_t) file {
	return file{
		key: key{
			dev: st.Dev, ino: st.Ino, size: st.Size,
			mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
		},
		regular:   st.Mode&unix.S_IFMT == unix.S_IFREG,
		allocated: st.Blocks * 512,
	}
}

// steady is false where a mapped page can change without a trace in the file's
// times, or where the file system says what it likes.
func (f openFile) steady() bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &fs); err != nil {
		return false
	}
	if uint32(fs.Type) != unix.OVERLAYFS_SUPER_MAGIC {
		return steadyType(&fs)
	}
	var st unix.Stat_t
	return unix.Fstat(f.fd, &st) == nil && steadyOverlay(st.Dev)
}

func steadyType(fs *unix.Statfs_t) bool {
	switch uint32(fs.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC, unix.FUSE_SUPER_MAGIC:
		return false
	}
	return true
}
