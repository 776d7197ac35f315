package bus

// signal tells any number of waiters that something changed. Whatever guards the
// thing that changes guards the signal. The zero value is ready.
type signal struct {
	changed chan struct{} // nil while nobody waits; closed by the next change
}

// wait is closed at the next change.
func (s *signal) wait() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

func (s *signal) raise() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
