package tree

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stubborn ignores its context until release is closed.
func stubborn(name string, release <-chan struct{}) *fake {
	return service(name, func(context.Context, int) error {
		<-release
		return nil
	})
}

func TestStopIsOrdered(t *testing.T) {
	var j journal
	slow := func(name string) *fake {
		return service(name, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			j.add(name + " told")
			<-time.After(time.Second) // drains
			j.add(name + " ended")
			return nil
		})
	}
	a, b, c := slow("a"), slow("b"), slow("c")
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		for _, name := range []string{"b", "a"} {
			began := time.Now()
			if err := tr.Stop("group/"+name, 5*time.Second); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took != time.Second {
				t.Errorf("Stop of %s took %s", name, took)
			}
			wantState(t, tr, "group/"+name, StateStopped)
		}
		wantState(t, tr, "group/c", StateRunning)
		pass(time.Hour)
		want := []string{"b told", "b ended", "a told", "a ended"}
		if diff := cmp.Diff(want, j.all()); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if a.n.Load()+b.n.Load()+c.n.Load() != 3 {
			t.Error("a stopped service was started again")
		}
	}, a, b, c)
}

func TestStopping(t *testing.T) {
	bubbleWith(t, func(t *testing.T, tr *Tree) {
		release := make(chan struct{})
		tr.Add("group", stubborn("s", release), Options{})
		tr.Start(t.Context())
		synctest.Wait()
		stopped := make(chan error)
		go func() { stopped <- tr.Stop("group/s", time.Minute) }()
		pass(time.Second)
		wantState(t, tr, "group/s", StateStopping)
		if s := status(t, tr, "group/s"); s.BeatAge != time.Second || s.Activity != "starting" {
			t.Errorf("%+v", s)
		}
		close(release)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		wantState(t, tr, "group/s", StateStopped)
	})
}

// bubbleWith is bubble for a test that adds services and starts by itself.
func bubbleWith(t *testing.T, f func(t *testing.T, tr *Tree)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, Config{})
		f(t, tr)
		if err := tr.Close(0); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestStopTwice(t *testing.T) {
	s := wellBehaved("s")
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		for range 3 {
			if err := tr.Stop("group/s", time.Second); err != nil {
				t.Error(err)
			}
		}
		if s.n.Load() != 1 {
			t.Errorf("%d starts", s.n.Load())
		}
	}, s)
}

func TestStopUnknown(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		for _, path := range []string{"", "s", "group", "group/", "group/t", "other/s"} {
			if err := tr.Stop(path, time.Second); !errors.Is(err, ErrUnknown) {
				t.Errorf("Stop(%q) = %v, want ErrUnknown", path, err)
			}
		}
		wantState(t, tr, "group/s", StateRunning)
	}, wellBehaved("s"))
}

// A service in back-off is not running: its stop must not wait for the rest.
func TestStopDuringBackoff(t *testing.T) {
	bad := failing("bad", 1e9, errBoom)
	entry, hook := recorded()
	bubble(t, Config{Log: entry}, func(t *testing.T, tr *Tree) {
		wantState(t, tr, "group/bad", StateBackoff)
		starts, began := bad.n.Load(), time.Now()
		if err := tr.Stop("group/bad", time.Second); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Stop took %s", took)
		}
		s := status(t, tr, "group/bad")
		if s.State != StateStopped || !s.BackoffUntil.IsZero() {
			t.Errorf("%+v", s)
		}
		pass(time.Hour)
		wantState(t, tr, "group/bad", StateStopped)
		if bad.n.Load() != starts {
			t.Error("started again after Stop")
		}
	}, bad)
	if n := messages(hook)["info: service is started again after its rest"]; n != 0 {
		t.Errorf("%d notices of a start that did not happen", n)
	}
}

func TestCloseDuringBackoff(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		began := time.Now()
		if err := tr.Close(time.Second); err != nil || time.Since(began) != 0 {
			t.Errorf("Close = %v after %s", err, time.Since(began))
		}
	}, failing("bad", 1e9, errBoom))
}

