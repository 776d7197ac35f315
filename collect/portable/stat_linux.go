package portable

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
)

// userHZ is how many clock ticks /proc counts in a second: 100 on each
// architecture that Go runs on, whatever the kernel's own timer does.
const userHZ = 100

// tick is one clock tick of /proc.
const tick = time.Second / userHZ

// Flags of field 9 of stat, from the kernel's sched.h. User space relies on
// them (ps does), so they do not move.
const (
	flagWorker        = 0x20     // PF_WQ_WORKER: a worker of the kernel's work queues
	flagKernelThread  = 0x200000 // PF_KTHREAD
	lastRequiredField = 24       // those after it are absent from old kernels or hidden
)

// stat is what procmond uses of one /proc/PID/stat, proc_pid_stat(5).
type stat struct {
	pid, ppid    int32
	comm         []byte // escaped as in the file; valid until the buffer is read into again
	state        event.State
	session, tty int32
	flags        uint32
	cpu          uint64 // ticks, of all threads, ended ones too
	threads      int32
	start        uint64 // ticks since boot
	rss          int64  // pages
	image        image
	argStart     uint64
	exitCode     int32 // wait status; 0 also if the kernel hides it
}

// image tells two images of one process apart: their addresses are chosen anew
// at each exec. The zero stack means that the kernel hides them, or that there
// is no image.
type image struct {
	startCode, endCode, startStack uint64
}

// known reports whether the kernel shows the image.
func (i image) known() bool { return i.startStack != 0 }

// dead reports whether the first thread has ended. Its image is gone then.
func (s *stat) dead() bool { return s.state == event.StateZombie || s.state == 'X' || s.state == 'x' }

// ended reports whether the whole process has ended and waits to be reaped.
func (s *stat) ended() bool { return s.dead() && s.threads <= 1 }

func (s *stat) kernelThread() bool { return s.flags&flagKernelThread != 0 }

// cpuTime is field 14 plus field 15 as a time.
func (s *stat) cpuTime() time.Duration {
	if s.cpu > math.MaxInt64/uint64(tick) {
		return math.MaxInt64
	}
	return time.Duration(s.cpu) * tick
}

// parseStat reads one stat file. The name in it is the process's own choice and
// may hold brackets and spaces, so the fields begin after the last bracket.
func parseStat(b []byte) (stat, error) {
	var s stat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return s, errors.New("parse stat: no name in brackets")
	}
	pid, ok := parseInt32(bytes.TrimRight(b[:open], " "))
	if !ok {
		return s, fmt.Errorf("parse stat: bad process id %q", b[:open])
	}
	s.pid, s.comm = pid, b[open+1:end]
	rest, n := bytes.TrimSpace(b[end+1:]), 3
	for ; len(rest) > 0; n++ {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte{' '})
		if !s.set(n, field) {
			return s, fmt.Errorf("parse stat: bad field %d: %q", n, field)
		}
	}
	if n <= lastRequiredField {
		return s, fmt.Errorf("parse stat: %d fields, want at least %d", n-1, lastRequiredField)
	}
	if s.flags&flagWorker != 0 {
		s.comm = workerName(s.comm)
	}
	return s, nil
}

// set takes the text of field n and reports whether it is well formed.
func (s *stat) set(n int, field []byte) (ok bool) {
	switch n {
	case 3:
		ok = len(field) == 1
		if ok {
			s.state = event.State(field[0])
		}
	case 4:
		s.ppid, ok = parseInt32(field)
	case 6:
		s.session, ok = parseInt32(field)
	case 7:
		s.tty, ok = parseInt32(field)
	case 9:
		var v uint64
		v, ok = parseUint(field)
		s.flags = uint32(v)
	case 14, 15:
		var v uint64
		v, ok = parseUint(field)
		s.cpu += v
	case 20:
		s.threads, ok = parseInt32(field)
	case 22:
		s.start, ok = parseUint(field)
	case 24:
		s.rss, ok = parseInt(field)
	default:
		ok = s.setImage(n, field)
	}
	return ok
}

// setImage is set for the fields that the kernel hides from some readers.
func (s *stat) setImage(n int, field []byte) (ok bool) {
	switch n {
	case 26:
		s.image.startCode, ok = parseUint(field)
	case 27:
		s.image.endCode, ok = parseUint(field)
	case 28:
		s.image.startStack, ok = parseUint(field)
	case 48:
		s.argStart, ok = parseUint(field)
	case 52:
		s.exitCode, ok = parseInt32(field)
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

// unescape gives a name back its line feeds and backslashes, the only bytes
// that the kernel escapes in stat.
func unescape(comm []byte) string {
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

// exit turns the wait status into how the process ended.
func (s *stat) exit() *event.Exit {
	e := &event.Exit{CPU: s.cpuTime()}
	switch w := unix.WaitStatus(uint32(s.exitCode)); {
	case w.Signaled():
		e.Signal, e.Core = int32(w.Signal()), w.CoreDump()
	default:
		e.Code = int32(w >> 8 & 0xff)
	}
	return e
}

func parseUint(b []byte) (uint64, bool) {
	var v uint64
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || v > (math.MaxUint64-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, len(b) > 0
}

func parseInt(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	v, ok := parseUint(b)
	if !ok || v > math.MaxInt64 {
		return 0, false
	}
	if negative {
		return -int64(v), true
	}
	return int64(v), true
}

func parseInt32(b []byte) (int32, bool) {
	v, ok := parseInt(b)
	return int32(v), ok && v == int64(int32(v))
}
