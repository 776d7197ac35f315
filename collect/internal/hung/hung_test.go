package hung

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPanic must reach the caller, who knows what to do.
func TestPanic(t *testing.T) {
	defer func() {
		if p, ok := recover().(crash); !ok || p.value != "sour" {
			t.Errorf("recovered %v", p)
		}
	}()
	_, _ = Run(NewSet(1), time.Minute, nil, func(*Worker) error { panic("sour") })
}

// TestAbandoned: another worker goes on where the first one hangs, with memory of its
// own, and the first one has no say any more.
func TestAbandoned(t *testing.T) {
	set, id, release, back := NewSet(1), ID{PID: 1}, make(chan struct{}), make(chan error, 1)
	workers := 0
	text, err := Run(set, time.Millisecond, make([]byte, 3), func(w *Worker) error {
		workers++
		if !set.Room(id) {
			w.Text = append(w.Text, "second"...)
			return errors.New("of the second")
		}
		w.Begin(id)
		<-release
		err := w.End()
		back <- err
		return err
	})
	if workers != 2 || string(text) != "second" || err == nil || set.Len() != 1 || set.Room(ID{PID: 2}) {
		t.Errorf("%d workers, %q, %v, %d hang", workers, text, err, set.Len())
	}
	close(release)
	if err := <-back; !errors.Is(err, ErrAbandoned) || set.Len() != 0 {
		t.Errorf("got %v, %d hang", err, set.Len())
	}
}
