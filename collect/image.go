package collect

import (
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/kernel"
)

// fieldsOf makes a set.
func fieldsOf(fields ...event.Field) (s event.FieldSet) {
	for _, f := range fields {
		s = s.With(f)
	}
	return s
}

// newborn is the record of the process of a fork: what the kernel told of it, and the
// image and the surroundings of the process that made it.
func (h *hearing) newborn(r *kernel.Record) *event.Process {
	var p *event.Process
	if creator := h.creator(r); creator != nil {
		p = inherit(creator.present())
	} else {
		p = &event.Process{Missing: event.Mask{Failed: inherited | credentials}}
	}
	p.PID, p.PPID, p.StartTicks = r.PID, r.PPID, r.Ticks()
	p.State, p.Threads, p.CPU, p.RSS = 'R', 1, 0, 0
	if r.StartApprox { // whoever loads it must know
		p.Missing.Truncated = p.Missing.Truncated.With(event.FieldStartTime)
	}
	if r.Start != 0 {
		p.StartTime = h.heard.zero.Add(r.Start)
	} else {
		p.Missing.Failed = p.Missing.Failed.With(event.FieldStartTime)
	}
	p.Missing.Unsupported = p.Missing.Unsupported.With(event.FieldRSS)
	if r.PPID == 0 {
		p.Missing.Failed = p.Missing.Failed.With(event.FieldParent)
	}
	takeCredentials(p, r)
	if h.hashes && !settled(p.Hash) {
		p.Hash = event.Hash{Status: event.HashPending}
	}
	return p
}

// creator is whose image a new process has, or nil.
func (h *hearing) creator(r *kernel.Record) *entry {
	pid := r.Creator
	if pid == 0 {
		pid = r.PPID
	}
	return h.table.at(pid)
}

// inherited are the fields that a new process has from the one that made it.
var inherited = fieldsOf(event.FieldExe, event.FieldExeDeleted, event.FieldArgs, event.FieldCWD, event.FieldLoginUID,
	event.FieldLoginSession, event.FieldCgroup, event.FieldContainer, event.FieldNamespaces, event.FieldEnv)

// inherit is what a new process has from the one that made it.
func inherit(from *event.Process) *event.Process {
	m, all := from.Missing, inherited|credentials
	return &event.Process{
		Name: from.Name, Exe: from.Exe, ExeDeleted: from.ExeDeleted, Args: from.Args, CWD: from.CWD,
		UID: from.UID, GID: from.GID, EUID: from.EUID, EGID: from.EGID,
		LoginUID: from.LoginUID, LoginSession: from.LoginSession, Session: from.Session, TTY: from.TTY,
		CapEffective: from.CapEffective, Cgroup: from.Cgroup, ContainerID: from.ContainerID,
		Namespaces: from.Namespaces, Env: from.Env, Hash: from.Hash, RSSKind: from.RSSKind,
		Missing: event.Mask{
			Gone: m.Gone & all, Denied: m.Denied & all, Unsupported: m.Unsupported & all,
			Failed: m.Failed & all, Truncated: m.Truncated & all,
			Inherited: inherited &^ m.Absent(),
		},
	}
}

// credentials are what a fork and an exec both tell.
var credentials = fieldsOf(event.FieldName, event.FieldUID, event.FieldGID, event.FieldEUID, event.FieldEGID,
	event.FieldSession, event.FieldTTY, event.FieldCapabilities)

// takeCredentials takes them over. What the source could not tell stays what it was
// before, or with the parent; an exit tells none of it.
func takeCredentials(p *event.Process, r *kernel.Record) {
	absent := r.Missing.Absent()
	if r.Kind == kernel.KindExit {
		absent = credentials
	}
	p.Missing.Inherited |= absent & credentials &^ p.Missing.Absent()
	take := func(f event.Field, set func()) {
		if absent.Has(f) {
			return
		}
		set()
		p.Missing = without(p.Missing, f)
		p.Missing.Inherited = p.Missing.Inherited.Without(f)
	}
	take(event.FieldName, func() { p.Name = r.Comm })
	take(event.FieldUID, func() { p.UID = r.UID })
	take(event.FieldGID, func() { p.GID = r.GID })
	take(event.FieldEUID, func() { p.EUID = r.EUID })
	take(event.FieldEGID, func() { p.EGID = r.EGID })
	take(event.FieldSession, func() { p.Session = r.Session })
	take(event.FieldTTY, func() { p.TTY = r.TTY })
	take(event.FieldCapabilities, func() { p.CapEffective = r.CapEffective })
}

// withImage is the record of a process after an exec. What could not be read of the
// new image is not what it was before.
func (h *hearing) withImage(old *event.Process, r *kernel.Record) *event.Process {
	p := *old
	takeCredentials(&p, r)
	image := fieldsOf(event.FieldExe, event.FieldExeDeleted, event.FieldArgs)
	p.Missing = withoutAll(p.Missing, image)
	p.Missing.Gone |= r.Missing.Gone & image
	p.Missing.Denied |= r.Missing.Denied & image
	p.Missing.Failed |= r.Missing.Failed & image
	p.Missing.Truncated |= r.Missing.Truncated & image
	p.Missing.Inherited |= fieldsOf(event.FieldEnv) &^ p.Missing.Absent() // the last known one
	p.Exe, p.ExeDeleted, p.Args = r.Exe, r.ExeDeleted, r.Args
	if h.redactor != nil {
		p.Args = h.redactor.Redact(p.Args)
	}
	p.RSS = 0 // what a scan has measured was the memory of the old image
	p.Missing.Unsupported = p.Missing.Unsupported.With(event.FieldRSS)
	p.Hash = event.Hash{}
	if h.hashes {
		p.Hash.Status = event.HashPending
	}
	if r.PPID != 0 && r.PPID != p.PPID {
		p.PPID = r.PPID
		p.Missing.Gone = p.Missing.Gone.Without(event.FieldParent)
		h.resolveParent(&p)
	}
	h.takeGroup(&p, r)
	event.ClipProcess(&p)
	return &p
}

// takeGroup notes where a process runs: who starts a service or a container moves it
// there before its exec.
func (h *hearing) takeGroup(p *event.Process, r *kernel.Record) {
	if h.groups == nil {
		return
	}
	path, container, ok := h.groups.Of(r.PID, r.Start, r.CgroupID)
	if !ok {
		return
	}
	p.Cgroup, p.ContainerID = path, container
	p.Missing = withoutAll(p.Missing, fieldsOf(event.FieldCgroup, event.FieldContainer))
}

// withoutAll is the mask that says nothing of the fields in s.
func withoutAll(m event.Mask, s event.FieldSet) event.Mask {
	return event.Mask{
		Gone: m.Gone &^ s, Denied: m.Denied &^ s, Unsupported: m.Unsupported &^ s,
		Failed: m.Failed &^ s, Truncated: m.Truncated &^ s, Inherited: m.Inherited &^ s,
	}
}
