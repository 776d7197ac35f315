package kernel

import (
	"bytes"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/hung"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

const (
	// maxLives bounds what is remembered of processes: some 15 MB at worst.
	maxLives     = 1 << 16
	maxDisplaced = 1 << 10
)

// tracker makes records of messages. It remembers the processes that it was told of
// until they end: an exit has a PID and no more, and what a child inherits can not be
// asked for when it is gone.
type tracker struct {
	files *processFiles
	clock bootClock
	lives map[int32]*life
	// displaced are processes that have lost their PID to another one before their exit
	// was told: the kernel does that after the process may be reaped.
	displaced map[int32]*life
	doubts    uint32   // how often messages were lost
	swept     uint32   // doubts at the last sweep
	endings   []int32  // lives that are ending
	records   []Record // made, in the order of the messages
}

// handed are the fields that a child has from its parent.
var handed = idFields | sessionFields | event.FieldSet(0).With(event.FieldName)

// life is what is known of a living process.
type life struct {
	start        time.Duration // 0 if not known
	approx       bool
	parent       int32
	parentStart  time.Duration
	comm         string
	status       procfile.Status
	session, tty int32
	have         event.FieldSet // which of handed are known
	doubts       uint32         // of the tracker, when it was known to be right
	threaded     bool           // it has had other threads than the first
	led          bool           // the first thread has ended, and it has not
	ending       bool           // all of its threads have, unless those were of an image before the present one
	examined     time.Duration  // when that was seen, monotonic
	exit         threadExit     // of the thread that ended last
	read         uint64         // when reading its image ended, monotonic; or 0
	image        procfile.Image
	displaced    time.Duration // when another process had the PID
}

func newTracker(files *processFiles, clock bootClock) *tracker {
	return &tracker{files: files, clock: clock, lives: make(map[int32]*life), displaced: make(map[int32]*life)}
}

// doubt says that messages were lost: what is remembered is to be looked at again
// before it is believed.
func (t *tracker) doubt() {
	t.doubts++
	clear(t.displaced)
}

// sweep forgets, once after losses, who is not there any more and was not said to end.
func (t *tracker) sweep() {
	if t.swept == t.doubts {
		return
	}
	t.swept = t.doubts
	for pid, l := range t.lives {
		if l.doubts != t.doubts && !t.files.exists(pid) {
			delete(t.lives, pid)
		}
	}
}

// take makes the record of a message, if there is one. Its only error is
// [hung.ErrAbandoned]: then it has done nothing yet.
func (t *tracker) take(w *hung.Worker, m *message) error {
	switch m.what {
	case whatFork:
		t.fork(m)
	case whatExec:
		return t.exec(w, m)
	case whatExit:
		t.threadEnded(m)
	case whatUID, whatGID, whatSID, whatComm:
		t.changed(m)
	}
	return nil
}

// changed keeps up with what children will inherit.
func (t *tracker) changed(m *message) {
	thread, pid := m.task()
	l := t.lives[pid]
	if l == nil || thread != pid {
		return
	}
	switch m.what {
	case whatUID: // which takes or gives capabilities too
		l.status.UID, l.status.EUID = m.ids()
		l.have = l.have.Without(event.FieldCapabilities)
	case whatGID:
		l.status.GID, l.status.EGID = m.ids()
	case whatSID:
		l.session, l.tty = pid, 0
	case whatComm:
		name, _, _ := bytes.Cut(m.comm(), []byte{0})
		l.comm = string(name)
	}
}

func (t *tracker) fork(m *message) {
	parentPID, thread, pid := m.fork()
	if thread != pid {
		if l := t.lives[pid]; l != nil {
			l.threaded = true
		}
		return
	}
	at := t.clock.boot(m.at)
	t.displace(pid, m, at)
	child := &life{parent: parentPID, doubts: t.doubts}
	child.start, child.approx = t.startOf(pid, at)
	if p := t.parent(parentPID, at); p != nil {
		child.parentStart = p.exactStart()
		child.comm, child.status, child.session, child.tty, child.have = p.comm, p.status, p.session, p.tty, p.have
	}
	t.remember(pid, child)
	r := Record{Kind: KindFork, PID: pid, PPID: parentPID, ParentStart: child.parentStart, At: at, CPU: int(m.cpu)}
	child.identify(&r)
	child.describe(&r, handed)
	t.records = append(t.records, r)
}

// displace takes the PID from whoever had it.
func (t *tracker) displace(pid int32, m *message, at time.Duration) {
	old := t.lives[pid]
	if old == nil {
		return
	}
	delete(t.lives, pid)
	if old.read >= m.at {
		t.spoil(pid)
	}
	switch old.displaced = at; {
	case old.led, old.ending: // if any of its threads is yet to say so, it is too late
		t.tellExit(pid, old)
	case old.doubts == t.doubts:
		if len(t.displaced) >= maxDisplaced {
			clear(t.displaced)
		}
		t.displaced[pid] = old
	}
}

// startOf reads when a new process started. If it is gone, or another one has its PID,
// that is taken to be when the kernel told of it, which is some microseconds later.
func (t *tracker) startOf(pid int32, at time.Duration) (began time.Duration, approx bool) {
	st, _, err := t.files.stat(pid)
	if err != nil || start(&st) > at {
		return at, true
	}
	return start(&st), false
}

// parent is what is known of a process that has a child, which is read if need be.
func (t *tracker) parent(pid int32, at time.Duration) *life {
	l := t.lives[pid]
	if l != nil && l.doubts == t.doubts && l.have == handed {
		return l
	}
	var rd reading
	err := t.files.known(pid, &rd)
	if l != nil && l.doubts != t.doubts {
		l.have = 0
	}
	if err != nil || start(&rd.stat) > at {
		return l
	}
	if l == nil || !l.is(&rd.stat) {
		// One that was not told of, or took the place of one whose end was not.
		l = &life{threaded: true}
		t.remember(pid, l)
	}
	l.doubts = t.doubts
	t.learn(l, &rd)
	return l
}

// is reports whether a stat file can be that of the process.
func (l *life) is(st *procfile.Stat) bool {
	if l.approx {
		return start(st) <= l.start && start(st) > l.start-maxApprox
	}
	return l.start == 0 || l.start == start(st)
}

// maxApprox is more than an approximate start is later than the truth, unless the
// parent was kept from running in the midst of a fork.
const maxApprox = time.Second

// learn takes over what was read of the process, and returns which of the handed
// fields that were. A process that is just being reaped has no session and no parent.
func (t *tracker) learn(l *life, rd *reading) event.FieldSet {
	fresh := handed &^ rd.missing.Absent()
	l.start, l.approx, l.comm = start(&rd.stat), false, rd.comm
	if rd.stat.Session < 0 {
		fresh &^= sessionFields
	} else {
		l.session, l.tty = rd.stat.Session, rd.stat.TTY
		if l.parent != rd.stat.PPID {
			l.parent, l.parentStart = rd.stat.PPID, 0
		}
		if p := t.lives[l.parent]; p != nil && l.parentStart == 0 {
			l.parentStart = p.exactStart()
		}
	}
	if fresh.Has(event.FieldUID) {
		l.status = rd.status
	}
	l.have |= fresh
	return fresh
}

func (t *tracker) remember(pid int32, l *life) {
	if len(t.lives) >= maxLives {
		for other := range t.lives { // any one: the map's order is random
			delete(t.lives, other)
			break
		}
	}
	t.lives[pid] = l
}

func (t *tracker) exec(w *hung.Worker, m *message) error {
	_, pid := m.task()
	l, at := t.lives[pid], t.clock.boot(m.at)
	var rd reading
	err := t.files.image(w, pid, hung.ID{PID: pid}, &rd) // who is stuck keeps its PID
	if err != nil && err != errGone {                    //nolint:errorlint // it is one of two
		return err
	}
	readAll := err == nil && start(&rd.stat) <= at && (l == nil || l.is(&rd.stat))
	if l != nil && l.read != 0 && (m.at <= l.read || readAll && rd.stat.Image.Known() && rd.stat.Image == l.image) {
		t.spoil(pid) // the image before was gone when it was read, and this one there
	}
	if l == nil {
		l = &life{threaded: true, doubts: t.doubts}
		t.remember(pid, l)
	}
	l.led, l.ending = false, false
	l.have = l.have.Without(event.FieldName).Without(event.FieldCapabilities) // which an exec makes anew
	r := Record{Kind: KindExec, PID: pid, At: at, CPU: int(m.cpu)}
	if readAll {
		fresh := t.learn(l, &rd)
		l.read, l.image, l.doubts = uint64(t.clock.monotonic()), rd.stat.Image, t.doubts
		r.Exe, r.ExeDeleted, r.Args = rd.exe, rd.exeDeleted, rd.args
		r.Missing = event.Mask{Denied: rd.missing.Denied &^ handed, Failed: rd.missing.Failed &^ handed, Truncated: rd.missing.Truncated}
		l.describe(&r, handed&^fresh)
	} else {
		l.read = 0
		l.describe(&r, handed)
		r.Missing.Failed |= imageFields
	}
	if r.PPID, r.ParentStart = l.parent, l.parentStart; !readAll || rd.stat.Session < 0 {
		r.PPID, r.ParentStart = t.livingParent(l)
	}
	l.identify(&r)
	t.records = append(t.records, r)
	return nil
}

// spoil takes back what was read of the last image of a process, if the record is
// still here: it was that of another image.
func (t *tracker) spoil(pid int32) {
	for i := len(t.records) - 1; i >= 0; i-- {
		r := &t.records[i]
		if r.PID != pid || r.Kind != KindExec {
			continue
		}
		*r = Record{
			Kind: r.Kind, PID: r.PID, PPID: r.PPID, Start: r.Start, StartApprox: r.StartApprox, ParentStart: r.ParentStart,
			At: r.At, CPU: r.CPU, Missing: event.Mask{Failed: imageFields | handed},
		}
		return
	}
}

// livingParent is the parent that a process was known to have, if that has not ended.
func (t *tracker) livingParent(l *life) (int32, time.Duration) {
	if p := t.lives[l.parent]; p != nil && p.start != 0 && p.exactStart() == l.parentStart {
		return l.parent, l.parentStart
	}
	return 0, 0
}

// exactStart is 0 if it is not known to the tick.
func (l *life) exactStart() time.Duration {
	if l.approx {
		return 0
	}
	return l.start
}

// identify says which process a record is of.
func (l *life) identify(r *Record) { r.Start, r.StartApprox = l.start, l.approx }

// describe puts in r what is known, of which inherited was not read for r.
func (l *life) describe(r *Record, inherited event.FieldSet) {
	r.Comm = l.comm
	r.UID, r.GID, r.EUID, r.EGID = l.status.UID, l.status.GID, l.status.EUID, l.status.EGID
	r.CapEffective, r.Session, r.TTY = l.status.CapEffective, l.session, l.tty
	r.Missing.Inherited |= l.have & inherited
	r.Missing.Failed |= handed &^ l.have &^ r.Missing.Absent()
	if !l.have.Has(event.FieldName) {
		r.Comm = ""
	}
	if !l.have.Has(event.FieldCapabilities) {
		r.CapEffective = 0
	}
	if !l.have.Has(event.FieldUID) {
		r.UID, r.GID, r.EUID, r.EGID = 0, 0, 0, 0
	}
	if !l.have.Has(event.FieldSession) {
		r.Session, r.TTY = 0, 0
	}
}
