package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What the file system of the store must have room for: what the store keeps free,
// and some, and files of which it needs a few at once.
const (
	leastFree  = 64 << 20
	leastFiles = 64
)

// disk says whether the store has room to grow.
func (e *examiner) disk() Check {
	c := Check{Name: "disk", Status: Pass}
	dir := e.Database
	if _, err := os.Stat(dir); err != nil {
		dir = existingParent(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		c.Status, c.Finding, c.Cost = Note, fmt.Sprintf("The file system of %s does not say what is free: %v.", dir, err), "Nobody knows for how long it lasts."
		c.Mend = "df -h " + quote(dir)
		return c
	}
	judgeDisk(&c, spaceOf(&st), dir, size(e.Database), e.KeepBytes)
	return c
}

// space is what a file system has left.
type space struct {
	free     uint64 // bytes, for an ordinary user
	files    uint64
	counted  bool // it counts files at all
	readOnly bool
	kind     string // "tmpfs", "nfs", "" for the others
}

// judgeDisk judges what is left for a store that has used bytes and may keep so
// many.
func judgeDisk(c *Check, s space, dir string, used, keep uint64) {
	most := "without a bound"
	if keep > 0 {
		most = "of at most " + bytesText(keep)
	}
	c.Finding = fmt.Sprintf("%s free on the file system of %s; the store has %s %s.", bytesText(s.free), dir, bytesText(used), most)
	c.Mend = "df -h " + quote(dir) + "; make room, or lower --retention"
	switch {
	case s.readOnly:
		c.Status, c.Finding = Fail, "The file system of "+dir+" is mounted read-only."
		c.Cost, c.Mend = "Nothing can be recorded.", "mount -o remount,rw, or give another --database"
	case s.free < leastFree:
		c.Status, c.Cost = Fail, "The store goes out of service: processes that come and go meanwhile are not recorded."
	case s.counted && s.files < leastFiles:
		c.Status, c.Cost = Fail, fmt.Sprintf("Only %d more files can be made: the store goes out of service.", s.files)
		c.Mend = "df -i " + quote(dir)
	case s.kind == "tmpfs":
		c.Status, c.Cost = Note, "It is a file system in memory: what is recorded is lost when the host goes down."
		c.Mend = "Give a --database on a disk."
	case s.kind == "nfs":
		c.Status, c.Cost = Note, "It is a file system over the network: each batch waits for it, and nothing is recorded while it is away."
		c.Mend = "Give a --database on a local disk."
	case keep > used && s.free-leastFree < keep-used:
		c.Status, c.Cost = Note, "The disk is full before the store has what it may keep; then it goes out of service."
	default:
		c.Mend = ""
	}
}

// size is what the files in a directory have, as far as we may see.
func size(dir string) uint64 {
	total := uint64(0)
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what can not be seen is not counted
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			total += uint64(info.Size())
		}
		return nil
	})
	return total
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
