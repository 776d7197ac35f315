package tree

import (
	"context"
	"errors"
	"fmt"
	"log"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/thejerf/suture/v4"
)

var errBoom = errors.New("boom")

// One service fails for ever; its siblings, in its group and in others, are
// started once, and one that fails rarely is never held up by it.
func TestSiblingsDoNotNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, Config{})
		bad := failing("bad", 1e9, errBoom)
		near, far := wellBehaved("near"), wellBehaved("far")
		rare := service("rare", func(ctx context.Context, n int) error {
			select {
			case <-time.After(30 * time.Second):
				return errBoom
			case <-ctx.Done():
				return nil
			}
		})
		tr.Add("a", bad, Options{})
		tr.Add("a", near, Options{})
		tr.Add("a", rare, Options{})
		tr.Add("b", far, Options{})
		tr.Start(t.Context())
		pass(time.Minute + time.Second)
		if n := bad.n.Load(); n < 20 {
			t.Errorf("bad was started %d times, want 20 at least", n)
		}
		if near.n.Load() != 1 || far.n.Load() != 1 {
			t.Errorf("siblings were started %d and %d times, want once", near.n.Load(), far.n.Load())
		}
		if s := status(t, tr, "a/rare"); s.Starts != 3 || s.Backoffs != 0 {
			t.Errorf("rare was started %d times with %d rests, want 3 and none", s.Starts, s.Backoffs)
		}
		for _, path := range []string{"a/near", "b/far"} {
			if s := status(t, tr, path); s.State != StateRunning || s.Restarts+s.Failures+s.Backoffs != 0 {
				t.Errorf("%+v", s)
			}
		}
		if err := tr.Close(0); err != nil {
			t.Error(err)
		}
	})
}

func TestBackoff(t *testing.T) {
	var starts []time.Time
	bad := service("bad", func(context.Context, int) error {
		starts = append(starts, time.Now())
		return errBoom
	})
	entry, hook := recorded()
	bubble(t, Config{Log: entry}, func(t *testing.T, tr *Tree) {
		for round := range 4 {
			now := time.Now()
			s := status(t, tr, "group/bad")
			if want := (round + 1) * (DefaultFailureThreshold + 1); len(starts) != want {
				t.Fatalf("round %d: %d starts, want %d at once", round, len(starts), want)
			}
			rest := s.BackoffUntil.Sub(now)
			if s.State != StateBackoff || rest < DefaultFailureBackoff || rest > DefaultFailureBackoff*3/2 {
				t.Fatalf("round %d: rests %s: %+v", round, rest, s)
			}
			if s.Backoffs != uint64(round+1) || s.Failures != uint64(len(starts)) || s.Restarts != s.Starts-1 || s.LastError != "boom" {
				t.Fatalf("round %d: %+v", round, s)
			}
			pass(rest - 1)
			wantState(t, tr, "group/bad", StateBackoff)
			pass(1)
			if got := starts[len(starts)-1]; !got.Equal(s.BackoffUntil) {
				t.Fatalf("started at %s, announced for %s", got, s.BackoffUntil)
			}
		}
	}, bad)
	got := messages(hook)
	want := map[string]int{
		"debug: service started":                        30,
		"warning: service failed and is started again":  30,
		"warning: service failed too often and rests":   5,
		"info: service is started again after its rest": 4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestBackoffIsConfigured(t *testing.T) {
	bad := failing("bad", 1e9, errBoom)
	c := Config{FailureThreshold: 2, FailureBackoff: time.Minute, FailureDecay: time.Hour}
	bubble(t, c, func(t *testing.T, tr *Tree) {
		s := status(t, tr, "group/bad")
		if rest := time.Until(s.BackoffUntil); s.Starts != 3 || rest < time.Minute || rest > 90*time.Second {
			t.Errorf("rests %s: %+v", rest, s)
		}
	}, bad)
}

// The random part must be there: services that fail together come back apart.
func TestBackoffJitter(t *testing.T) {
	var all []*fake
	for i := range 10 {
		all = append(all, failing(fmt.Sprint("bad", i), 1e9, errBoom))
	}
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		until := map[time.Time]bool{}
		for _, s := range tr.Services() {
			until[s.BackoffUntil] = true
		}
		if len(until) < 2 {
			t.Error("ten services come back at the same nanosecond")
		}
	}, all...)
}

