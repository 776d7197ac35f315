package procfs

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Names of files end in a NUL byte, so that the kernel can be given the constant
// itself: package unix copies each name.
const (
	statFile      = "stat\x00"
	statmFile     = "statm\x00"
	statusFile    = "status\x00"
	cmdlineFile   = "cmdline\x00"
	environFile   = "environ\x00"
	exeFile       = "exe\x00"
	cwdFile       = "cwd\x00"
	cgroupFile    = "cgroup\x00"
	loginUIDFile  = "loginuid\x00"
	sessionIDFile = "sessionid\x00"
)

// namespacePaths are the links of namespaceTypes.
var namespacePaths = [...]string{
	"ns/cgroup\x00", "ns/ipc\x00", "ns/mnt\x00", "ns/net\x00", "ns/pid\x00", "ns/time\x00", "ns/user\x00", "ns/uts\x00",
}

// openat opens a file below dir. name ends in a NUL byte.
func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(unsafe.StringData(name))),
			uintptr(flags|unix.O_CLOEXEC|unix.O_LARGEFILE), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// readlinkat reads the link below dir into buf. name ends in a NUL byte.
func readlinkat(dir int, name string, buf []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(unsafe.StringData(name))),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// read is one read of fd. Of a process that is gone by now it reads nothing.
func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// readFile reads a file below dir in one read, which gives all of it if it is one
// of /proc and buf is large enough. name ends in a NUL byte.
func readFile(dir int, name string, buf []byte) (int, error) {
	fd, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	n, err := read(fd, buf)
	closeFD(fd)
	return n, err
}

// readStat is readFile for the stat file of a known process, which is most of
// what a scan does. It tells the Go scheduler nothing: the kernel answers from its
// own memory, in microseconds and without a lock that a process can hold, and
// telling would cost a tenth more.
func readStat(proc int, name string, buf []byte) (int, error) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(proc), uintptr(unsafe.Pointer(unsafe.StringData(name))),
		unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// closeFD closes what was only read: there is nothing to lose.
func closeFD(fd int) { _ = unix.Close(fd) }

func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

func isDenied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// isExhausted reports whether procmond itself lacks what it needs to read: then
// what it does not see says nothing about the host.
func isExhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}
