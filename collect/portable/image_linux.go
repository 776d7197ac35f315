package portable

import (
	"context"
	"strings"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

const minCmdline = 4 << 10

// readExe fills in the path of the executable.
func (s *Scanner) readExe(ctx context.Context, asked *process.Process, p *event.Process) {
	exe, err := asked.ExeWithContext(ctx)
	if err != nil {
		miss(&p.Missing, err, event.FieldExe, event.FieldExeDeleted)
		return
	}
	p.Exe = exe
	if path, marked := strings.CutSuffix(exe, procfile.DeletedMark); marked && !s.isAt(p.PID, exe) {
		p.Exe, p.ExeDeleted = path, true
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
	p.Args, cut = procfile.SplitArgs(s.cmdline[:n])
	if cut || n == procfile.MaxCmdline {
		p.Missing.Truncated = p.Missing.Truncated.With(event.FieldArgs)
	}
}

// readCmdline reads /proc/PID/cmdline into the scanner's buffer, which grows up
// to procfile.MaxCmdline, and returns how much there is.
func (p *platform) readCmdline(pid int32) (int, error) {
	for size := max(minCmdline, len(p.cmdline)); ; size *= 4 {
		if len(p.cmdline) < size {
			p.cmdline = make([]byte, size)
		}
		n, err := readFile(p.path(pid, "cmdline"), p.cmdline)
		if err != nil || n < size || size == procfile.MaxCmdline {
			return n, err
		}
	}
}
