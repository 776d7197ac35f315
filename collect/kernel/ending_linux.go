package kernel

import (
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// The kernel tells of the end of each thread, and of none that it is the last. Where
// there was one only, it is. Else /proc says so, which is about the present: of what
// happened between the message and that, messages are yet to come.

// threadExit is what was told of the end of a thread.
type threadExit struct {
	status, parent int32 // the parent is 0 if it was not told
	at             time.Duration
	cpu            int
}

func (t *tracker) threadEnded(m *message) {
	thread, pid := m.task()
	x := threadExit{at: t.clock.boot(m.at), cpu: int(m.cpu)}
	x.status, x.parent = m.exit()
	if d := t.displaced[pid]; d != nil && thread == pid && x.parent == 0 {
		delete(t.displaced, pid)
		d.exit = x
		t.tellExit(pid, d)
		return
	}
	l := t.lives[pid]
	switch {
	case l == nil && thread == pid:
		t.strangerEnded(pid, x)
	case l == nil: // of a process that has ended, or was never told of
	case thread != pid && !l.led && !l.ending:
	case l.threaded || l.doubts != t.doubts:
		l.exit = x
		t.examine(pid, l)
	default:
		l.exit = x
		delete(t.lives, pid)
		t.tellExit(pid, l)
	}
}

// strangerEnded is for a process of which nothing was told before its first thread has
// ended.
func (t *tracker) strangerEnded(pid int32, x threadExit) {
	l := &life{threaded: true, doubts: t.doubts, exit: x}
	if st, err := t.settled(pid); err == nil && start(&st) <= x.at {
		if !st.Dead() {
			return // another thread has taken the place of the first
		}
		l.start, l.parent = start(&st), st.PPID
	}
	t.remember(pid, l)
	t.examine(pid, l)
}

// examine looks whether a process has ended, of which a thread has, or its first thread
// at least. If neither, that thread was the first one until another one ran a program
// and took its place.
func (t *tracker) examine(pid int32, l *life) {
	st, err := t.settled(pid)
	switch {
	case err != nil, start(&st) > l.exit.at, !l.is(&st), st.Ended():
		if !l.ending {
			l.ending, l.examined = true, t.clock.monotonic()
			t.endings = append(t.endings, pid)
		}
	default:
		l.led = st.Dead()
	}
}

// finish tells of what has ended. All messages must have been taken that were sent
// until then, monotonic: a program that was run before the process was examined is
// another image's life, which may have ended since.
func (t *tracker) finish(until time.Duration) {
	left := t.endings[:0]
	for _, pid := range t.endings {
		switch l := t.lives[pid]; {
		case l == nil || !l.ending:
		case l.examined > until:
			left = append(left, pid)
		default:
			delete(t.lives, pid)
			t.tellExit(pid, l)
		}
	}
	t.endings = left
}

// maxUnsettled bounds how often settled looks: some hundred microseconds.
const maxUnsettled = 50

// settled reads the stat file of a process that is not just being taken apart, as one
// is that is reaped, and also a first thread whose place another one takes: a moment
// later there is nobody with the PID, or the other one. In that moment the process is
// not in /proc, or is there without a session; signals do find it.
func (t *tracker) settled(pid int32) (st procfile.Stat, err error) {
	for range maxUnsettled {
		st, _, err = t.files.stat(pid)
		if err == nil && !takenApart(&st) || err != nil && !t.files.exists(pid) {
			break
		}
	}
	return st, err
}

// takenApart reports whether what belongs to the process as a whole is gone already.
func takenApart(st *procfile.Stat) bool { return st.Session < 0 && st.Dead() && st.Threads == 0 }

// unsupportedAtExit are what the kernel's message does not have.
var unsupportedAtExit = event.FieldSet(0).With(event.FieldCPU).With(event.FieldRSS)

func (t *tracker) tellExit(pid int32, l *life) {
	x := l.exit
	if l.displaced != 0 && (x.at == 0 || x.at >= l.displaced) {
		x.at = l.displaced - 1 // it has ended before another one could have its PID
	}
	r := Record{
		Kind: KindExit, PID: pid, PPID: x.parent, At: x.at, CPU: x.cpu, Exit: exitStatus(x.status),
		Missing: event.Mask{Unsupported: unsupportedAtExit},
	}
	l.identify(&r)
	if p := t.lives[x.parent]; x.parent != 0 && p != nil {
		r.ParentStart = p.exactStart()
	}
	if x.parent == 0 {
		r.PPID, r.ParentStart = t.livingParent(l)
	}
	t.records = append(t.records, r)
}

// exitStatus takes a status apart as wait(2) has it.
func exitStatus(status int32) *event.Exit {
	e := &event.Exit{Signal: status & 0x7f, Core: status&0x80 != 0}
	if e.Signal == 0 {
		e.Code = status >> 8 & 0xff
	}
	return e
}
