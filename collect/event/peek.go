package event

import (
	"fmt"
	"time"
)

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

// PeekObserved is [PeekKind] with when the event was observed, which stands near it;
// zero if it is not said.
func PeekObserved(encoded []byte) (k Kind, observed time.Time, err error) {
	for b := encoded; len(b) > 0; {
		f, rest, err := next(b)
		if err != nil {
			return KindUnknown, time.Time{}, fmt.Errorf("peek at time of event: %w", err)
		}
		switch f.tag {
		case tagEventKind:
			k = known(f.n)
		case tagEventObserved:
			return k, fromNanos(int64(f.n)), nil
		}
		b = rest
	}
	return k, time.Time{}, nil
}

func known(number uint64) Kind {
	if number > uint64(KindSensor) {
		return KindUnknown
	}
	return Kind(number)
}