func TestStopOfDone(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		if err := tr.Stop("group/s", time.Second); err != nil {
			t.Error(err)
		}
		wantState(t, tr, "group/s", StateDone)
	}, failing("s", 1, ErrDone))
}

func TestStopBeforeStart(t *testing.T) {
	bubbleWith(t, func(t *testing.T, tr *Tree) {
		s, sibling := wellBehaved("s"), wellBehaved("sibling")
		tr.Add("group", s, Options{})
		tr.Add("group", sibling, Options{})
		wantState(t, tr, "group/s", StateStopped)
		if err := tr.Stop("group/s", time.Second); err != nil {
			t.Error(err)
		}
		tr.Start(t.Context())
		pass(time.Minute)
		if s.n.Load() != 0 || sibling.n.Load() != 1 {
			t.Errorf("starts: %d stopped, %d sibling", s.n.Load(), sibling.n.Load())
		}
		wantState(t, tr, "group/s", StateStopped)
	})
}

// A service that does not end is named, and the rest is stopped all the same.
func TestHungAtStop(t *testing.T) {
	entry, hook := recorded()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		tr := newTree(t, Config{Log: entry})
		stuck, good, last := stubborn("stuck", release), wellBehaved("good"), wellBehaved("last")
		p := tr.Add("a", stuck, Options{Timeout: 3 * time.Second})
		tr.Add("a", good, Options{})
		tr.Add("b", last, Options{})
		tr.Start(t.Context())
		synctest.Wait()
		p.Beat("append")

		began := time.Now()
		err := tr.Stop("a/stuck", 0)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("Stop took %s, want the service's own timeout", took)
		}
		if !errors.Is(err, ErrUnstopped) || err.Error() != "stop a/stuck (last activity: append): service did not stop" {
			t.Errorf("Stop = %v", err)
		}
		if s := status(t, tr, "a/stuck"); s.State != StateHung || s.Activity != "append" || s.BeatAge != 3*time.Second {
			t.Errorf("%+v", s)
		}
		if err := tr.Stop("a/good", time.Second); err != nil {
			t.Error(err)
		}
		began = time.Now()
		err = tr.Close(2 * time.Second)
		if took := time.Since(began); took < 2*time.Second || took > 2*time.Second+rootGrace {
			t.Errorf("Close took %s", took)
		}
		if !errors.Is(err, ErrUnstopped) || !strings.Contains(err.Error(), "a/stuck") || strings.Contains(err.Error(), "b/last") {
			t.Errorf("Close = %v", err)
		}
		wantState(t, tr, "a/good", StateStopped)
		wantState(t, tr, "b/last", StateStopped)
		wantState(t, tr, "a/stuck", StateHung)

		close(release) // it comes back late
		synctest.Wait()
		wantState(t, tr, "a/stuck", StateStopped)
		if err := tr.Stop("a/stuck", time.Second); err != nil {
			t.Error(err)
		}
		if err := tr.Close(time.Second); err != nil {
			t.Error(err)
		}
	})
	if n := messages(hook)["error: service did not stop in time"]; n != 2 {
		t.Errorf("the log names it %d times, want at each attempt", n)
	}
}

// Close tells all at once and waits once for all.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		tr := newTree(t, Config{})
		for i := range 5 {
			tr.Add("slow", service(fmt.Sprint("s", i), func(ctx context.Context, _ int) error {
				<-ctx.Done()
				<-time.After(time.Second)
				return nil
			}), Options{})
		}
		tr.Add("stuck", stubborn("x", release), Options{})
		tr.Add("stuck", stubborn("y", release), Options{})
		tr.Start(t.Context())
		synctest.Wait()
		began := time.Now()
		err := tr.Close(4 * time.Second)
		if took := time.Since(began); took < 4*time.Second || took > 4*time.Second+rootGrace {
			t.Errorf("Close took %s", took)
		}
		want := "stop stuck/x (last activity: starting): service did not stop; stop stuck/y (last activity: starting): service did not stop"
		if !errors.Is(err, ErrUnstopped) || err.Error() != want {
			t.Errorf("Close = %v", err)
		}
		for _, s := range tr.Services() {
			if want := strings.HasPrefix(s.Path, "stuck/"); (s.State == StateHung) != want {
				t.Errorf("%s is %s", s.Path, s.State)
			}
		}
		close(release)
		if err := tr.Close(time.Second); err != nil {
			t.Errorf("second Close = %v", err)
		}
	})
}

