//go:build !linux

package doctor

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host are the checks of this platform.
func (e *examiner) host() []Check { return []Check{e.kernel(), e.rights()} }

func (e *examiner) kernel() Check {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Check{}
	}
	text := func(b []byte) string { return strings.TrimRight(string(b), "\x00") }
	return Check{Name: "kernel", Status: Pass, Finding: text(name.Sysname[:]) + " " + text(name.Release[:]) + "."}
}

// rights is about this user: those of another process are not shown here.
func (e *examiner) rights() Check {
	c := Check{Name: "rights", Status: Pass, Finding: fmt.Sprintf("This user has id %d.", os.Geteuid())}
	if os.Geteuid() != 0 {
		c.Status = Note
		c.Cost = "A procmond that you start sees arguments and executables of your own processes only."
		c.Mend = "sudo procmond, or a service: procmond service print --launchd"
	}
	return c
}

func (e *examiner) clock(now time.Time) Check { return wallClock(now, e.storeChanged()) }

// files is about this user.
func (e *examiner) files() Check {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return Check{}
	}
	return judgeFiles("A procmond that you start", uint64(limit.Cur))
}

func spaceOf(st *unix.Statfs_t) space {
	return space{
		free: uint64(max(0, int64(st.Bavail))) * uint64(st.Bsize), files: uint64(max(0, int64(st.Ffree))), counted: st.Files > 0,
		readOnly: uint64(st.Flags)&unix.MNT_RDONLY != 0,
	}
}
