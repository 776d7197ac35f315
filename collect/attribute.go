package collect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"daemoneye.dev/procmond/collect/event"
)

// attribute is a field of a process whose change is reported.
type attribute struct {
	field event.Field
	same  func(a, b *event.Process) bool
	keep  func(dst, src *event.Process) // copies the field
	text  func(p *event.Process) string
}

// attributes are all of them, in the order of their fields. The parent is
// compared by PID: its id is found only when it is needed.
var attributes = []attribute{
	{
		field: event.FieldParent,
		same:  func(a, b *event.Process) bool { return a.PPID == b.PPID },
		keep:  func(dst, src *event.Process) { dst.PPID, dst.ParentID = src.PPID, src.ParentID },
		text:  parentText,
	},
	plain(event.FieldName, func(p *event.Process) *string { return &p.Name }, verbatim),
	plain(event.FieldExe, func(p *event.Process) *string { return &p.Exe }, verbatim),
	list(event.FieldArgs, func(p *event.Process) *[]string { return &p.Args }, argsText),
	plain(event.FieldCWD, func(p *event.Process) *string { return &p.CWD }, verbatim),
	plain(event.FieldUID, func(p *event.Process) *uint32 { return &p.UID }, number),
	plain(event.FieldGID, func(p *event.Process) *uint32 { return &p.GID }, number),
	plain(event.FieldEUID, func(p *event.Process) *uint32 { return &p.EUID }, number),
	plain(event.FieldEGID, func(p *event.Process) *uint32 { return &p.EGID }, number),
	plain(event.FieldLoginUID, func(p *event.Process) *uint32 { return &p.LoginUID }, number),
	plain(event.FieldSession, func(p *event.Process) *int32 { return &p.Session }, number),
	plain(event.FieldTTY, func(p *event.Process) *int32 { return &p.TTY }, number),
	plain(event.FieldCapabilities, func(p *event.Process) *uint64 { return &p.CapEffective },
		func(v uint64) string { return fmt.Sprintf("%016x", v) }),
	plain(event.FieldCgroup, func(p *event.Process) *string { return &p.Cgroup }, verbatim),
	plain(event.FieldContainer, func(p *event.Process) *string { return &p.ContainerID }, verbatim),
	list(event.FieldNamespaces, func(p *event.Process) *[]event.Namespace { return &p.Namespaces }, namespacesText),
	list(event.FieldEnv, func(p *event.Process) *[]string { return &p.Env }, argsText),
	{
		field: event.FieldHash,
		same:  sameHash,
		keep:  func(dst, src *event.Process) { dst.Hash = src.Hash },
		text:  hashText,
	},
	plain(event.FieldExeDeleted, func(p *event.Process) *bool { return &p.ExeDeleted }, strconv.FormatBool),
	plain(event.FieldLoginSession, func(p *event.Process) *uint32 { return &p.LoginSession }, number),
}

func plain[T comparable](f event.Field, at func(*event.Process) *T, text func(T) string) attribute {
	return attribute{
		field: f,
		same:  func(a, b *event.Process) bool { return *at(a) == *at(b) },
		keep:  func(dst, src *event.Process) { *at(dst) = *at(src) },
		text:  func(p *event.Process) string { return text(*at(p)) },
	}
}

func list[T comparable](f event.Field, at func(*event.Process) *[]T, text func([]T) string) attribute {
	return attribute{
		field: f,
		same:  func(a, b *event.Process) bool { return slices.Equal(*at(a), *at(b)) },
		keep:  func(dst, src *event.Process) { *at(dst) = *at(src) },
		text:  func(p *event.Process) string { return text(*at(p)) },
	}
}

func verbatim(s string) string { return s }

func number[T int32 | uint32](v T) string { return strconv.FormatInt(int64(v), 10) }

func parentText(p *event.Process) string {
	if p.ParentID.IsZero() {
		return ""
	}
	return p.ParentID.String()
}

// argsText is a command line that a shell would take apart again the same way.
func argsText(args []string) string {
	var b strings.Builder
	b.Grow(16 * len(args))
	for i, arg := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if arg == "" || strings.ContainsAny(arg, " \t\n'\"\\$`|&;()<>*?[]#~") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		b.WriteString(arg)
	}
	return b.String()
}

