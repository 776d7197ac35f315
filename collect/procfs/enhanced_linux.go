package procfs

import (
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// namespaceTypes are the namespaces that a process is in, as in /proc/PID/ns; what
// ends in _for_children there is about others.
var namespaceTypes = [...]string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// maxLink is more than the kernel gives of a link: a page.
const maxLink = 8 << 10

// enhanced is what reading the enhanced metadata needs.
type enhanced struct {
	own         [len(namespaceTypes)]uint64 // the daemon's namespaces; 0 where the kernel has none of a type
	env         map[string]struct{}         // names of the variables to record
	exact       bool                        // statm is exact, see countsExactly
	unsupported event.FieldSet              // what this kernel or configuration does not give

	short  [64]byte // ids, namespaces
	cwd    [maxLink]byte
	cgroup [procfile.MaxCgroup]byte
}

// surroundings are the enhanced metadata of a process. The slices are parts of
// enhanced, valid until the next process is read.
type surroundings struct {
	cwd, cgroup, container []byte
}

// newEnhanced finds out what there is to read. proc is the process file system.
func newEnhanced(proc int, env []string) *enhanced {
	e := &enhanced{env: make(map[string]struct{}, len(env)), exact: countsExactly()}
	for _, name := range env {
		e.env[name] = struct{}{}
	}
	if len(env) == 0 {
		e.unsupported = e.unsupported.With(event.FieldEnv)
	}
	known := false
	for i, path := range namespacePaths {
		if inode, err := e.readNamespace(proc, "self/"+path); err == nil {
			e.own[i], known = inode, true
		}
	}
	if !known {
		e.unsupported = e.unsupported.With(event.FieldNamespaces)
	}
	for file, field := range map[string]event.Field{loginUIDFile: event.FieldLoginUID, sessionIDFile: event.FieldLoginSession} {
		if _, err := e.readID(proc, "self/"+file); isGone(err) { // a kernel without audit
			e.unsupported = e.unsupported.With(field)
		}
	}
	return e
}

// read reads all but the environment, which is read with the arguments, and the
// memory. A field that can not be read is in the mask.
func (e *enhanced) read(dir int, st *procfile.Stat, d *details) {
	e.readLogin(dir, d)
	e.readCgroup(dir, st, d)
	if st.Dead() {
		gone := &d.missing.Gone
		*gone = gone.With(event.FieldCWD).With(event.FieldNamespaces).With(event.FieldEnv) &^ e.unsupported
		return
	}
	e.readNamespaces(dir, d)
	if st.KernelThread() { // has no directory of its own
		return
	}
	n, err := readlinkat(dir, cwdFile, e.cwd[:])
	if err != nil {
		miss(&d.missing, err, event.FieldCWD)
		return
	}
	d.cwd = e.cwd[:n]
}

func (e *enhanced) readLogin(dir int, d *details) {
	var err error
	if !e.unsupported.Has(event.FieldLoginUID) {
		if d.login, err = e.readID(dir, loginUIDFile); err != nil {
			miss(&d.missing, err, event.FieldLoginUID)
		}
	}
	if !e.unsupported.Has(event.FieldLoginSession) {
		if d.loginSession, err = e.readID(dir, sessionIDFile); err != nil {
			miss(&d.missing, err, event.FieldLoginSession)
		}
	}
}

// readID reads a file with one number.
func (e *enhanced) readID(dir int, name string) (uint32, error) {
	n, err := readFile(dir, name, e.short[:])
	if err != nil {
		return 0, err
	}
	return procfile.ParseID(e.short[:n])
}

// readCgroup reads the control group and the container. Version 1 takes a process
// out of its groups when it ends: then they are not known.
func (e *enhanced) readCgroup(dir int, st *procfile.Stat, d *details) {
	var c procfile.Cgroup
	n, err := readFile(dir, cgroupFile, e.cgroup[:])
	if err == nil {
		err = c.Parse(e.cgroup[:n])
	}
	switch {
	case err != nil:
		miss(&d.missing, err, event.FieldCgroup, event.FieldContainer)
	case st.Dead() && len(c.Path) == 1:
		d.missing.Gone = d.missing.Gone.With(event.FieldCgroup).With(event.FieldContainer)
	default:
		d.cgroup, d.container = c.Path, c.Container
	}
}

// readNamespaces reads those of which the daemon has one, all or none.
func (e *enhanced) readNamespaces(dir int, d *details) {
	for i, own := range e.own {
		if own == 0 {
			continue
		}
		inode, err := e.readNamespace(dir, namespacePaths[i])
		if err != nil {
			d.namespaces = [len(namespaceTypes)]uint64{}
			miss(&d.missing, err, event.FieldNamespaces)
			return
		}
		d.namespaces[i] = inode
	}
}

func (e *enhanced) readNamespace(dir int, path string) (uint64, error) {
	n, err := readlinkat(dir, path, e.short[:])
	if err != nil {
		return 0, err
	}
	return procfile.ParseNamespace(e.short[:n])
}

// fill puts what was read into the record. env is the environment that was kept.
func (e *enhanced) fill(p *event.Process, d *details, env []byte) {
	p.CWD, p.Cgroup, p.ContainerID = string(d.cwd), string(d.cgroup), string(d.container)
	p.LoginUID, p.LoginSession = d.login, d.loginSession
	for i, inode := range d.namespaces {
		if inode != 0 && inode != e.own[i] {
			p.Namespaces = append(p.Namespaces, event.Namespace{Type: namespaceTypes[i], Inode: inode})
		}
	}
	var cut bool
	if p.Env, cut = procfile.SplitArgs(env); cut {
		p.Missing.Truncated = p.Missing.Truncated.With(event.FieldEnv)
	}
}
