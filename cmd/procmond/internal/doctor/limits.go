package doctor

import (
	"fmt"
	"os"
	"time"
)

// What a procmond has open at most: its store some 100, clients 32, a snapshot a few.
const (
	fewFiles    = 256
	enoughFiles = 1024
)

func judgeFiles(subject string, most uint64) Check {
	c := Check{Name: "open files", Status: Pass, Finding: fmt.Sprintf("%s may have %d files open.", subject, most)}
	c.Mend = "ulimit -n 4096; in a unit LimitNOFILE=4096"
	switch {
	case most >= unlimitedFiles:
		c.Finding, c.Mend = subject+" may have any number of files open.", ""
	case most < fewFiles:
		c.Status, c.Cost = Fail, "The store can not open its files."
	case most < enoughFiles:
		c.Status, c.Cost = Note, "With many clients the store may not open its files."
	default:
		c.Mend = ""
	}
	return c
}

// unlimitedFiles is more than any kernel allows.
const unlimitedFiles = 1 << 40

// builtAfter is before this program was made.
var builtAfter = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clockSlack is by how much the store may seem newer than now: a file system over
// the network has a clock of its own.
const clockSlack = time.Minute

// wallClock judges the time of day by what it can not be. changed is when the
// store was last written, zero if there is none.
func wallClock(now, changed time.Time) Check {
	c := Check{Name: "clock", Status: Pass, Finding: "The wall clock says " + now.Local().Format(time.RFC3339) + "."}
	c.Mend = "timedatectl set-ntp true"
	switch {
	case now.Before(builtAfter):
		c.Status, c.Cost = Fail, "It can not be so: procmond is younger. Events get that time, and retention waits or removes too much."
	case !changed.IsZero() && changed.Sub(now) > clockSlack:
		c.Status = Fail
		c.Finding += fmt.Sprintf(" The store was written at %s.", changed.Local().Format(time.RFC3339))
		c.Cost = "The clock was set back: queries by time are wrong for that while, and retention waits."
	default:
		c.Mend = ""
	}
	return c
}

// storeChanged is when a file of the store was last written, as far as we may see.
func (e *examiner) storeChanged() time.Time {
	entries, err := os.ReadDir(e.Database)
	if err != nil {
		return time.Time{}
	}
	var newest time.Time
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}
