package kernel

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Over a window of at least shareWindow, a thread that goes before others may use
	// maxShare of a core; it goes before them again once it uses less than lowShare.
	shareWindow = 3 * time.Second
	maxShare    = 0.20
	lowShare    = 0.05
)

// priority is that of the thread which calls its methods. The zero one is normal.
type priority struct {
	normal  unix.SchedAttr
	first   bool   // it goes before others
	refused string // why it can not
	since   time.Time
	used    time.Duration // by the thread, at since
	note    atomic.Pointer[string]
}

// begin puts the calling thread, which must be locked and never given back, before
// others. end is to be called last: the thread that a program began with does not end.
func (p *priority) begin() (end func()) {
	p.since, p.used = time.Now(), threadTime()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		p.refused = "it is read at normal priority: " + err.Error()
		p.say(p.refused)
		return func() {}
	}
	p.normal = *attr
	p.normal.Flags |= unix.SCHED_FLAG_RESET_ON_FORK // taking it back needs a privilege
	p.raise()
	normal := p.normal // p may be another thread's by then
	return func() { _ = unix.SchedSetAttr(0, &normal, 0) }
}

// raise puts the thread before all that do not ask for real time themselves. Those
// that it may start do not inherit that.
func (p *priority) raise() {
	attr := unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		p.refused = fmt.Sprintf("it is read at normal priority, since SCHED_FIFO was refused (%v): grant CAP_SYS_NICE, and allow real time (no RestrictRealtime= in the systemd unit)", err)
		p.say(p.refused)
		return
	}
	p.first = true
	p.say("")
}

// lower makes the thread one among others.
func (p *priority) lower(why string) {
	attr := p.normal
	if err := unix.SchedSetAttr(0, &attr, 0); err == nil {
		p.first = false
		p.say(why)
	}
}

// check is called every now and then.
func (p *priority) check() {
	window := time.Since(p.since)
	if p.refused != "" || window < shareWindow {
		return
	}
	used := threadTime()
	share := float64(used-p.used) / float64(window)
	p.since, p.used = time.Now(), used
	switch {
	case p.first && share > maxShare:
		p.lower(fmt.Sprintf("it is read at normal priority for now: it took %.0f %% of a core", share*100))
	case !p.first && share < lowShare:
		p.raise()
	}
}

// threadTime is what the thread has used of a core.
func threadTime() time.Duration {
	used, _ := readClock(unix.CLOCK_THREAD_CPUTIME_ID) // every kernel has it
	return used
}

func (p *priority) say(what string) { p.note.Store(&what) }

func (p *priority) said() string {
	if s := p.note.Load(); s != nil {
		return *s
	}
	return ""
}
