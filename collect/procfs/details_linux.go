package procfs

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/hung"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

const (
	maxRest = 8 << 10 // more than a status file or a path can be
	minText = 4 << 10
)

// unsupported are the fields that this source gives only with [Config.Enhanced].
var unsupported = event.FieldSet(0).With(event.FieldCWD).With(event.FieldLoginUID).
	With(event.FieldCgroup).With(event.FieldContainer).With(event.FieldNamespaces).With(event.FieldEnv).
	With(event.FieldLoginSession)

// details are what is read of a process besides stat. The path of the executable
// is in Scanner.rest; the arguments and, behind them, the environment are in
// Worker.Text.
type details struct {
	fixed
	surroundings
	exe, args, env int   // their sizes in bytes
	pages          int64 // resident; or unread
	givenUp        bool  // arguments and environment, because reading them hangs
}

// fixed are the details of a fixed size.
type fixed struct {
	status  procfile.Status
	deleted bool
	missing event.Mask

	login, loginSession uint32
	namespaces          [len(namespaceTypes)]uint64 // 0 if not read
}

// read reads the details of the process whose directory and stat are given. A
// field that can not be read is in the mask; hung.ErrAbandoned is the only error.
func (s *Scanner) read(w *hung.Worker, dir int, st *procfile.Stat, d *details) error {
	d.missing.Unsupported, d.pages = unsupported, s.resident(dir, st)
	s.readStatus(dir, d)
	if s.enhanced != nil {
		d.missing.Unsupported = s.enhanced.unsupported
		s.enhanced.read(dir, st, d)
	}
	switch {
	case st.KernelThread(): // has neither, which is the truth
	case st.Dead():
		d.missing.Gone = d.missing.Gone.With(event.FieldExe).With(event.FieldExeDeleted).With(event.FieldArgs)
	default:
		id := hung.ID{PID: st.PID, Start: st.Start}
		if err := s.readText(w, dir, id, d); err != nil {
			return err
		}
		return s.readExe(w, dir, id, d)
	}
	return nil
}

func (s *Scanner) readStatus(dir int, d *details) {
	n, err := readFile(dir, statusFile, s.rest[:])
	if err == nil {
		err = d.status.Parse(s.rest[:n])
	}
	if err != nil {
		d.status = procfile.Status{}
		miss(&d.missing, err, event.FieldUID, event.FieldEUID, event.FieldGID, event.FieldEGID, event.FieldCapabilities)
	}
}

// readExe reads the path of the executable into s.rest.
func (s *Scanner) readExe(w *hung.Worker, dir int, id hung.ID, d *details) error {
	n, err := readlinkat(dir, exeFile, s.rest[:])
	if err != nil {
		miss(&d.missing, err, event.FieldExe, event.FieldExeDeleted)
		return nil
	}
	d.exe = n
	path, marked := bytes.CutSuffix(s.rest[:n], []byte(procfile.DeletedMark))
	if !marked {
		return nil
	}
	named, err := s.isNamed(w, dir, id, string(s.rest[:n]))
	if err != nil {
		return err
	}
	if !named {
		d.exe, d.deleted = len(path), true
	}
	return nil
}

// isNamed reports whether the executable is the file at path, as the daemon or
// the process itself sees it: then the mark is part of the file's name. It asks
// the file's own file system, which may hang; if it does, there is no such file.
func (s *Scanner) isNamed(w *hung.Worker, dir int, id hung.ID, path string) (named bool, err error) {
	if !s.hung.Room(id) {
		return false, nil
	}
	w.Begin(id)
	var running, file unix.Stat_t
	if unix.Fstatat(dir, "exe", &running, 0) == nil {
		for _, name := range []string{path, "root" + path} {
			if unix.Fstatat(dir, name, &file, unix.AT_SYMLINK_NOFOLLOW) == nil && file.Dev == running.Dev && file.Ino == running.Ino {
				named = true
			}
		}
	}
	return named, w.End()
}

// readText reads what is in the memory of the process: the command line and, if it
// is asked for, what is allowed of the environment, into w.Text.
func (s *Scanner) readText(w *hung.Worker, dir int, id hung.ID, d *details) error {
	env := s.enhanced != nil && len(s.enhanced.env) > 0
	if !s.hung.Room(id) {
		d.givenUp = true
		d.missing.Failed = d.missing.Failed.With(event.FieldArgs)
		if env {
			d.missing.Failed = d.missing.Failed.With(event.FieldEnv)
		}
		return nil
	}
	w.Begin(id)
	args, argsErr := readText(w, dir, cmdlineFile, 0, procfile.MaxCmdline)
	var vars int
	var varsErr error
	if env {
		vars, varsErr = readText(w, dir, environFile, args, procfile.MaxEnviron)
	}
	if err := w.End(); err != nil {
		return err
	}
	d.args = args
	note(&d.missing, event.FieldArgs, argsErr, args == procfile.MaxCmdline)
	if env {
		d.env = len(procfile.KeepEnv(w.Text[args:args+vars], s.enhanced.env))
		note(&d.missing, event.FieldEnv, varsErr, vars == procfile.MaxEnviron)
	}
	return nil
}

// readText reads a file below dir into w.Text from at on, which grows for it up to
// limit bytes, and returns how many there are; none if there is an error.
func readText(w *hung.Worker, dir int, name string, at, limit int) (int, error) {
	fd, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer closeFD(fd)
	for n := 0; ; {
		m, err := read(fd, w.Text[at+n:min(len(w.Text), at+limit)])
		n += m
		if err != nil {
			return 0, err
		}
		if n == limit || at+n < len(w.Text) {
			return n, nil
		}
		grown := make([]byte, min(max(len(w.Text)*4, minText), at+limit))
		copy(grown, w.Text)
		w.Text = grown
	}
}

// process makes the record of a process, but for its memory. text begins with the
// arguments and the environment.
func (s *Scanner) process(st *procfile.Stat, d *details, text []byte) *event.Process {
	p := &event.Process{
		PID: st.PID, PPID: st.PPID,
		Name: procfile.Unescape(st.Comm), Exe: string(s.rest[:d.exe]), ExeDeleted: d.deleted,
		UID: d.status.UID, GID: d.status.GID, EUID: d.status.EUID, EGID: d.status.EGID, CapEffective: d.status.CapEffective,
		Session: st.Session, TTY: st.TTY,
		StartTicks: st.Start, StartTime: st.StartTime(s.boot),
		State: st.State, Threads: st.Threads, CPU: st.CPU(),
		Missing: d.missing,
	}
	var cut bool
	if p.Args, cut = procfile.SplitArgs(text[:d.args]); cut {
		p.Missing.Truncated = p.Missing.Truncated.With(event.FieldArgs)
	}
	if s.enhanced != nil {
		s.enhanced.fill(p, d, text[d.args:d.args+d.env])
	}
	return p
}

// note records what became of reading a field that has a limit.
func note(m *event.Mask, f event.Field, err error, cut bool) {
	switch {
	case err != nil:
		miss(m, err, f)
	case cut:
		m.Truncated = m.Truncated.With(f)
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

// unsafeString is b without a copy, for as long as b does not change.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
