package event

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxEncoded is the size that no encoded event exceeds, in bytes.
const MaxEncoded = 64 << 10

// The limits of [Clip], in bytes unless they count. What always stays, all of
// these but the environment and the changes, takes less than 60 KiB encoded.
const (
	MaxArgs     = 32 << 10 // all arguments together
	MaxArgCount = 4096
	MaxPath     = 4 << 10 // exe, cwd, cgroup, each
	MaxName     = 256     // name, container id, each
	MaxEnv      = 32 << 10
	MaxEnvCount = 1024
	MaxChange   = 4 << 10 // old and new value, each
	MaxDetail   = 1 << 10 // sensor's detail, loss's hint, hash's reason

	maxChangeCount    = int(fieldCount)
	maxNamespaceCount = 16
	maxHashValue      = 64
	maxWord           = 64 // ids, causes, algorithms, versions
)

// Clip cuts what is over the limits (arguments 32 KiB in all, paths 4 KiB each,
// the encoded event [MaxEncoded], and the rest as the constants say) and says
// so in e.Process.Missing.Truncated; procmond's own text ends in "…" instead.
// If the event is still too big, its environment and changes are cut further,
// never its arguments. It replaces the slices that it cuts and does not modify
// them; Seq and Epoch may be filled in afterwards.
func Clip(e *Event) {
	ClipProcess(&e.Process)
	e.HostID = clipOwn(e.HostID, maxWord)
	e.BootID = clipOwn(e.BootID, maxWord)
	e.Cause = clipOwn(e.Cause, maxWord)
	clipChanges(e, MaxChange)
	clipLoss(e)
	clipSensor(e)
	for limit := MaxChange; limit > 0 && tooBig(e); limit /= 2 {
		clipChanges(e, limit)
		e.Process.Env = clipList(&e.Process, FieldEnv, e.Process.Env, MaxEnvCount, limit)
	}
}

// ClipProcess is the part of [Clip] that one process needs.
func ClipProcess(p *Process) {
	p.Name = clipHost(p, FieldName, p.Name, MaxName)
	p.Exe = clipHost(p, FieldExe, p.Exe, MaxPath)
	p.Args = clipList(p, FieldArgs, p.Args, MaxArgCount, MaxArgs)
	p.CWD = clipHost(p, FieldCWD, p.CWD, MaxPath)
	p.Cgroup = clipHost(p, FieldCgroup, p.Cgroup, MaxPath)
	p.ContainerID = clipHost(p, FieldContainer, p.ContainerID, MaxName)
	p.Env = clipList(p, FieldEnv, p.Env, MaxEnvCount, MaxEnv)
	clipNamespaces(p)
	p.Hash.Algorithm = clipOwn(p.Hash.Algorithm, maxWord)
	p.Hash.Reason = clipOwn(p.Hash.Reason, MaxDetail)
	if len(p.Hash.Value) > maxHashValue {
		p.Hash.Value = slices.Clone(p.Hash.Value[:maxHashValue])
		p.truncated(FieldHash)
	}
}

func (p *Process) truncated(f Field) { p.Missing.Truncated = p.Missing.Truncated.With(f) }

func clipHost(p *Process, f Field, s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	p.truncated(f)
	return cut(s, limit)
}

// clipOwn cuts procmond's own text, whose end then says so.
func clipOwn(s string, limit int) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD") // as [Append] does; it may be longer
	}
	if len(s) <= limit {
		return s
	}
	return cut(s, limit-len("…")) + "…"
}

// cut copies the beginning of s, so that the rest can be freed. It leaves no
// half of a character at the end.
func cut(s string, limit int) string {
	for n := limit; n > limit-utf8.UTFMax && n > 0; n-- {
		if utf8.RuneStart(s[n]) {
			if utf8.FullRuneInString(s[n:]) {
				limit = n
			}
			break
		}
	}
	return strings.Clone(s[:limit])
}

// clipList cuts a list of texts to a count and to the sum of their sizes. The
// text at the border keeps what fits.
func clipList(p *Process, f Field, list []string, count, size int) []string {
	keep, left := 0, size
	for keep < min(len(list), count) && len(list[keep]) <= left {
		left -= len(list[keep])
		keep++
	}
	if keep == len(list) {
		return list
	}
	p.truncated(f)
	clipped := make([]string, 0, keep+1)
	for _, s := range list[:keep] {
		clipped = append(clipped, strings.Clone(s)) // a source cuts them all from one text, the rest of which can be freed now
	}
	if keep < count {
		if part := cut(list[keep], left); part != "" {
			clipped = append(clipped, part)
		}
	}
	return clipped
}

func clipNamespaces(p *Process) {
	list := p.Namespaces
	long := func(n Namespace) bool { return len(n.Type) > maxWord }
	if len(list) <= maxNamespaceCount && !slices.ContainsFunc(list, long) {
		return
	}
	p.truncated(FieldNamespaces)
	list = slices.Clone(list[:min(len(list), maxNamespaceCount)])
	for i := range list {
		list[i].Type = clipHost(p, FieldNamespaces, list[i].Type, maxWord)
	}
	p.Namespaces = list
}

func clipChanges(e *Event, limit int) {
	list := e.Changes
	long := func(c Change) bool { return len(c.Old) > limit || len(c.New) > limit }
	if len(list) <= maxChangeCount && !slices.ContainsFunc(list, long) {
		return
	}
	e.Process.truncated(FieldChanges)
	list = slices.Clone(list[:min(len(list), maxChangeCount)])
	for i := range list {
		list[i].Old = clipHost(&e.Process, FieldChanges, list[i].Old, limit)
		list[i].New = clipHost(&e.Process, FieldChanges, list[i].New, limit)
	}
	e.Changes = list
}

func clipLoss(e *Event) {
	if e.Loss == nil {
		return
	}
	if hint := clipOwn(e.Loss.Hint, MaxDetail); hint != e.Loss.Hint {
		loss := *e.Loss
		loss.Hint = hint
		e.Loss = &loss
	}
}

func clipSensor(e *Event) {
	if e.Sensor == nil {
		return
	}
	sensor := *e.Sensor
	sensor.Detail = clipOwn(sensor.Detail, MaxDetail)
	sensor.Version = clipOwn(sensor.Version, maxWord)
	if sensor != *e.Sensor {
		e.Sensor = &sensor
	}
}

// tooBig reports whether e, with any sequence and epoch, can encode to more
// than MaxEncoded. Only big events are encoded to find out.
func tooBig(e *Event) bool {
	if sizeBound(e) <= MaxEncoded {
		return false
	}
	numbered := *e
	numbered.Seq = math.MaxUint64
	numbered.Epoch = Epoch{0: 1}
	return len(Append(nil, &numbered)) > MaxEncoded
}

// sizeBound is at least the encoded size of a clipped event, computed from what
// can be big in it.
func sizeBound(e *Event) int {
	// Numbers, ids, masks and the texts of bounded size: see the constants.
	const fixed, each = 8 << 10, 8
	p := &e.Process
	n := fixed + len(p.Exe) + len(p.CWD) + len(p.Cgroup)
	for _, s := range p.Args {
		n += each + len(s)
	}
	for _, s := range p.Env {
		n += each + len(s)
	}
	for i := range e.Changes {
		n += 3*each + len(e.Changes[i].Old) + len(e.Changes[i].New)
	}
	return n
}
