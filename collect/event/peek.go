package event

import "fmt"

// PeekKind returns the kind of an encoded event without decoding the rest: it
// stands near the start of what this package encodes. A number from a later version
// is [KindUnknown], as an absent one is. The error wraps [ErrMalformed]; it speaks
// only of what was read on the way.
func PeekKind(encoded []byte) (Kind, error) {
	for b := encoded; len(b) > 0; {
		f, rest, err := next(b)
		if err != nil {
			return KindUnknown, fmt.Errorf("peek at kind of event: %w", err)
		}
		if f.tag == tagEventKind {
			return known(f.n), nil
		}
		b = rest
	}
	return KindUnknown, nil
}

func known(number uint64) Kind {
	if number > uint64(KindSensor) {
		return KindUnknown
	}
	return Kind(number)
}
