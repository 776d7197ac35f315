package zoo

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Fixture is a made-up /proc.
type Fixture struct {
	T   testing.TB
	Dir string
}

// Entry is one made-up process: what its files hold; what is empty is not there.
type Entry struct {
	Stat, Cmdline, Status, Exe string
}

// NewFixture is a host without processes.
func NewFixture(t testing.TB) Fixture { return Fixture{T: t, Dir: t.TempDir()} }

// Sleeper is an ordinary process, which started so many ticks after the host.
func Sleeper(pid int, start uint64) Entry {
	line := strings.Replace(statLine("sleeper", 0), "4711 (", strconv.Itoa(pid)+" (", 1)
	return Entry{
		Stat:    strings.Replace(line, " 275790 ", fmt.Sprintf(" %d ", start), 1),
		Cmdline: "sleeper\x00--for\x00ever\x00",
		Status:  "Name:\tsleeper\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapEff:\t0000000000000005\n",
		Exe:     "/usr/bin/sleeper",
	}
}

// statLine is a line of kernel 6.18 with the name and the exit code given.
func statLine(comm string, exit int) string {
	return fmt.Sprintf("4711 (%s) S 815 4711 815 34816 -1 4194304 98 7 6 5 250 50 9 8 20 0 3 0 275790 3133440 362 "+
		"18446744073709551615 94248873189376 94248873209257 140733729086000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 "+
		"94248873225264 94248873226880 94249401368576 140733729090037 140733729090057 140733729090057 "+
		"140733729091563 %d\n", comm, exit)
}

// Put makes e the owner of a PID.
func (f Fixture) Put(pid int, e Entry) {
	f.T.Helper()
	dir := f.Path(pid, "")
	f.Remove(pid)
	f.Must(os.MkdirAll(dir, 0o755)) //nolint:gosec // it is no secret
	for name, content := range map[string]string{"stat": e.Stat, "cmdline": e.Cmdline, "status": e.Status} {
		if content != "" {
			f.Must(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)) //nolint:gosec // it is no secret
		}
	}
	if e.Exe != "" {
		f.Must(os.Symlink(e.Exe, filepath.Join(dir, "exe")))
	}
}

// Remove makes a PID that of nobody.
func (f Fixture) Remove(pid int) {
	f.T.Helper()
	f.Must(os.RemoveAll(f.Path(pid, "")))
}

// Path is that of a file of a process.
func (f Fixture) Path(pid int, file string) string {
	return filepath.Join(f.Dir, strconv.Itoa(pid), file)
}

// Must ends the test at an error.
func (f Fixture) Must(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatal(err)
	}
}

// DuringReading calls change once, while somebody reads the arguments of pid.
func (f Fixture) DuringReading(pid int, change func()) {
	f.T.Helper()
	cmdline := f.Path(pid, "cmdline")
	f.Must(os.Remove(cmdline))
	f.Must(unix.Mkfifo(cmdline, 0o600))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w, err := os.OpenFile(cmdline, os.O_WRONLY, 0) // waits for the reader
		if err != nil {
			f.T.Error(err)
			return
		}
		change()
		_, _ = w.WriteString(Sleeper(pid, 1).Cmdline) // what the reader does with it does not matter
		_ = w.Close()
	}()
	f.T.Cleanup(func() {
		// Without a reader, because the test failed, the goroutine would wait for ever.
		if r, err := os.OpenFile(cmdline, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = r.Close()
		}
		<-done
	})
}
