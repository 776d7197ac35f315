package procfile

import (
	"bytes"
	"errors"
)

// Status is what procmond uses of one /proc/PID/status, proc_pid_status(5).
type Status struct {
	UID, EUID, GID, EGID uint32
	CapEffective         uint64
}

// Parse reads one status file. All of its lines must be there.
func (s *Status) Parse(b []byte) error {
	*s = Status{}
	var ids, groups, capabilities bool
	for len(b) > 0 && (!ids || !groups || !capabilities) {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		// The name, which the process chooses, has a line of its own: the kernel
		// escapes line feeds in it.
		switch key, value := cutKey(line); string(key) {
		case "Uid":
			s.UID, s.EUID, ids = twoIDs(value)
		case "Gid":
			s.GID, s.EGID, groups = twoIDs(value)
		case "CapEff":
			s.CapEffective, capabilities = parseHex(value)
		}
	}
	switch {
	case !ids:
		return errors.New("parse status: no user ids")
	case !groups:
		return errors.New("parse status: no group ids")
	case !capabilities:
		return errors.New("parse status: no effective capabilities")
	}
	return nil
}

func cutKey(line []byte) (key, value []byte) {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, nil
	}
	return line[:i], bytes.TrimSpace(line[i+1:])
}

// twoIDs are the real and the effective id, the first of four.
func twoIDs(value []byte) (id, effective uint32, ok bool) {
	first, rest, _ := bytes.Cut(value, []byte{'\t'})
	second, _, _ := bytes.Cut(rest, []byte{'\t'})
	id, ok = parseUint32(first)
	if !ok {
		return 0, 0, false
	}
	effective, ok = parseUint32(second)
	return id, effective, ok
}
