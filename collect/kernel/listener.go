package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Mode is which sources a [Listener] may use.
type Mode string

// The modes.
const (
	ModeAuto      Mode = "auto"      // the best that this host lets
	ModeBPF       Mode = "ebpf"      // see OpenBPF
	ModeConnector Mode = "connector" // see OpenConnector
	ModeOff       Mode = "off"
)

// SourceNone is the name of no source.
const SourceNone = "none"

// How long a listener waits before it tries again what may pass.
const (
	minRetry = time.Second
	maxRetry = time.Minute
)

// limitsEvery is how often a source is asked for its limits.
const limitsEvery = time.Second

// opener opens one kind of source.
type opener struct {
	name string
	open func(Config) (Source, error)
}

func openers(m Mode) []opener {
	all := []opener{{string(ModeBPF), OpenBPF}, {string(ModeConnector), OpenConnector}}
	return slices.DeleteFunc(all, func(o opener) bool { return m != ModeAuto && o.name != string(m) })
}

// Listener hears of processes from the best source that there is, and from another
// one when that fails. It implements the Events of the collector. Its methods are not
// safe for concurrent use, but for Status.
type Listener struct {
	mode    Mode
	config  Config
	openers []opener
	status  atomic.Pointer[Status]

	source Source // nil: none
	chosen bool   // it was tried to find one
	began  time.Duration
	retry  time.Time // when to try again; zero: never
	wait   time.Duration
	looked time.Duration // at the limits of the source
}

// Status is what a listener listens to.
type Status struct {
	Mode   Mode
	Source string    // "ebpf", "connector" or "none"
	Since  time.Time // since when that is so; zero before it has begun
	// Why is a sentence: why it is not a better one. Empty if it is the best.
	Why string
	// Mend is what to grant or change for a better one.
	Mend string
	// Limits says in what respect the source is at present less than it could be; empty
	// if in none.
	Limits string
	// Faulty says that a source was named that is not in use.
	Faulty bool
}

// Listen returns a listener that opens a source at its first Read.
func Listen(m Mode, c Config) *Listener { return newListener(m, c, openers(m)) }

func newListener(m Mode, c Config, from []opener) *Listener {
	l := &Listener{mode: m, config: c, openers: from, wait: minRetry}
	l.status.Store(&Status{Mode: m, Source: SourceNone})
	return l
}

// Examine tells what a listener would listen to on this host. It opens the sources for
// a moment.
func Examine(m Mode) (Status, error) {
	l := Listen(m, Config{RingBytes: 1})
	l.choose(0)
	return l.Status(), l.Close()
}

// Status is what is listened to at present.
func (l *Listener) Status() Status { return *l.status.Load() }

// Filling is that of the source, nil while there is none.
func (l *Listener) Filling() <-chan struct{} {
	if l.source == nil {
		return nil
	}
	return l.source.Filling()
}

// Rest is that of the source.
func (l *Listener) Rest() bool { return l.source != nil && l.source.Rest() }

// Close lets go of the source.
func (l *Listener) Close() error {
	if l.source == nil {
		return nil
	}
	s := l.source
	l.source = nil
	return s.Close()
}

// Read is that of the source. One that fails is replaced, and what is told then
// says that something was lost. While there is none, Through is 0.
func (l *Listener) Read(b *Batch) {
	now, err := bootNow()
	note := ""
	if err == nil && l.source == nil && (!l.chosen || !l.retry.IsZero() && !l.retry.After(time.Now())) {
		note = l.choose(now)
	}
	if l.source == nil {
		b.begin(now)
		b.Note = note
		return
	}
	if err := l.source.Read(b); err != nil {
		l.fail(b, now, err)
		return
	}
	b.Began, b.Note = l.began, note
	if now-l.looked >= limitsEvery {
		l.looked = now
		l.lookAtLimits()
	}
}

// lookAtLimits makes visible what the source says of itself.
func (l *Listener) lookAtLimits() {
	source, ok := l.source.(interface{ Note() string })
	if !ok {
		return
	}
	if s, limits := l.Status(), source.Note(); s.Limits != limits {
		s.Limits = limits
		l.status.Store(&s)
	}
}

// fail replaces a source that has failed.
func (l *Listener) fail(b *Batch, now time.Duration, cause error) {
	failed := l.Status().Source
	var deaf *Deaf
	isDeaf := errors.As(cause, &deaf)
	cause = errors.Join(cause, l.Close())
	note := l.replace(now, cause)
	b.begin(now)
	b.Lost.Unknown = true
	if isDeaf {
		b.LostSince = deaf.Heard
	}
	b.Note = fmt.Sprintf("Kernel events from %s have ended (%v). %s", failed, cause, note)
	if l.source != nil {
		b.Began, b.Through = l.began, now
	}
}

// replace opens another source, unless the last one failed as soon as it was opened:
// then that waits.
func (l *Listener) replace(now time.Duration, cause error) string {
	if now-l.began >= maxRetry {
		l.wait = minRetry
		return l.choose(now)
	}
	l.retry = time.Now().Add(l.wait)
	l.wait = min(2*l.wait, maxRetry)
	return l.report(SourceNone, []error{cause})
}

// choose opens the first source that can be, and says in a sentence what came of it.
func (l *Listener) choose(now time.Duration) string {
	first := !l.chosen
	l.chosen, l.retry = true, time.Time{}
	var refused []error
	for _, o := range l.openers {
		s, err := o.open(l.config)
		if err == nil {
			l.source, l.began = s, now
			return l.report(o.name, refused)
		}
		refused = append(refused, err)
	}
	if slices.ContainsFunc(refused, mayPass) || !first {
		l.retry = time.Now().Add(l.wait)
		l.wait = min(2*l.wait, maxRetry)
	}
	return l.report(SourceNone, refused)
}

// mayPass reports whether an error is worth another attempt.
func mayPass(err error) bool {
	var u *Unavailable
	return !errors.As(err, &u) || u.Reason == ReasonFailed
}

// report makes the choice visible. It returns a sentence, unless nothing has changed.
func (l *Listener) report(name string, refused []error) string {
	s := Status{Mode: l.mode, Source: name, Since: time.Now(), Faulty: name == SourceNone && l.mode != ModeAuto && l.mode != ModeOff}
	var why, mend []string
	for _, err := range refused {
		why = append(why, err.Error())
		var u *Unavailable
		if errors.As(err, &u) && u.Mend != "" && !slices.Contains(mend, u.Mend) {
			mend = append(mend, u.Mend)
		}
	}
	s.Why, s.Mend = strings.Join(why, "; "), strings.Join(mend, "; or ")
	last := l.status.Swap(&s)
	if !last.Since.IsZero() && last.Source == s.Source && last.Why == s.Why {
		s.Since = last.Since
		l.status.Store(&s)
		return ""
	}
	return s.sentence()
}

func (s *Status) sentence() string {
	text := "Kernel events come from " + s.Source + "."
	if s.Source == SourceNone {
		text = "There are no kernel events: what lives between two scans is not seen."
	}
	if s.Why != "" {
		text += " Not used: " + s.Why + "."
	}
	return text
}
