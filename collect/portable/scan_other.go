//go:build !linux

package portable

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

// millisPerSecond is the unit of start times here.
const millisPerSecond = 1000

// unsupported are the fields that this source never gives here.
var unsupported = event.FieldSet(0).With(event.FieldCWD).With(event.FieldLoginUID).With(event.FieldSession).
	With(event.FieldTTY).With(event.FieldCapabilities).With(event.FieldCgroup).With(event.FieldContainer).
	With(event.FieldNamespaces).With(event.FieldEnv).With(event.FieldState).With(event.FieldExeDeleted).
	With(event.FieldLoginSession)

// platform is what a Scanner needs here: nothing.
type platform struct{}

// record is what is kept of a living process.
type record struct {
	seen   uint64 // the last scan that saw it
	start  uint64
	name   string
	parent int32
	exe    string // of the last whole reading, "" if unknown
}

func newPlatform(Config) (platform, error) { return platform{}, nil }

func (*platform) begin() error { return nil }

func (*platform) context(ctx context.Context) context.Context { return ctx }

// observe reads one process: when it started, its name and parent, and the rest
// if it is not known, has changed, or whole asks for it. Errors:
// [collect.ErrGone], else the end of ctx.
func (s *Scanner) observe(ctx context.Context, pid int32, whole bool) (collect.Observation, error) {
	// A fresh one each time: gopsutil never asks a second time for a start.
	asked := &process.Process{Pid: pid}
	now, err := glance(ctx, asked)
	if err != nil {
		return collect.Observation{}, err
	}
	r := s.known[pid]
	if r != nil && r.start != now.start {
		r = nil
	}
	o := volatileFields(ctx, asked, now.start)
	if r != nil && !whole && r.name == now.name && r.parent == now.parent {
		r.seen = s.scans
		return o, ctx.Err()
	}
	o.Process = describe(ctx, asked, now, o)
	again, err := glance(ctx, &process.Process{Pid: pid})
	switch {
	case err != nil:
		return collect.Observation{}, err
	case again.start != now.start: // another owner, to be seen by the next scan
		return collect.Observation{}, collect.ErrGone
	}
	if err := ctx.Err(); err != nil {
		return collect.Observation{}, err // before anything is kept that is not reported
	}
	now.exe, now.seen = o.Process.Exe, s.scans
	if r != nil {
		o.ExecChanged = r.exe != "" && now.exe != "" && r.exe != now.exe
	}
	s.known[pid] = now
	return o, nil
}

// glance reads what tells whether a process has changed.
func glance(ctx context.Context, asked *process.Process) (*record, error) {
	created, err := asked.CreateTimeWithContext(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, collect.ErrGone
	}
	r := &record{start: uint64(max(created, 0))}
	if r.name, err = asked.NameWithContext(ctx); err != nil {
		r.name = ""
	}
	if r.parent, err = asked.PpidWithContext(ctx); err != nil {
		r.parent = 0
	}
	return r, nil
}

// volatileFields reads the fields that are read each time, as far as they can be.
func volatileFields(ctx context.Context, asked *process.Process, start uint64) collect.Observation {
	o := collect.Observation{PID: asked.Pid, StartTicks: start}
	if n, err := asked.NumThreadsWithContext(ctx); err == nil {
		o.Threads = n
	}
	if m, err := asked.MemoryInfoWithContext(ctx); err == nil && m != nil {
		o.RSS = m.RSS
	}
	if t, err := asked.TimesWithContext(ctx); err == nil && t != nil {
		o.CPU = seconds(t.User + t.System)
	}
	return o
}

func seconds(f float64) time.Duration {
	if f > 0 && f < math.MaxInt64/1e9 {
		return time.Duration(f * 1e9)
	}
	return 0
}

// describe reads the whole record.
func describe(ctx context.Context, asked *process.Process, now *record, o collect.Observation) *event.Process {
	p := &event.Process{
		PID: asked.Pid, PPID: now.parent, Name: now.name,
		StartTicks: now.start, StartTime: time.UnixMilli(int64(now.start)),
		Threads: o.Threads, RSS: o.RSS, CPU: o.CPU,
		Missing: event.Mask{Unsupported: unsupported},
	}
	if p.Name == "" {
		miss(&p.Missing, nil, event.FieldName)
	}
	if o.Threads == 0 { // the same call gives all three
		miss(&p.Missing, nil, event.FieldThreads, event.FieldRSS, event.FieldCPU)
	}
	var err error
	if p.Exe, err = asked.ExeWithContext(ctx); err != nil {
		p.Exe = ""
		miss(&p.Missing, err, event.FieldExe)
	}
	if p.Args, err = asked.CmdlineSliceWithContext(ctx); err != nil {
		p.Args = nil
		miss(&p.Missing, err, event.FieldArgs)
	}
	readIDs(ctx, asked, p)
	return p
}

// readIDs fills in the user and group ids. macOS gives one user id, the
// effective one.
func readIDs(ctx context.Context, asked *process.Process, p *event.Process) {
	uids, err := asked.UidsWithContext(ctx)
	switch {
	case err != nil || len(uids) == 0:
		miss(&p.Missing, err, event.FieldUID, event.FieldEUID)
	case runtime.GOOS == "darwin" || len(uids) == 1:
		p.EUID = uids[0]
		p.Missing.Unsupported = p.Missing.Unsupported.With(event.FieldUID)
	default:
		p.UID, p.EUID = uids[0], uids[1]
	}
	gids, err := asked.GidsWithContext(ctx)
	if err != nil || len(gids) < 2 {
		miss(&p.Missing, err, event.FieldGID, event.FieldEGID)
		return
	}
	p.GID, p.EGID = gids[0], gids[1]
}

// miss records why fields could not be read, as far as gopsutil says: outside
// Linux it hides most causes.
func miss(m *event.Mask, err error, fields ...event.Field) {
	set := &m.Failed
	switch {
	case errors.Is(err, process.ErrorProcessNotRunning):
		set = &m.Gone
	case errors.Is(err, process.ErrorNotPermitted), errors.Is(err, fs.ErrPermission):
		set = &m.Denied
	case err != nil && err.Error() == "not implemented yet": // gopsutil does not export it
		set = &m.Unsupported
	}
	for _, f := range fields {
		*set = set.With(f)
	}
}
