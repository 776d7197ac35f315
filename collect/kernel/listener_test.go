//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSource says that it was read, until it is broken.
type fakeSource struct {
	limits string
	broken error
	closed int
}

func (s *fakeSource) Read(b *Batch) error {
	if s.broken != nil {
		return s.broken
	}
	b.begin(7)
	b.Through = 7
	return nil
}

func (s *fakeSource) Filling() <-chan struct{} { return nil }

func (s *fakeSource) Rest() bool   { return false }
func (s *fakeSource) Note() string { return s.limits }
func (s *fakeSource) Close() error { s.closed++; return nil }

// fakeOpener is a kind of source that can be refused.
type fakeOpener struct {
	refuse error
	source *fakeSource // the last one that it opened
	asked  int
}

func (o *fakeOpener) open(Config) (Source, error) {
	o.asked++
	if o.refuse != nil {
		return nil, o.refuse
	}
	o.source = &fakeSource{}
	return o.source, nil
}

func newFakeListener(m Mode) (l *Listener, first, second *fakeOpener) {
	first, second = &fakeOpener{}, &fakeOpener{}
	from := []opener{{"first", first.open}, {"second", second.open}}
	if m != ModeAuto {
		from = from[:1]
	}
	return newListener(m, Config{}, from), first, second
}

func readOnce(l *Listener) Batch {
	var b Batch
	l.Read(&b)
	return b
}

func TestListenerTakesTheFirst(t *testing.T) {
	l, first, second := newFakeListener(ModeAuto)
	if s := l.Status(); s.Source != SourceNone || !s.Since.IsZero() || first.asked > 0 {
		t.Errorf("before the first Read: %+v, asked %d", s, first.asked)
	}
	b := readOnce(l)
	if b.Note != "Kernel events come from first." || b.Began == 0 || b.Through != 7 || b.Lost.Any() {
		t.Errorf("got %+v", b)
	}
	if again := readOnce(l); again.Note != "" || again.Began != b.Began || second.asked > 0 {
		t.Errorf("again: %+v, the second was asked %d times", again, second.asked)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil || first.source.closed != 1 {
		t.Errorf("closed %d times: %v", first.source.closed, err)
	}
}

func TestListenerFallsBack(t *testing.T) {
	l, first, _ := newFakeListener(ModeAuto)
	first.refuse = &Unavailable{Source: "first", Reason: ReasonRights, What: "no right", Mend: "grant it"}
	b := readOnce(l)
	s := l.Status()
	if !strings.Contains(b.Note, "come from second. Not used: first: no right.") || s.Source != "second" || s.Why != "first: no right" || s.Mend != "grant it" || s.Faulty {
		t.Errorf("%q, %+v", b.Note, s)
	}
}

// A source that fails is replaced at once, and what was lost between is said.
func TestListenerReplacesWhatFails(t *testing.T) {
	l, first, second := newFakeListener(ModeAuto)
	before := readOnce(l)
	l.began -= maxRetry // it was not opened just now
	first.source.broken, first.refuse = errors.New("boom"), errors.New("refused")
	b := readOnce(l)
	if !b.Lost.Unknown || b.Began <= before.Began || b.Through != b.Now || first.source.closed != 1 {
		t.Errorf("got %+v, closed %d times", b, first.source.closed)
	}
	if !strings.Contains(b.Note, "first have ended (boom)") || !strings.Contains(b.Note, "come from second") {
		t.Errorf("note %q", b.Note)
	}
	if after := readOnce(l); after.Lost.Any() || after.Note != "" || after.Began != b.Began || second.asked != 1 {
		t.Errorf("after: %+v", after)
	}
}

// A source that has gone deaf did not know since when it tells nothing.
func TestListenerReplacesWhatIsDeaf(t *testing.T) {
	l, first, _ := newFakeListener(ModeAuto)
	readOnce(l)
	l.began -= maxRetry
	first.source.broken, first.refuse = fmt.Errorf("read: %w", &Deaf{Source: "first", Heard: 5, Signs: 4}), errors.New("refused")
	b := readOnce(l)
	if !b.Lost.Unknown || b.LostSince != 5 || l.Status().Source != "second" || !strings.Contains(b.Note, "first: the kernel does not tell any more") {
		t.Errorf("got %+v", b)
	}
	if again := readOnce(l); again.LostSince != 0 {
		t.Errorf("again: %+v", again)
	}
}

// A source that fails as soon as it is open is not opened again and again.
func TestListenerIsPatientWithWhatFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, first, _ := newFakeListener(ModeAuto)
		lost := 0
		for range 10_000 {
			if b := readOnce(l); b.Lost.Any() {
				lost++
			}
			if first.source != nil {
				first.source.broken = errors.New("boom")
			}
			<-time.After(40 * time.Millisecond)
		}
		if first.asked < 5 || first.asked > 15 || lost > first.asked || first.source.closed != 1 {
			t.Errorf("opened %d times in 400 s, lost %d times", first.asked, lost)
		}
	})
}

// What may pass is tried again, after longer and longer; what can not pass is not.
func TestListenerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, first, _ := newFakeListener(ModeBPF)
		first.refuse = errors.New("no memory")
		if b := readOnce(l); b.Through != 0 || b.Lost.Any() || !l.Status().Faulty || !strings.Contains(b.Note, "no memory") {
			t.Errorf("got %+v, %+v", b, l.Status())
		}
		for range 600 {
			<-time.After(time.Second)
			if b := readOnce(l); b.Note != "" {
				t.Fatalf("said again: %s", b.Note)
			}
		}
		if first.asked < 10 || first.asked > 17 {
			t.Errorf("asked %d times in ten minutes", first.asked)
		}
		first.refuse = nil
		<-time.After(maxRetry)
		if b := readOnce(l); b.Note != "Kernel events come from first." || l.Status().Faulty {
			t.Errorf("got %+v, %+v", b, l.Status())
		}
	})
	l, first, _ := newFakeListener(ModeBPF)
	first.refuse = &Unavailable{Source: "first", Reason: ReasonKernel, What: "too old"}
	readOnce(l)
	if !l.retry.IsZero() {
		t.Error("what can not pass is tried again")
	}
}

// TestListenerTellsOfLimits: what the source says of itself is seen a second later.
func TestListenerTellsOfLimits(t *testing.T) {
	l, first, _ := newFakeListener(ModeAuto)
	readOnce(l)
	since := l.Status().Since
	for _, limits := range []string{"it is slow", ""} {
		first.source.limits = limits
		l.looked -= limitsEvery
		readOnce(l)
		if s := l.Status(); s.Limits != limits || s.Source != "first" || !s.Since.Equal(since) {
			t.Errorf("%+v, want %q", s, limits)
		}
	}
	first.source.limits = "it is slow"
	readOnce(l)
	if s := l.Status(); s.Limits != "" {
		t.Errorf("asked too often: %+v", s)
	}
}
