package procfs

import (
	"fmt"
	"hash/maphash"
	"strconv"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/hung"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// maxPath is room for the path of a file below the process file system.
const maxPath = 64

// want is what a caller asks for besides what has changed.
type want struct {
	whole  bool // read it whole
	report bool // and report it whole, changed or not
}

// observe reads one process: its stat, and the rest if it is not known, has
// changed, or whole asks for it. r is what is known of the PID, or nil. Errors:
// [collect.ErrGone], errHidden, hung.ErrAbandoned, else the host's.
func (s *Scanner) observe(w *hung.Worker, pid int32, r *record, want want) (collect.Observation, error) {
	if r != nil && !want.whole && !s.overdue(r) {
		pages := s.residentOfKnown(r)
		n, err := s.readKnown(s.proc, s.pathOf(pid, "/"+statFile), s.stat[0][:])
		var st procfile.Stat
		if err := statError(&st, pid, s.stat[0][:], n, err); err != nil {
			return collect.Observation{}, err
		}
		if r.matches(&st) {
			r.seen = s.scans
			return s.observation(&st, r, s.memory(&st, pages)), nil
		}
	}
	// A process that changes under the reading is read again, once: if it still
	// changes, the next scan will see that. One that is gone may have left its PID
	// to another.
	o, again, err := s.examine(w, pid, r, want, false)
	if again {
		o, _, err = s.examine(w, pid, r, want, true)
	}
	return o, err
}

// overdue reports whether arguments that were given up can be read now.
func (s *Scanner) overdue(r *record) bool {
	return r.incomplete && s.hung.Room(hung.ID{PID: r.pid, Start: r.start})
}

// pathOf is the name of a file of a process, valid until the next call.
func (s *Scanner) pathOf(pid int32, file string) string {
	s.path = strconv.AppendInt(s.path[:0], int64(pid), 10)
	s.path = append(s.path, file...)
	return unsafeString(s.path)
}

// statError parses what was read of a stat file, n bytes into buf.
func statError(st *procfile.Stat, pid int32, buf []byte, n int, err error) error {
	switch {
	case isGone(err), err == nil && n == 0:
		return collect.ErrGone
	case isDenied(err):
		return errHidden
	case err != nil:
		return err
	case n == len(buf):
		return fmt.Errorf("read stat: more than %d bytes", n)
	}
	if err := st.Parse(buf[:n]); err != nil {
		return err
	}
	if st.PID != pid {
		return fmt.Errorf("parse stat: it is of process %d", st.PID)
	}
	return nil
}

// examine reads a process whole through its own directory. again says that it
// changed meanwhile, or went; last accepts a change.
func (s *Scanner) examine(w *hung.Worker, pid int32, r *record, want want, last bool) (o collect.Observation, again bool, err error) {
	dir, err := openat(s.proc, s.pathOf(pid, "\x00"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return o, false, statError(nil, pid, nil, 0, err)
	}
	defer closeFD(dir)
	var before, after procfile.Stat
	n, err := readFile(dir, statFile, s.stat[0][:])
	if err := statError(&before, pid, s.stat[0][:], n, err); err != nil {
		return o, err == collect.ErrGone, err //nolint:errorlint // it is statError's own
	}
	var d details
	if err := s.read(w, dir, &before, &d); err != nil {
		return o, false, err
	}
	n, err = readFile(dir, statFile, s.stat[1][:])
	if err := statError(&after, pid, s.stat[1][:], n, err); err != nil {
		return o, err == collect.ErrGone, err //nolint:errorlint // it is statError's own
	}
	if !last && !same(&before, &after) {
		return o, true, nil
	}
	return s.report(r, &before, &d, w.Text, want), false, nil
}

// same reports whether nothing has changed between two readings that would make
// a record a mixture.
func same(a, b *procfile.Stat) bool {
	if a.Dead() != b.Dead() {
		return false // what was read in between may be that of a process without an image
	}
	r := record{
		start: a.Start, comm: unsafeString(a.Comm), ppid: a.PPID, session: a.Session, tty: a.TTY,
		image: a.Image, argStart: a.ArgStart,
	}
	return r.matches(b)
}

// report makes the observation of a process that was read whole, and keeps what
// the next scan compares with. r is what was known of this PID, or nil; text begins
// with the arguments and the environment.
func (s *Scanner) report(r *record, st *procfile.Stat, d *details, text []byte, want want) collect.Observation {
	digest := d.digest(s.seed, s.rest[:d.exe], text)
	known := r != nil && r.start == st.Start
	news := want.report || !known || !r.matches(st) || r.digest != digest
	exec := known && r.image.Known() && st.Image.Known() && r.image != st.Image
	var fresh record
	next := r
	switch {
	case r == nil:
		next = &fresh
	case !known:
		*r = record{}
	}
	if !known || !st.Dead() || !next.matches(st) {
		next.fill(st)
	}
	next.digest, next.seen, next.incomplete = digest, s.scans, d.givenUp
	o := s.observation(st, next, s.memory(st, d.pages))
	if news {
		o.Process = s.process(st, d, text)
		o.Process.RSS, o.Process.RSSKind = o.RSS, o.RSSKind
	}
	o.ExecChanged = exec
	if r == nil {
		s.known.add(fresh)
	}
	return o
}

// observation holds the volatile fields of st.
func (s *Scanner) observation(st *procfile.Stat, r *record, m memory) collect.Observation {
	o := collect.Observation{
		PID: st.PID, StartTicks: st.Start,
		State: st.State, Threads: st.Threads, RSS: m.bytes, RSSKind: m.kind, CPU: st.CPU(),
	}
	if st.Ended() {
		o.Exit = s.exitOf(st, r)
	}
	return o
}

// exitOf is how a zombie ended, found out once. The kernel shows 0 to those who
// may not trace the process; the link to the executable is behind the same
// permission, and of a zombie it is merely absent.
func (s *Scanner) exitOf(st *procfile.Stat, r *record) *event.Exit {
	if r.exit != nil || r.silent {
		return r.exit
	}
	if st.ExitCode == 0 {
		var buf [1]byte
		_, err := readlinkat(s.proc, s.pathOf(st.PID, "/"+exeFile), buf[:])
		r.silent = isDenied(err)
	}
	if !r.silent {
		r.exit = st.Exit()
	}
	return r.exit
}

// digest is of what stat does not show.
func (d *details) digest(seed maphash.Seed, exe, text []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, d.fixed)
	for _, part := range [...][]byte{exe, d.cwd, d.cgroup, text[:d.args], text[d.args : d.args+d.env]} {
		_, _ = h.Write(part) // never fails
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}