func namespacesText(all []event.Namespace) string {
	text := make([]string, len(all))
	for i, ns := range all {
		text[i] = fmt.Sprintf("%s:[%d]", ns.Type, ns.Inode)
	}
	return strings.Join(text, " ")
}

// changed reports whether a has changed from old to now. What could not be read
// this time is taken to be as before; what could not be read before is news.
func (a *attribute) changed(old, now *event.Process, oldAbsent, nowAbsent event.FieldSet) bool {
	return !nowAbsent.Has(a.field) && (oldAbsent.Has(a.field) || !a.same(old, now))
}

// absentBefore are the fields whose value is news. The parent is not among them:
// its PID is compared, and may be known though the parent itself is not.
func absentBefore(p *event.Process) event.FieldSet {
	return p.Missing.Absent().Without(event.FieldParent)
}

// identical is a quick way to say that no attribute has changed; what it does
// not recognise may still be unchanged. It is for scanners that bring every
// record at each scan.
func identical(a, b *event.Process) bool {
	return a.Missing.Absent()&^(1<<event.FieldParent) == b.Missing.Absent() &&
		a.PPID == b.PPID && a.UID == b.UID && a.GID == b.GID && a.EUID == b.EUID && a.EGID == b.EGID &&
		a.LoginUID == b.LoginUID && a.LoginSession == b.LoginSession && a.Session == b.Session && a.TTY == b.TTY &&
		a.CapEffective == b.CapEffective && a.ExeDeleted == b.ExeDeleted && a.Hash.Status == b.Hash.Status &&
		a.Name == b.Name && a.Exe == b.Exe && a.CWD == b.CWD && a.Cgroup == b.Cgroup &&
		a.ContainerID == b.ContainerID && a.Hash.Algorithm == b.Hash.Algorithm &&
		slices.Equal(a.Args, b.Args) && slices.Equal(a.Namespaces, b.Namespaces) && slices.Equal(a.Env, b.Env) && slices.Equal(a.Hash.Value, b.Hash.Value)
}

// differ reports whether any attribute has changed.
func differ(old, now *event.Process) bool {
	if identical(old, now) {
		return false
	}
	oldAbsent, nowAbsent := absentBefore(old), now.Missing.Absent()
	for i := range attributes {
		if attributes[i].changed(old, now, oldAbsent, nowAbsent) {
			return true
		}
	}
	return false
}

// carry fills in now what could not be read this time and was before. What the
// source does not give any more is not kept: it would be shown for ever.
func carry(old, now *event.Process) {
	oldAbsent, nowAbsent := old.Missing.Absent(), now.Missing.Absent()&^now.Missing.Unsupported
	for i := range attributes {
		if f := attributes[i].field; nowAbsent.Has(f) && !oldAbsent.Has(f) {
			attributes[i].keep(now, old)
			now.Missing = without(now.Missing, f)
			if old.Missing.Truncated.Has(f) {
				now.Missing.Truncated = now.Missing.Truncated.With(f)
			}
		}
	}
}

// without is the mask that says that f was read.
func without(m event.Mask, f event.Field) event.Mask {
	m.Gone, m.Denied = m.Gone.Without(f), m.Denied.Without(f)
	m.Unsupported, m.Failed = m.Unsupported.Without(f), m.Failed.Without(f)
	return m
}

// changesBetween are the changed attributes with both values. nowAbsent is what
// could not be read this time.
func changesBetween(old, now *event.Process, nowAbsent event.FieldSet) []event.Change {
	var changes []event.Change
	oldAbsent := absentBefore(old)
	for i := range attributes {
		a := &attributes[i]
		if !a.changed(old, now, oldAbsent, nowAbsent) {
			continue
		}
		change := event.Change{Field: a.field, New: a.text(now)}
		if !oldAbsent.Has(a.field) {
			change.Old = a.text(old)
		}
		if changes == nil {
			changes = make([]event.Change, 0, 4) // an exec mostly has three
		}
		changes = append(changes, change)
	}
	return changes
}
