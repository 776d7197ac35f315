package portable

import (
	"bytes"
	"context"
	"strings"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
)

const (
	deletedMark = " (deleted)"
	maxCmdline  = 256 << 10 // bytes read of a command line; what is recorded is cut to event.MaxArgs
	minCmdline  = 4 << 10
)

// readExe fills in the path of the executable.
func (s *Scanner) readExe(ctx context.Context, asked *process.Process, p *event.Process) {
	exe, err := asked.ExeWithContext(ctx)
	if err != nil {
		miss(&p.Missing, err, event.FieldExe, event.FieldExeDeleted)
		return
	}
	p.Exe = exe
	if strings.HasSuffix(exe, deletedMark) && !s.isAt(p.PID, exe) {
		p.Exe, p.ExeDeleted = strings.TrimSuffix(exe, deletedMark), true
	}
}

// isAt reports whether the executable of pid is the file at path, as the daemon
// or the process itself sees it: then the mark is part of the file's name.
func (p *platform) isAt(pid int32, path string) bool {
	var running, file unix.Stat_t
	if unix.Stat(p.path(pid, "exe"), &running) != nil {
		return false
	}
	for _, root := range []string{"", p.path(pid, "root")} {
		if unix.Lstat(root+path, &file) == nil && file.Dev == running.Dev && file.Ino == running.Ino {
			return true
		}
	}
	return false
}

// readArgs fills in the arguments. gopsutil drops empty arguments at the end
// and reads without a bound, so this reads the file itself.
func (s *Scanner) readArgs(p *event.Process) {
	n, err := s.readCmdline(p.PID)
	if err != nil {
		miss(&p.Missing, err, event.FieldArgs)
		return
	}
	var cut bool
	p.Args, cut = splitArgs(s.cmdline[:n])
	if cut || n == maxCmdline {
		p.Missing.Truncated = p.Missing.Truncated.With(event.FieldArgs)
	}
}

// readCmdline reads /proc/PID/cmdline into the scanner's buffer, which grows up
// to maxCmdline, and returns how much there is.
func (p *platform) readCmdline(pid int32) (int, error) {
	for size := max(minCmdline, len(p.cmdline)); ; size *= 4 {
		if len(p.cmdline) < size {
			p.cmdline = make([]byte, size)
		}
		n, err := readFile(p.path(pid, "cmdline"), p.cmdline)
		if err != nil || n < size || size == maxCmdline {
			return n, err
		}
	}
}

// splitArgs cuts a command line at its NUL bytes, of which each ends an
// argument; a title that a process wrote over its arguments may lack the last.
// It returns at most event.MaxArgCount arguments, and whether there were more.
func splitArgs(b []byte) (args []string, cut bool) {
	if len(b) == 0 {
		return nil, false
	}
	text := string(bytes.TrimSuffix(b, []byte{0}))
	n := strings.Count(text, "\x00") + 1
	args = make([]string, 0, min(n, event.MaxArgCount))
	for len(args) < cap(args) {
		var arg string
		arg, text, _ = strings.Cut(text, "\x00")
		args = append(args, arg)
	}
	return args, n > event.MaxArgCount
}