// Old failures fade: one a minute never makes a service rest.
func TestFailuresDecay(t *testing.T) {
	slow := service("slow", func(ctx context.Context, n int) error {
		select {
		case <-time.After(time.Minute):
			return errBoom
		case <-ctx.Done():
			return nil
		}
	})
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		pass(time.Hour)
		if s := status(t, tr, "group/slow"); s.Failures != 60 || s.Backoffs != 0 || s.State != StateRunning {
			t.Errorf("%+v", s)
		}
	}, slow)
}

// brokenIs panics when it is asked what it is.
type brokenIs struct{}

func (brokenIs) Error() string { return "broken" }
func (brokenIs) Is(error) bool { panic("Is of a broken error") }

// nilError panics when it is asked for its text.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestReturns(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	tests := []struct {
		name  string
		err   error
		state State
		last  string // part of LastError; empty: none
	}{
		{"nil", nil, StateRunning, "returned without an error"},
		{"error", errBoom, StateRunning, "boom"},
		{"done", ErrDone, StateDone, ""},
		{"wrapped done", fmt.Errorf("no such feature: %w", ErrDone), StateDone, "no such feature: service is done"},
		{"done and cancelled", errors.Join(cancelled.Err(), ErrDone), StateDone, "context canceled"},
		{"foreign cancel", cancelled.Err(), StateRunning, "context that is not the service's: context canceled"},
		{"foreign deadline", fmt.Errorf("dial: %w", context.DeadlineExceeded), StateRunning, "not the service's: dial: context deadline"},
		{"suture's do not restart", fmt.Errorf("x: %w", suture.ErrDoNotRestart), StateRunning, "x: "},
		{"suture's terminate tree", fmt.Errorf("y: %w", suture.ErrTerminateSupervisorTree), StateRunning, "y: "},
		{"error that panics in Is", brokenIs{}, StateRunning, "panic: Is of a broken error"},
		{"nil pointer as error", (*nilError)(nil), StateRunning, "<nil>"},
		{"long", errors.New(strings.Repeat("ä", 5000)), StateRunning, "ää…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, sibling := failing("s", 2, tt.err), wellBehaved("sibling")
			bubble(t, Config{}, func(t *testing.T, tr *Tree) {
				testReturned(t, status(t, tr, "group/s"), tt.state, tt.last)
				if sibling.n.Load() != 1 {
					t.Errorf("the sibling was started %d times", sibling.n.Load())
				}
				wantState(t, tr, "group/sibling", StateRunning)
				pass(time.Hour)
				testReturned(t, status(t, tr, "group/s"), tt.state, tt.last)
			}, s, sibling)
		})
	}
}

func testReturned(t *testing.T, got Status, state State, last string) {
	t.Helper()
	starts, failures := uint64(3), uint64(2)
	if state == StateDone {
		starts, failures = 1, 0
	}
	if got.State != state || got.Starts != starts || got.Restarts != starts-1 || got.Failures != failures {
		t.Errorf("state %s, %d starts, %d restarts, %d failures; want %s, %d, %d, %d",
			got.State, got.Starts, got.Restarts, got.Failures, state, starts, starts-1, failures)
	}
	if (last == "") != (got.LastError == "") || !strings.Contains(got.LastError, last) {
		t.Errorf("last error %q, want %q in it", got.LastError, last)
	}
	if got.LastErrorAt.IsZero() != (last == "") {
		t.Errorf("last error %q at %s", got.LastError, got.LastErrorAt)
	}
	if len(got.LastError) > textLimit+100 {
		t.Errorf("last error has %d bytes", len(got.LastError))
	}
}

//go:noinline
func panicHere(v any) { panic(v) }

func index(list []int, i int) int { return list[i] }

func deref(p *int) int { return *p }

// lineOf is the place of a function of one line.
func lineOf(t *testing.T, function any) string {
	t.Helper()
	pc := runtime.FuncForPC(reflect.ValueOf(function).Pointer())
	_, line := pc.FileLine(pc.Entry())
	return fmt.Sprintf("tree/restart_test.go:%d", line)
}