func TestCloseWithoutStart(t *testing.T) {
	bubbleWith(t, func(t *testing.T, tr *Tree) {
		s := wellBehaved("s")
		tr.Add("group", s, Options{})
		if err := tr.Close(time.Second); err != nil {
			t.Error(err)
		}
		tr.Start(t.Context())
		pass(time.Minute)
		if s.n.Load() != 0 {
			t.Error("a closed tree started a service")
		}
	})
}

type contextKey struct{}

// The end of Start's context touches nobody; its values arrive.
func TestContextIsDetached(t *testing.T) {
	bubbleWith(t, func(t *testing.T, tr *Tree) {
		var got any
		s := service("s", func(ctx context.Context, n int) error {
			got = ctx.Value(contextKey{})
			return untilStopped(ctx, n)
		})
		tr.Add("group", s, Options{})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), contextKey{}, "value"), time.Second)
		defer cancel()
		tr.Start(ctx)
		pass(time.Hour)
		cancel()
		pass(time.Hour)
		wantState(t, tr, "group/s", StateRunning)
		if s.n.Load() != 1 || got != "value" {
			t.Errorf("%d starts, value %v", s.n.Load(), got)
		}
	})
}

func TestStopsMeet(t *testing.T) {
	slow := service("slow", func(ctx context.Context, _ int) error {
		<-ctx.Done()
		<-time.After(time.Second)
		return nil
	})
	bubble(t, Config{}, func(t *testing.T, tr *Tree) {
		const callers = 8
		results := make(chan error, callers+1) // one send each
		began := time.Now()
		for range callers {
			go func() { results <- tr.Stop("group/slow", time.Minute) }()
		}
		go func() { results <- tr.Close(time.Minute) }()
		for range callers + 1 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %s", took)
		}
	}, slow)
}

func TestMistakesPanic(t *testing.T) {
	tests := []struct {
		name string
		do   func(tr *Tree, s *fake)
	}{
		{"twice", func(tr *Tree, s *fake) { tr.Add("g", s, Options{}); tr.Add("g", s, Options{}) }},
		{"no group", func(tr *Tree, s *fake) { tr.Add("", s, Options{}) }},
		{"no name", func(tr *Tree, s *fake) { tr.Add("g", wellBehaved(""), Options{}) }},
		{"slash in group", func(tr *Tree, s *fake) { tr.Add("g/h", s, Options{}) }},
		{"slash in name", func(tr *Tree, s *fake) { tr.Add("g", wellBehaved("a/b"), Options{}) }},
		{"shared progress", func(tr *Tree, s *fake) {
			p := tr.Add("g", s, Options{})
			tr.Add("g", wellBehaved("t"), Options{Progress: p})
		}},
		{"add after start", func(tr *Tree, s *fake) { tr.Start(context.Background()); tr.Add("g", s, Options{}) }},
		{"add after close", func(tr *Tree, s *fake) { _ = tr.Close(0); tr.Add("g", s, Options{}) }},
		{"start twice", func(tr *Tree, s *fake) { tr.Start(context.Background()); tr.Start(context.Background()) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTree(t, Config{})
			func() {
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				tt.do(tr, wellBehaved("s"))
			}()
			if err := tr.Close(time.Second); err != nil { // usable all the same
				t.Error(err)
			}
		})
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := New(Config{Deadline: -1, StopTimeout: -1, FailureThreshold: -1, FailureDecay: -1, FailureBackoff: -1})
	if err == nil {
		t.Fatal("New accepted it")
	}
	for _, want := range []string{"deadline", "stop timeout", "failure threshold", "failure decay", "failure back-off"} {
		if !strings.Contains(err.Error(), want+" is negative") {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
}
