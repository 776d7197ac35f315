package procfile

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// TicksPerSecond is how many clock ticks /proc counts in a second: 100 on each
// architecture that Go runs on, whatever the kernel's own timer does.
const TicksPerSecond = 100

// Tick is one clock tick of /proc.
const Tick = time.Second / TicksPerSecond

// MaxStat is more than a stat file can have: 52 numbers and a name.
const MaxStat = 2048

// Flags of field 9 of stat, from the kernel's sched.h. User space relies on
// them (ps does), so they do not move.
const (
	flagWorker        = 0x20     // PF_WQ_WORKER: a worker of the kernel's work queues
	flagKernelThread  = 0x200000 // PF_KTHREAD
	lastRequiredField = 24       // those after it are absent from old kernels or hidden
)

// Stat is what procmond uses of one /proc/PID/stat, proc_pid_stat(5).
type Stat struct {
	PID, PPID    int32
	Comm         []byte // escaped as in the file, of which it is a part: see [Unescape]
	State        event.State
	Session, TTY int32
	Flags        uint32
	CPUTicks     uint64 // of all threads, ended ones too
	Threads      int32
	Start        uint64 // ticks since boot
	RSSPages     int64
	Image        Image
	ArgStart     uint64
	ExitCode     int32 // wait status; 0 also if the kernel hides it
}

// Image tells two images of one process apart: their addresses are chosen anew
// at each exec. The zero stack means that the kernel hides them, or that there
// is no image.
type Image struct {
	StartCode, EndCode, StartStack uint64
}

// Known reports whether the kernel shows the image.
func (i Image) Known() bool { return i.StartStack != 0 }

// Dead reports whether the first thread has ended. Its image is gone then.
func (s *Stat) Dead() bool { return s.State == event.StateZombie || s.State == 'X' || s.State == 'x' }

// Ended reports whether the whole process has ended and waits to be reaped.
func (s *Stat) Ended() bool { return s.Dead() && s.Threads <= 1 }

// KernelThread reports whether it is a part of the kernel, which has neither an
// executable nor arguments.
func (s *Stat) KernelThread() bool { return s.Flags&flagKernelThread != 0 }

// CPU is field 14 plus field 15 as a time.
func (s *Stat) CPU() time.Duration {
	if s.CPUTicks > math.MaxInt64/uint64(Tick) {
		return math.MaxInt64
	}
	return time.Duration(s.CPUTicks) * Tick
}

// RSS is the resident size in bytes. The counters that the kernel adds up for it
// lag behind, and can add up to less than nothing.
func (s *Stat) RSS(pageSize uint64) uint64 { return uint64(max(s.RSSPages, 0)) * pageSize }

// maxUptime is beyond doubt; a later start is nonsense.
const maxUptime = 100 * 365 * 24 * time.Hour

// StartTime is the start on the wall clock that says that the host was booted at
// boot, to the tick; zero if it is nonsense.
func (s *Stat) StartTime(boot time.Time) time.Time {
	if s.Start > uint64(maxUptime/Tick) {
		return time.Time{}
	}
	return boot.Add(time.Duration(s.Start) * Tick).Truncate(Tick)
}

// Parse reads one stat file, of which s.Comm is a part afterwards. The name in it
// is the process's own choice and may hold brackets and spaces, so the fields
// begin after the last bracket.
func (s *Stat) Parse(b []byte) error {
	*s = Stat{}
	begin, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if begin < 1 || end < begin {
		return errors.New("parse stat: no name in brackets")
	}
	pid, ok := parseInt32(bytes.TrimRight(b[:begin], " "))
	if !ok {
		return fmt.Errorf("parse stat: bad process id %q", b[:begin])
	}
	s.PID, s.Comm = pid, b[begin+1:end]
	rest, n := bytes.TrimSpace(b[end+1:]), 3
	for ; len(rest) > 0; n++ {
		field := rest
		if i := bytes.IndexByte(rest, ' '); i >= 0 {
			field, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		if !s.set(n, field) {
			return fmt.Errorf("parse stat: bad field %d: %q", n, field)
		}
	}
	if n <= lastRequiredField {
		return fmt.Errorf("parse stat: %d fields, want at least %d", n-1, lastRequiredField)
	}
	if s.Flags&flagWorker != 0 {
		s.Comm = workerName(s.Comm)
	}
	return nil
}

// set takes the text of field n and reports whether it is well formed.
func (s *Stat) set(n int, field []byte) (ok bool) {
	switch n {
	case 3:
		ok = len(field) == 1
		if ok {
			s.State = event.State(field[0])
		}
	case 4:
		s.PPID, ok = parseInt32(field)
	case 6:
		s.Session, ok = parseInt32(field)
	case 7:
		s.TTY, ok = parseInt32(field)
	case 9:
		var v uint64
		v, ok = parseUint(field)
		s.Flags = uint32(v)
	case 14, 15:
		var v uint64
		v, ok = parseUint(field)
		s.CPUTicks += v
	case 20:
		s.Threads, ok = parseInt32(field)
	case 22:
		s.Start, ok = parseUint(field)
	case 24:
		s.RSSPages, ok = parseInt(field)
	default:
		ok = s.setImage(n, field)
	}
	return ok
}

// setImage is set for the fields that the kernel hides from some readers.
func (s *Stat) setImage(n int, field []byte) (ok bool) {
	switch n {
	case 26:
		s.Image.StartCode, ok = parseUint(field)
	case 27:
		s.Image.EndCode, ok = parseUint(field)
	case 28:
		s.Image.StartStack, ok = parseUint(field)
	case 48:
		s.ArgStart, ok = parseUint(field)
	case 52:
		s.ExitCode, ok = parseInt32(field)
	default:
		ok = true // not used
	}
	return ok
}

// workerName cuts what a work queue worker is doing, "kworker/0:1-events" or
// "kworker/0:1+events", from its name: it changes all the time. A rescuer,
// "kworker/R-NAME", has its queue's name there, which does not.
func workerName(comm []byte) []byte {
	if bytes.HasPrefix(comm, []byte("kworker/R-")) {
		return comm
	}
	if i := bytes.IndexAny(comm, "+-"); i > 0 {
		return comm[:i]
	}
	return comm
}

// Unescape gives a name back its line feeds and backslashes, the only bytes
// that the kernel escapes in stat.
func Unescape(comm []byte) string {
	if bytes.IndexByte(comm, '\\') < 0 {
		return string(comm)
	}
	out := make([]byte, 0, len(comm))
	for i := 0; i < len(comm); i++ {
		if comm[i] == '\\' && i+1 < len(comm) {
			switch comm[i+1] {
			case 'n':
				out = append(out, '\n')
				i++
				continue
			case '\\':
				i++
			}
		}
		out = append(out, comm[i])
	}
	return string(out)
}

// The parts of a wait status, wait(2).
const (
	waitSignal  = 0x7f
	waitCore    = 0x80
	waitStopped = 0x7f
)

// Exit turns the wait status into how the process ended.
func (s *Stat) Exit() *event.Exit {
	e := &event.Exit{CPU: s.CPU()}
	if signal := s.ExitCode & waitSignal; signal != 0 && signal != waitStopped {
		e.Signal, e.Core = signal, s.ExitCode&waitCore != 0
	} else {
		e.Code = s.ExitCode >> 8 & 0xff
	}
	return e
}