func TestPanics(t *testing.T) {
	here := lineOf(t, panicHere)
	tests := []struct {
		name  string
		panic func()
		want  string
	}{
		{"text", func() { panicHere("oops") }, "oops (" + here + ")"},
		{"error", func() { panicHere(errBoom) }, "boom (" + here + ")"},
		{"done", func() { panicHere(ErrDone) }, "service is done (" + here + ")"},
		{"nil", func() { panicHere(nil) }, "panic called with nil argument (" + here + ")"},
		{"index", func() { index(nil, 3) }, "runtime error: index out of range [3] with length 0 (" + lineOf(t, index) + ")"},
		{"nil pointer", func() { deref(nil) }, "runtime error: invalid memory address or nil pointer dereference (" + lineOf(t, deref) + ")"},
		{"again in a deferred call", func() { defer panicHere("second"); index(nil, 1) }, "second (" + here + ")"},
		{"recovered before", func() {
			defer panicHere("late")
			defer func() { _ = recover() }()
			index(nil, 1)
		}, "late (" + here + ")"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := service("s", func(ctx context.Context, n int) error {
				if n == 1 {
					tt.panic()
				}
				return untilStopped(ctx, n)
			})
			entry, hook := recorded()
			sibling := wellBehaved("sibling")
			bubble(t, Config{Log: entry}, func(t *testing.T, tr *Tree) {
				got := status(t, tr, "group/s")
				if got.LastPanic != tt.want || got.LastError != "panic: "+tt.want {
					t.Errorf("last panic %q, last error %q\nwant %q", got.LastPanic, got.LastError, tt.want)
				}
				if got.State != StateRunning || got.Starts != 2 || got.Panics != 1 || got.Failures != 1 || sibling.n.Load() != 1 {
					t.Errorf("%+v, sibling %d starts", got, sibling.n.Load())
				}
			}, s, sibling)
			if m := messages(hook); m["error: service panicked"] != 1 || m["debug: stack of the panic"] != 1 {
				t.Errorf("log: %v", m)
			}
			for _, e := range hook.AllEntries() {
				if stack, ok := e.Data[keyStack].(string); ok && !strings.Contains(stack, "restart_test.go") {
					t.Errorf("stack without the place:\n%s", stack)
				}
			}
		})
	}
}

func TestGoexit(t *testing.T) {
	s := service("s", func(ctx context.Context, n int) error {
		if n == 1 {
			runtime.Goexit()
		}
		return untilStopped(ctx, n)
	})
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		if got := status(t, tr, "group/s"); got.Starts != 2 || got.Failures != 1 || got.State != StateRunning || got.LastError != "called runtime.Goexit" {
			t.Errorf("%+v", got)
		}
	}, s)
}

// A panic while stopping is counted, and does not start the service again.
func TestPanicWhileStopping(t *testing.T) {
	s := service("s", func(ctx context.Context, _ int) error {
		<-ctx.Done()
		panic("late")
	})
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		if err := tr.Stop("group/s", 0); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		if got := status(t, tr, "group/s"); got.State != StateStopped || got.Panics != 1 || got.Starts != 1 {
			t.Errorf("%+v", got)
		}
	}, s)
}

// An error while stopping is kept, but is no failure; that of the context is
// no error at all.
func TestErrorWhileStopping(t *testing.T) {
	bad := service("bad", func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return errBoom
	})
	good := wellBehaved("good")
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		for _, path := range []string{"group/bad", "group/good"} {
			if err := tr.Stop(path, 0); err != nil {
				t.Error(err)
			}
		}
		if got := status(t, tr, "group/bad"); got.State != StateStopped || got.LastError != "boom" || got.Failures != 0 {
			t.Errorf("%+v", got)
		}
		if got := status(t, tr, "group/good"); got.State != StateStopped || got.LastError != "" || got.Failures != 0 {
			t.Errorf("%+v", got)
		}
	}, bad, good)
}

// Suture's own hook writes to the standard logger; ours must have replaced it
// in every supervisor.
func TestNothingOnTheStandardLog(t *testing.T) {
	var out strings.Builder
	before := log.Writer()
	log.SetOutput(&out)
	defer log.SetOutput(before)
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		pass(time.Minute)
	}, failing("bad", 1e9, errBoom), service("worse", func(context.Context, int) error { panic("x") }))
	if out.Len() > 0 {
		t.Errorf("standard log:\n%s", out.String())
	}
}
