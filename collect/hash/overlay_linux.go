package hash

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// steadyOverlay reports whether the overlay with this device number is steady. That of
// a user namespace, which anybody can make, is not: it can lie on a file system in
// memory, and the next one has its device number, and whatever inodes and times its user
// arranges. One among the mounts that the daemon sees was made by somebody who may
// mount, and is as steady as what is written to it.
func steadyOverlay(dev uint64) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	upper := upperOf(string(mounts), dev)
	var fs unix.Statfs_t
	return upper != "" && unix.Statfs(upper, &fs) == nil && uint32(fs.Type) != unix.OVERLAYFS_SUPER_MAGIC && steadyType(&fs)
}

// upperOf returns the directory that takes what is written to the overlay with this
// device number, empty if there is none among the mounts of proc_pid_mountinfo(5).
func upperOf(mountinfo string, dev uint64) string {
	number := strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev)))
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if len(mount) < 3 || len(super) < 3 || mount[2] != number || super[0] != "overlay" {
			continue
		}
		for option := range strings.SplitSeq(super[2], ",") {
			if upper, ok := strings.CutPrefix(option, "upperdir="); ok && strings.HasPrefix(upper, "/") {
				return upper
			}
		}
	}
	return ""
}
