package procfile

import (
	"bytes"
	"errors"
)

// MaxCgroup is room for a cgroup file with a line of the longest path for each of
// a dozen hierarchies.
const MaxCgroup = 64 << 10

// Cgroup is what procmond uses of one /proc/PID/cgroup, cgroups(7).
type Cgroup struct {
	Path      []byte // of one of the hierarchies
	Container []byte // the id in Path, nil if it names no container
	Alone     bool   // there is no hierarchy but that of version 2
}

// The ranks of lines, the lower the better. Where a process belongs to nothing in a
// hierarchy its path is the root, which says nothing.
const (
	rankUnified = iota
	rankSystemd
	rankMemory // what every container runtime limits
	rankOther
	rankNoContainer = 4
	rankRoot        = 8
	rankNone        = 16
)

// Parse reads one cgroup file, of which the fields are parts afterwards. A host
// with version 2 alone has one line. Where there are several, each with a path of
// its own, the one that names a container is taken, else the first whose path is
// not the root, in the order of the ranks.
func (c *Cgroup) Parse(b []byte) error {
	*c = Cgroup{}
	best := rankNone
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte{'\n'})
		hierarchy, rest, _ := bytes.Cut(line, []byte{':'})
		controllers, path, _ := bytes.Cut(rest, []byte{':'})
		if _, ok := parseUint(hierarchy); !ok || len(path) == 0 || path[0] != '/' {
			continue // the rest of a name with a line feed, which kernels before 3.15 allow
		}
		c.Alone = best == rankNone && string(hierarchy) == "0"
		container := containerID(path)
		if rank := rankOf(controllers, path, container); rank < best {
			best = rank
			c.Path, c.Container = path, container
		}
	}
	if best == rankNone {
		return errors.New("parse cgroup: no path")
	}
	return nil
}

func rankOf(controllers, path, container []byte) int {
	rank := rankOther
	switch string(controllers) {
	case "":
		rank = rankUnified
	case "name=systemd":
		rank = rankSystemd
	case "memory":
		rank = rankMemory
	}
	switch {
	case len(path) == 1:
		return rank + rankRoot
	case container == nil:
		return rank + rankNoContainer
	}
	return rank
}

// containerID returns the id of the innermost container that a path names, or nil.
func containerID(path []byte) []byte {
	path = bytes.TrimSuffix(path, []byte(DeletedMark))
	for len(path) > 0 {
		i := bytes.LastIndexByte(path, '/')
		if id := containerOf(path[i+1:]); id != nil {
			return id
		}
		path = path[:max(i, 0)]
	}
	return nil
}

// runtimes are what container runtimes put before the id. The monitors beside
// the containers are called otherwise, libpod-conmon-ID.
var runtimes = [][]byte{
	[]byte("docker"), []byte("cri-containerd"), []byte("crio"), []byte("libpod"), []byte("libpod-payload"), []byte("nerdctl"),
}

// containerOf returns the id in one name of a path: ID, RUNTIME-ID,
// RUNTIME-ID.scope, or SLICE:RUNTIME:ID, which a runtime makes that was told of
// systemd and does not use it.
func containerOf(name []byte) []byte {
	if i := bytes.LastIndexByte(name, ':'); i >= 0 {
		return afterRuntime(name[bytes.LastIndexByte(name[:i], ':')+1:], ':')
	}
	base, scope := bytes.CutSuffix(name, []byte(".scope"))
	if !scope && isContainerID(base) {
		return base
	}
	return afterRuntime(base, '-')
}

func afterRuntime(name []byte, separator byte) []byte {
	for _, runtime := range runtimes {
		id, ok := bytes.CutPrefix(name, runtime)
		if ok && len(id) > 0 && id[0] == separator && isContainerID(id[1:]) {
			return id[1:]
		}
	}
	return nil
}

// isContainerID reports whether b is 256 bits in lower-case hexadecimal digits, as
// all these runtimes make them.
func isContainerID(b []byte) bool {
	if len(b) != 64 {
		return false
	}
	for _, c := range b {
		if c-'0' > 9 && c-'a' > 5 {
			return false
		}
	}
	return true
}
