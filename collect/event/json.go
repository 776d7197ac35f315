package event

import (
	"encoding/hex"
	"math/bits"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the JSON form of e: one object on one line, no newline.
// docs/events-json.md lists its keys. Host text goes through [Text], so the
// result is valid JSON and valid UTF-8 whatever the host supplied.
func AppendJSON(dst []byte, e *Event) []byte {
	w := jsonWriter{b: append(dst, '{')}
	w.uint("seq", e.Seq)
	w.hex("epoch", e.Epoch[:])
	w.own("kind", e.Kind.String())
	w.own("source", e.Source.String())
	w.time("time", e.Time)
	w.time("observed", e.Observed)
	w.given("not_before", e.NotBefore)
	if e.BootTime != 0 {
		w.int("boot_time_ns", int64(e.BootTime))
	}
	w.some("host_id", e.HostID)
	w.some("boot_id", e.BootID)
	w.some("cause", e.Cause)

	p := processWriter{jsonWriter: &w, Process: &e.Process, absent: e.Process.Missing.Absent()}
	if !e.Kind.OfProcess() {
		p.absent = ^FieldSet(0)
		p.none = true
	}
	p.identity()
	p.credentials()
	p.surroundings()
	p.usage()
	p.exit(e.Exit)
	w.changes(e.Changes)
	p.hash()
	w.missing(e.Process.Missing)
	if e.Loss != nil {
		w.loss(e.Loss)
	}
	if e.Sensor != nil {
		w.sensor(e.Sensor)
	}
	return append(w.b, '}')
}

// AppendProcessJSON appends the JSON form of p: the keys that an event has of its
// process, in an object of their own.
func AppendProcessJSON(dst []byte, p *Process) []byte {
	w := jsonWriter{b: append(dst, '{')}
	pw := processWriter{jsonWriter: &w, Process: p, absent: p.Missing.Absent()}
	pw.identity()
	pw.credentials()
	pw.surroundings()
	pw.usage()
	pw.hash()
	w.missing(p.Missing)
	return append(w.b, '}')
}

// processWriter writes the keys of a process. Keys that are always there are
// null where the field is absent, others are left out.
type processWriter struct {
	*jsonWriter
	*Process
	absent FieldSet
	none   bool // the event is not about a process
}

func (p *processWriter) has(f Field) bool { return !p.absent.Has(f) }

func (p *processWriter) identity() {
	p.hex("process_id", p.ID[:])
	p.orNull("pid", !p.none, int64(p.PID))
	p.orNull("ppid", p.PPID != 0 || p.has(FieldParent), int64(p.PPID))
	p.hex("parent_id", p.ParentID[:])
	p.host("name", p.Name, p.has(FieldName) || p.Name != "")
	p.host("exe", p.Exe, p.has(FieldExe) || p.Exe != "")
	if p.ExeDeleted {
		p.bool("exe_deleted", true)
	}
	if p.has(FieldArgs) || len(p.Args) > 0 {
		p.list("args", p.Args)
	} else {
		p.null("args")
	}
	p.time("start_time", p.StartTime)
	if p.StartTicks != 0 {
		p.uint("start_ticks", p.StartTicks)
	}
	if p.Generation != 0 {
		p.uint("generation", uint64(p.Generation))
	}
}

// unsetUID is the login uid, and the login session, of what no login started.
const unsetUID = 1<<32 - 1

func (p *processWriter) credentials() {
	p.orNull("uid", p.has(FieldUID), int64(p.UID))
	p.orNull("gid", p.has(FieldGID), int64(p.GID))
	p.ifHas(FieldEUID, "euid", int64(p.EUID))
	p.ifHas(FieldEGID, "egid", int64(p.EGID))
	if p.LoginUID != unsetUID {
		p.ifHas(FieldLoginUID, "login_uid", int64(p.LoginUID))
	}
	if p.LoginSession != 0 && p.LoginSession != unsetUID {
		p.ifHas(FieldLoginSession, "login_session", int64(p.LoginSession))
	}
	p.ifHas(FieldSession, "session", int64(p.Session))
	if p.TTY != 0 {
		p.ifHas(FieldTTY, "tty", int64(p.TTY))
	}
	if p.has(FieldCapabilities) {
		p.key("capabilities")
		p.b = append(p.b, '"')
		for shift := 60; shift >= 0; shift -= 4 {
			p.b = append(p.b, hexDigits[p.CapEffective>>shift&15])
		}
		p.b = append(p.b, '"')
	}
}

func (p *processWriter) surroundings() {
	p.someHost("cwd", p.CWD)
	p.someHost("cgroup", p.Cgroup)
	p.someHost("container_id", p.ContainerID)
	if len(p.Namespaces) > 0 {
		p.key("namespaces")
		p.open('[')
		for i := range p.Namespaces {
			p.element('{')
			p.host("type", p.Namespaces[i].Type, true)
			p.uint("inode", p.Namespaces[i].Inode)
			p.close('}')
		}
		p.close(']')
	}
	if len(p.Env) > 0 {
		p.list("env", p.Env)
	}
}

func (p *processWriter) usage() {
	if p.State != 0 && p.has(FieldState) {
		p.host("state", string([]byte{byte(p.State)}), true)
	}
	if p.Threads != 0 {
		p.ifHas(FieldThreads, "threads", int64(p.Threads))
	}
	if p.has(FieldRSS) {
		p.uint("rss", p.RSS)
		p.own("rss_kind", p.RSSKind.String())
	}
	p.ifHas(FieldCPU, "cpu_ms", p.CPU.Milliseconds())
}

func (p *processWriter) exit(x *Exit) {
	if x == nil {
		p.null("exit_code")
		return
	}
	p.orNull("exit_code", x.Signal == 0 && p.has(FieldExit), int64(x.Code))
	if x.Signal != 0 {
		p.int("signal", int64(x.Signal))
	}
	if x.Core {
		p.bool("core_dumped", true)
	}
	if x.CPU != 0 {
		p.int("exit_cpu_ms", x.CPU.Milliseconds())
	}
	if x.MaxRSS != 0 {
		p.uint("max_rss", x.MaxRSS)
	}
}

func (p *processWriter) hash() {
	h := &p.Hash
	if p.none || h.Status == HashNone {
		p.null("hash")
		return
	}
	p.key("hash")
	p.open('{')
	p.own("status", h.Status.String())
	p.some("algorithm", h.Algorithm)
	if len(h.Value) > 0 {
		p.key("value")
		p.hexString(h.Value)
	}
	p.some("reason", h.Reason)
	p.close('}')
}

func (p *processWriter) orNull(key string, ok bool, v int64) {
	if !ok {
		p.null(key)
		return
	}
	p.int(key, v)
}

func (p *processWriter) ifHas(f Field, key string, v int64) {
	if p.has(f) {
		p.int(key, v)
	}
}

// jsonWriter appends members to an object that is open.
type jsonWriter struct {
	b []byte
}

func (w *jsonWriter) changes(list []Change) {
	w.key("changes")
	w.open('[')
	for i := range list {
		w.element('{')
		w.own("field", list[i].Field.String())
		w.host("old", list[i].Old, true)
		w.host("new", list[i].New, true)
		w.close('}')
	}
	w.close(']')
}

// missing writes one reason for each field, that which says most about it.
func (w *jsonWriter) missing(m Mask) {
	w.key("missing")
	w.open('{')
	var done FieldSet
	for _, reason := range [...]struct {
		name   string
		fields FieldSet
	}{
		{"gone", m.Gone},
		{"denied", m.Denied},
		{"unsupported", m.Unsupported},
		{"failed", m.Failed},
		{"truncated", m.Truncated},
		{"inherited", m.Inherited},
	} {
		for left := reason.fields &^ done; left != 0; left &= left - 1 {
			f := Field(bits.TrailingZeros64(uint64(left)))
			w.own(f.String(), reason.name)
		}
		done |= reason.fields
	}
	w.close('}')
}

func (w *jsonWriter) loss(l *Loss) {
	w.key("loss")
	w.open('{')
	w.own("cause", l.Cause.String())
	w.time("from", l.From)
	w.time("to", l.To)
	if l.FromSeq != 0 || l.ToSeq != 0 {
		w.uint("from_seq", l.FromSeq)
		w.uint("to_seq", l.ToSeq)
	}
	if l.Known {
		w.uint("count", l.Count)
	} else {
		w.null("count")
	}
	w.some("hint", l.Hint)
	w.close('}')
}

func (w *jsonWriter) sensor(s *Sensor) {
	w.key("sensor")
	w.open('{')
	w.own("what", s.What.String())
	w.some("detail", s.Detail)
	w.some("version", s.Version)
	if !s.PreviousEpoch.IsZero() {
		w.hex("previous_epoch", s.PreviousEpoch[:])
		w.uint("previous_seq", s.PreviousSeq)
	}
	w.close('}')
}

// key begins a member. Keys are plain ASCII.
func (w *jsonWriter) key(key string) {
	w.comma()
	w.b = append(w.b, '"')
	w.b = append(w.b, key...)
	w.b = append(w.b, '"', ':')
}

func (w *jsonWriter) comma() {
	if c := w.b[len(w.b)-1]; c != '{' && c != '[' {
		w.b = append(w.b, ',')
	}
}

func (w *jsonWriter) open(bracket byte)  { w.b = append(w.b, bracket) }
func (w *jsonWriter) close(bracket byte) { w.b = append(w.b, bracket) }

// element opens an element of a list.
func (w *jsonWriter) element(bracket byte) {
	w.comma()
	w.open(bracket)
}

func (w *jsonWriter) null(key string) {
	w.key(key)
	w.b = append(w.b, "null"...)
}

func (w *jsonWriter) bool(key string, v bool) {
	w.key(key)
	w.b = strconv.AppendBool(w.b, v)
}

func (w *jsonWriter) int(key string, v int64) {
	w.key(key)
	w.b = strconv.AppendInt(w.b, v, 10)
}

func (w *jsonWriter) uint(key string, v uint64) {
	w.key(key)
	w.b = strconv.AppendUint(w.b, v, 10)
}

// timeLayout is RFC 3339 with all nine digits, so that times sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// time writes t, null if there is none.
func (w *jsonWriter) time(key string, t time.Time) {
	if nanos(t) == 0 {
		w.null(key)
		return
	}
	w.key(key)
	w.b = append(w.b, '"')
	w.b = t.UTC().AppendFormat(w.b, timeLayout)
	w.b = append(w.b, '"')
}

// given writes t, or nothing if there is none.
func (w *jsonWriter) given(key string, t time.Time) {
	if nanos(t) != 0 {
		w.time(key, t)
	}
}

// hex writes bytes, null if all are 0: such an id names nothing.
func (w *jsonWriter) hex(key string, v []byte) {
	zero := byte(0)
	for _, c := range v {
		zero |= c
	}
	if zero == 0 {
		w.null(key)
		return
	}
	w.key(key)
	w.hexString(v)
}

func (w *jsonWriter) hexString(v []byte) {
	w.b = append(w.b, '"')
	w.b = hex.AppendEncode(w.b, v)
	w.b = append(w.b, '"')
}

// own writes procmond's own text, with U+FFFD for what is not UTF-8.
func (w *jsonWriter) own(key, s string) {
	w.key(key)
	w.string(s)
}

// some is own for text that may not be there.
func (w *jsonWriter) some(key, s string) {
	if s != "" {
		w.own(key, s)
	}
}

// host writes text of the host, null if it is not known.
func (w *jsonWriter) host(key, s string, known bool) {
	if !known {
		w.null(key)
		return
	}
	w.key(key)
	w.hostString(s)
}

func (w *jsonWriter) someHost(key, s string) {
	if s != "" {
		w.host(key, s, true)
	}
}

func (w *jsonWriter) list(key string, list []string) {
	w.key(key)
	w.open('[')
	for _, s := range list {
		w.comma()
		w.hostString(s)
	}
	w.close(']')
}

// hostString is string of [Text].
func (w *jsonWriter) hostString(s string) { w.string(Text(s)) }

// string writes a JSON string.
func (w *jsonWriter) string(s string) {
	w.b = append(w.b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			w.b = utf8.AppendRune(w.b, r) // U+FFFD for a bad byte
			i += size
			continue
		}
		switch {
		case c == '"' || c == '\\':
			w.b = append(w.b, '\\', c)
		case c < 0x20 || c == 0x7f:
			w.b = append(w.b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			w.b = append(w.b, c)
		}
		i++
	}
	w.b = append(w.b, '"')
}
