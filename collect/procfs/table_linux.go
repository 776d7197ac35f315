package procfs

import (
	"cmp"
	"slices"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// record is what is kept of a living process: what it showed when it was last
// read whole.
type record struct {
	start              uint64
	argStart           uint64
	image              procfile.Image
	digest             uint64 // of everything that stat does not show
	seen               uint64 // the last scan that saw it
	comm               string // escaped
	exit               *event.Exit
	pid                int32
	ppid, session, tty int32
	// incomplete says that its arguments were given up: they are read again as
	// soon as there is room.
	incomplete bool
	// silent says that the host does not tell how this zombie ended.
	silent bool
	// kernel says that it is a thread of the kernel, which has no memory.
	kernel bool
}

// fill takes over what stat shows.
func (r *record) fill(st *procfile.Stat) {
	if r.comm != string(st.Comm) {
		r.comm = string(st.Comm)
	}
	r.pid, r.ppid, r.session, r.tty = st.PID, st.PPID, st.Session, st.TTY
	r.start, r.image, r.argStart, r.kernel = st.Start, st.Image, st.ArgStart, st.KernelThread()
}

// matches reports whether st shows nothing new. A process whose first thread
// has ended lost its image, terminal and session: that is no news.
func (r *record) matches(st *procfile.Stat) bool {
	if r.start != st.Start || r.comm != string(st.Comm) || r.ppid != st.PPID {
		return false
	}
	return st.Dead() || r.session == st.Session && r.tty == st.TTY && r.image == st.Image && r.argStart == st.ArgStart
}

// mostSpare is for how many new processes of a scan memory is kept: the first one
// finds as many as there are.
const mostSpare = 256

// table holds the records, sorted by PID. It is walked in that order, and what is
// new waits beside it until the walk is over.
type table struct {
	records []record
	fresh   []record
	next    int // where the walk is
}

// rewind begins a walk.
func (t *table) rewind() { t.next = 0 }

// at returns the record of pid, or nil. It is meant for ascending PIDs; the pointer
// is valid until settle.
func (t *table) at(pid int32) *record {
	for t.next < len(t.records) && t.records[t.next].pid < pid {
		t.next++
	}
	if t.next < len(t.records) && t.records[t.next].pid == pid {
		return &t.records[t.next]
	}
	return nil
}

// add keeps a new process.
func (t *table) add(r record) { t.fresh = append(t.fresh, r) }

// settle ends a walk. If it was complete, what was not seen in this scan is
// forgotten.
func (t *table) settle(scan uint64, complete bool) {
	if complete {
		t.records = slices.DeleteFunc(t.records, func(r record) bool { return r.seen != scan })
	}
	t.merge()
}

// merge puts the new ones among the others, from the back, so that each is moved
// once.
func (t *table) merge() {
	slices.SortFunc(t.fresh, func(a, b record) int { return cmp.Compare(a.pid, b.pid) })
	i, j := len(t.records)-1, len(t.fresh)-1
	t.records = append(slices.Grow(t.records, len(t.fresh)), t.fresh...)
	for k := len(t.records) - 1; j >= 0; k-- {
		if i >= 0 && t.records[i].pid > t.fresh[j].pid {
			t.records[k] = t.records[i]
			i--
		} else {
			t.records[k] = t.fresh[j]
			j--
		}
	}
	clear(t.fresh)
	t.fresh = t.fresh[:0]
	if cap(t.fresh) > mostSpare {
		t.fresh = nil
	}
}
