//go:build !linux

package hash

import (
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
)

// pathHost reaches executables by their paths: this platform has no other way.
type pathHost struct{}

func newHost(string) host { return pathHost{} }

// look believes that the file at the path is what the process runs if it has not
// changed, nor come there, since the process started.
func (pathHost) look(t *collect.HashTarget) (file, error) {
	if t.Exe == "" {
		return file{}, &skip{reason: reasonNone}
	}
	f, err := statPath(t.Exe)
	if err != nil {
		return file{}, err
	}
	if f.regular && (t.StartTime.IsZero() || time.Unix(0, f.ctime).After(t.StartTime)) {
		return file{}, &skip{reason: reasonUncertain}
	}
	return f, nil
}

func (pathHost) open(t *collect.HashTarget, k key) (content, error) { return openPath(t.Exe, k) }

// steady: mapped pages change the times of the file when they are written.
func (openFile) steady() bool { return true }

func fileOf(st *unix.Stat_t) file {
	return file{
		key: key{
			dev: uint64(st.Dev), ino: uint64(st.Ino), size: st.Size,
			mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
		},
		regular:   st.Mode&unix.S_IFMT == unix.S_IFREG,
		allocated: int64(st.Blocks) * 512,
	}
}

// openPath opens what is at a path if it is k. It looks before it opens: opening
// a device can do things.
func openPath(path string, k key) (content, error) {
	f, err := statPath(path)
	if err == nil {
		err = f.expect(k)
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, openFlags, 0)
	if err != nil {
		return nil, err
	}
	return checked(fd, k)
}
