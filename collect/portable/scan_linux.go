package portable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	gopsutil "github.com/shirou/gopsutil/v4/common"
	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// unsupported are the fields that this source never gives on Linux.
var unsupported = event.FieldSet(0).With(event.FieldCWD).With(event.FieldLoginUID).With(event.FieldCapabilities).
	With(event.FieldCgroup).With(event.FieldContainer).With(event.FieldNamespaces).With(event.FieldEnv).
	With(event.FieldLoginSession)

// platform is what a Scanner needs on Linux.
type platform struct {
	proc     string
	env      gopsutil.EnvMap // makes gopsutil look at proc, whatever HOST_PROC says
	boot     time.Time       // as of the scan or probe in progress
	pageSize uint64
	stat     [2][procfile.MaxStat]byte // two, to compare a first with a second reading
	cmdline  []byte
}

// record is what is kept of a living process: what stat said when it was last
// read whole. Anything else than the volatile fields that stat shows is here,
// so a process that still matches has not changed as far as one can see.
type record struct {
	seen               uint64 // the last scan that saw it
	start              uint64
	comm               string // escaped
	ppid, session, tty int32
	image              procfile.Image
	argStart           uint64
}

func newPlatform(c Config) (platform, error) {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if _, err := os.Stat(c.Proc); err != nil {
		return platform{}, fmt.Errorf("find process file system: %w", err)
	}
	return platform{
		proc:     c.Proc,
		env:      gopsutil.EnvMap{gopsutil.HostProcEnvKey: c.Proc},
		pageSize: uint64(os.Getpagesize()),
	}, nil
}

// begin notes how the wall clock is set now. A process keeps the start time that
// it was first reported with, so a step of the clock moves none.
func (p *platform) begin() (err error) {
	p.boot, err = bootTime()
	return err
}

func (p *platform) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, gopsutil.EnvKey, p.env)
}

// path names a file of one process.
func (p *platform) path(pid int32, file string) string {
	var buf [64]byte
	b := append(append(buf[:0], p.proc...), '/')
	b = append(strconv.AppendInt(b, int64(pid), 10), '/')
	return string(append(b, file...))
}

// observe reads one process: its stat, and the rest if it is not known, has
// changed, or whole asks for it. Errors: [collect.ErrGone], errHidden, else the
// host's.
func (s *Scanner) observe(ctx context.Context, pid int32, whole bool) (collect.Observation, error) {
	// A process that changes under the reading is read again, once: if it still
	// changes, the next scan will see that.
	for attempt := 0; ; attempt++ {
		st, err := s.readStat(pid, &s.stat[0])
		if err != nil {
			return collect.Observation{}, err
		}
		r := s.known[pid]
		if r != nil && r.start != st.Start {
			r = nil
		}
		if r != nil && !whole && r.matches(&st) {
			r.seen = s.scans
			return s.observation(&st), nil
		}
		p, err := s.describe(ctx, &st)
		if err != nil {
			return collect.Observation{}, err
		}
		again, err := s.readStat(pid, &s.stat[1])
		if err != nil {
			return collect.Observation{}, err
		}
		if same := again.Start == st.Start; same && (attempt > 0 || newRecord(&st).matches(&again)) {
			return s.report(r, &st, p), nil
		} else if attempt > 0 {
			return collect.Observation{}, collect.ErrGone // twice another owner of the PID: none was read whole
		}
	}
}

// report makes the observation of a process that was read whole, and keeps what
// the next scan compares with. r is what was known of this same process, or nil.
func (s *Scanner) report(r *record, st *procfile.Stat, p *event.Process) collect.Observation {
	o := s.observation(st)
	o.Process = p
	next := newRecord(st)
	next.seen = s.scans
	if r == nil {
		s.known[st.PID] = next
		return o
	}
	o.ExecChanged = r.image.Known() && st.Image.Known() && r.image != st.Image
	*r = *next
	return o
}

