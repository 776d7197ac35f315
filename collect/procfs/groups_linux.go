package procfs

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

const (
	// maxGroups bounds the control groups that are remembered. A host has some hundred;
	// each container that ever ran had one.
	maxGroups = 4096
	// unifiedRoot is where version 2 of control groups is mounted if there is no other,
	// by the convention of all distributions.
	unifiedRoot = "/sys/fs/cgroup"
	// approxTicks is by how many clock ticks a start that is known roughly may be late.
	approxTicks = 1
)

// Groups tells in which control group and container single processes run, between two
// scans. It implements [collect.Groups], and is not safe for concurrent use.
//
// A path is remembered by the id that the kernel tells, where control groups are all of
// version 2; else it is read for each process anew, since the id says nothing of the
// other hierarchies.
type Groups struct {
	proc    int
	unified string
	known   map[uint64]group
	path    []byte
	stat    [procfile.MaxStat]byte
	file    [procfile.MaxCgroup]byte
}

type group struct{ path, container string }

var _ collect.Groups = (*Groups)(nil)

// NewGroups reads the process file system that is mounted at proc, "/proc" if empty. It
// keeps a descriptor of it, until the daemon ends.
func NewGroups(proc string) (*Groups, error) {
	if proc == "" {
		proc = "/proc"
	}
	fd, err := unix.Open(proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open process file system: %w", &os.PathError{Op: "open", Path: proc, Err: err})
	}
	return &Groups{proc: fd, unified: unifiedRoot, known: make(map[uint64]group)}, nil
}

// Of implements [collect.Groups].
func (g *Groups) Of(pid int32, start time.Duration, id uint64) (path, container string, ok bool) {
	if known, ok := g.known[id]; ok && id != 0 {
		return known.path, known.container, true
	}
	found, alone, ok := g.read(pid, uint64(start/procfile.Tick))
	if ok && alone && id != 0 && g.names(found.path, id) {
		if len(g.known) >= maxGroups {
			clear(g.known)
		}
		g.known[id] = found
	}
	return found.path, found.container, ok
}

// read reads the group of a process; alone says that version 2 is all there is.
func (g *Groups) read(pid int32, ticks uint64) (found group, alone, ok bool) {
	g.path = append(strconv.AppendInt(g.path[:0], int64(pid), 10), 0)
	dir, err := openat(g.proc, string(g.path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return group{}, false, false
	}
	defer closeFD(dir)
	var st procfile.Stat
	n, err := readFile(dir, statFile, g.stat[:])
	if err != nil || st.Parse(g.stat[:n]) != nil || st.Dead() ||
		st.Start > ticks || ticks-st.Start > approxTicks {
		return group{}, false, false // it is another one by now, or in no group any more
	}
	var c procfile.Cgroup
	if n, err = readFile(dir, cgroupFile, g.file[:]); err != nil || c.Parse(g.file[:n]) != nil {
		return group{}, false, false
	}
	return group{string(c.Path), string(c.Container)}, c.Alone, true
}

// names reports whether path is that of the group with an id: the process may have been
// moved since the kernel told. The id is the inode of the directory (kernfs_node.id,
// include/linux/kernfs.h; where inodes have 64 bits).
func (g *Groups) names(path string, id uint64) bool {
	var st unix.Stat_t
	return unix.Stat(g.unified+path, &st) == nil && st.Ino == id
}
