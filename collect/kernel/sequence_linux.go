package kernel

// maxCPUs is more than any kernel numbers.
const maxCPUs = 8192

// sequences find messages that are missing. The kernel counts on each CPU what it
// sends there, to whomever: whoever hears everything hears each number.
type sequences struct {
	cpus    []sequence
	missing uint64 // of all CPUs, since settle
}

// sequence is that of one CPU. The first message that is heard is its base.
type sequence struct {
	heard   bool
	next    uint32
	missing uint64 // since settle
}

// note takes the number of a message and reports whether some before it are missing,
// which may yet come: two that were sent at about the same time may be in any order.
func (s *sequences) note(m *message) (gap bool) {
	if m.cpu >= maxCPUs {
		return false // the answer to a request, of a kernel that does not say
	}
	for int(m.cpu) >= len(s.cpus) {
		s.cpus = append(s.cpus, sequence{})
	}
	c := &s.cpus[m.cpu]
	if !c.heard {
		*c = sequence{heard: true, next: m.seq + 1}
		return false
	}
	ahead := int32(m.seq - c.next)
	if ahead < 0 { // one that was missed
		if c.missing > 0 {
			c.missing--
			s.missing--
		}
		return false
	}
	c.next = m.seq + 1
	c.missing += uint64(ahead)
	s.missing += uint64(ahead)
	return ahead > 0
}

// settle returns how many messages are lost: what is still missing will not come.
func (s *sequences) settle() uint64 {
	n := s.missing
	if n > 0 {
		for i := range s.cpus {
			s.cpus[i].missing = 0
		}
		s.missing = 0
	}
	return n
}