// readStat reads and parses /proc/PID/stat into buf.
func (p *platform) readStat(pid int32, buf *[procfile.MaxStat]byte) (procfile.Stat, error) {
	n, err := readFile(p.path(pid, "stat"), buf[:])
	switch {
	case isGone(err), err == nil && n == 0:
		return procfile.Stat{}, collect.ErrGone
	case isDenied(err):
		return procfile.Stat{}, errHidden
	case err != nil:
		return procfile.Stat{}, err
	}
	var st procfile.Stat
	err = st.Parse(buf[:n])
	if err == nil && st.PID != pid {
		err = fmt.Errorf("parse stat: it is of process %d", st.PID)
	}
	return st, err
}

// readFile fills buf from the start of a file, without the cost of an os.File.
func readFile(path string, buf []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // read only: nothing to lose
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

func newRecord(st *procfile.Stat) *record {
	return &record{
		start: st.Start, comm: string(st.Comm), ppid: st.PPID, session: st.Session, tty: st.TTY,
		image: st.Image, argStart: st.ArgStart,
	}
}

// matches reports whether st shows nothing new. A process whose first thread
// has ended lost its image, terminal and session: that is no news.
func (r *record) matches(st *procfile.Stat) bool {
	if r.start != st.Start || r.comm != string(st.Comm) || r.ppid != st.PPID {
		return false
	}
	return st.Dead() || r.session == st.Session && r.tty == st.TTY && r.image == st.Image && r.argStart == st.ArgStart
}

// observation holds the volatile fields of st.
func (p *platform) observation(st *procfile.Stat) collect.Observation {
	o := collect.Observation{
		PID: st.PID, StartTicks: st.Start,
		State: st.State, Threads: st.Threads, RSS: st.RSS(p.pageSize), CPU: st.CPU(),
	}
	if st.Ended() && p.exitShown(st) {
		o.Exit = st.Exit()
	}
	return o
}

// exitShown reports whether the exit code in st is true. The kernel shows 0 to
// those who may not trace the process; the link to the executable is behind the
// same permission, and of a zombie it is merely absent.
func (p *platform) exitShown(st *procfile.Stat) bool {
	if st.ExitCode != 0 {
		return true
	}
	var buf [1]byte
	_, err := unix.Readlink(p.path(st.PID, "exe"), buf[:])
	return !isDenied(err)
}

// describe reads the whole record of a process whose stat is given. Only the
// end of ctx is an error; a field that can not be read is in the mask.
func (s *Scanner) describe(ctx context.Context, st *procfile.Stat) (*event.Process, error) {
	ctx = s.context(ctx)
	p := &event.Process{
		PID: st.PID, PPID: st.PPID,
		Name: procfile.Unescape(st.Comm), Session: st.Session, TTY: st.TTY,
		StartTicks: st.Start, StartTime: st.StartTime(s.boot),
		State: st.State, Threads: st.Threads, RSS: st.RSS(s.pageSize), CPU: st.CPU(),
		Missing: event.Mask{Unsupported: unsupported},
	}
	// No costs of process.NewProcess: stat has proved that the process is there.
	asked := &process.Process{Pid: st.PID}
	switch {
	case st.KernelThread(): // has neither, which is the truth
	case st.Dead():
		p.Missing.Gone = p.Missing.Gone.With(event.FieldExe).With(event.FieldExeDeleted).With(event.FieldArgs)
	default:
		s.readExe(ctx, asked, p)
		s.readArgs(p)
	}
	readIDs(ctx, asked, p)
	return p, ctx.Err()
}

// readIDs fills in the user and group ids.
func readIDs(ctx context.Context, asked *process.Process, p *event.Process) {
	uids, err := asked.UidsWithContext(ctx)
	if err == nil && len(uids) >= 2 {
		p.UID, p.EUID = uids[0], uids[1]
	} else {
		miss(&p.Missing, err, event.FieldUID, event.FieldEUID)
	}
	gids, err := asked.GidsWithContext(ctx)
	if err == nil && len(gids) >= 2 {
		p.GID, p.EGID = gids[0], gids[1]
	} else {
		miss(&p.Missing, err, event.FieldGID, event.FieldEGID)
	}
}

// miss records why fields could not be read.
func miss(m *event.Mask, err error, fields ...event.Field) {
	set := &m.Failed
	switch {
	case isGone(err):
		set = &m.Gone
	case isDenied(err):
		set = &m.Denied
	}
	for _, f := range fields {
		*set = set.With(f)
	}
}

func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

func isDenied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}
