package tree

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// act is what a scripted service does in one call: something after a while.
type act struct {
	After time.Duration
	What  string
}

func (a act) do(ctx context.Context) error {
	if a.After > 0 {
		select {
		case <-time.After(a.After):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch a.What {
	case "error":
		return errBoom
	case "nil":
		return nil
	case "panic":
		panic("scripted")
	case "exit":
		runtime.Goexit()
	case "foreign":
		return context.Canceled
	case "done":
		return fmt.Errorf("scripted: %w", ErrDone)
	}
	panic("unknown act " + a.What)
}

func scripted(name string, script []act) *fake {
	return service(name, func(ctx context.Context, n int) error {
		if n > len(script) {
			return untilStopped(ctx, n)
		}
		return script[n-1].do(ctx)
	})
}

// expected is what a script must come to: it is run to its end or to "done".
func expected(script []act) (starts, failures, panics uint64, state State) {
	for _, a := range script {
		starts++
		switch a.What {
		case "done":
			return starts, failures, panics, StateDone
		case "panic":
			panics++
		}
		failures++
	}
	return starts + 1, failures, panics, StateRunning
}

// Services with random scripts: the counts come to what the scripts say,
// whatever the others do, and never do they contradict each other.
func TestRandomScripts(t *testing.T) {
	drawAct := rapid.Custom(func(t *rapid.T) act {
		return act{
			After: time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 1000, 60_000}).Draw(t, "ms")) * time.Millisecond,
			What:  rapid.SampledFrom([]string{"error", "error", "nil", "panic", "exit", "foreign", "done"}).Draw(t, "what"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		scripts := rapid.SliceOfN(rapid.SliceOfN(drawAct, 0, 15), 1, 5).Draw(rt, "scripts")
		stopAt := rapid.IntRange(0, 40).Draw(rt, "stop the extra one after seconds")
		synctest.Test(t, func(*testing.T) { runScripts(rt, scripts, stopAt) })
	})
}

func runScripts(t *rapid.T, scripts [][]act, stopAt int) {
	tr := newTree(t, Config{})
	var all []*fake
	for i, script := range scripts {
		s := scripted(fmt.Sprint(i), script)
		all = append(all, s)
		tr.Add(fmt.Sprint("group", i%2), s, Options{})
	}
	tr.Add("group0", scripted("extra", scripts[0]), Options{})
	tr.Start(context.Background())
	for second := range 120 {
		if second == stopAt {
			if err := tr.Stop("group0/extra", 0); err != nil {
				t.Error(err)
			}
		}
		pass(time.Second)
		for _, s := range tr.Services() {
			checkCounts(t, s)
		}
	}
	pass(time.Hour)
	got := tr.Services()
	for i, script := range scripts {
		starts, failures, panics, state := expected(script)
		if s := got[i]; s.Starts != starts || s.Failures != failures || s.Panics != panics || s.State != state {
			t.Errorf("script %v\n gave %+v\n want %d starts, %d failures, %d panics, %s", script, s, starts, failures, panics, state)
		}
		if n := all[i].n.Load(); uint64(n) != starts || all[i].both.Load() {
			t.Errorf("service was called %d times, overlapping: %v", n, all[i].both.Load())
		}
	}
	if s := got[len(scripts)]; s.State != StateStopped && s.State != StateDone {
		t.Errorf("%+v", s)
	}
	if err := tr.Close(0); err != nil {
		t.Error(err)
	}
}

func checkCounts(t *rapid.T, s Status) {
	inServe := uint64(0)
	switch s.State {
	case StateRunning:
		inServe = 1
	case StateBackoff:
		if s.BackoffUntil.Before(time.Now()) || s.Backoffs == 0 {
			t.Errorf("in back-off until %s at %s: %+v", s.BackoffUntil, time.Now(), s)
		}
	case StateStopped, StateDone:
		return
	default:
		t.Errorf("settled in state %s", s.State)
	}
	if s.Starts != s.Failures+inServe || s.Restarts != s.Starts-1 || s.Panics > s.Failures {
		t.Errorf("counts contradict: %+v", s)
	}
	if s.State != StateBackoff && !s.BackoffUntil.IsZero() {
		t.Errorf("back-off announced: %+v", s)
	}
}

// Everything at once, on the real clock: for the race detector, and to see
// that Stop returns only when the service is out of Serve, for good.
func TestConcurrentUse(t *testing.T) {
	tr := newTree(t, Config{FailureBackoff: time.Microsecond, Deadline: time.Hour})
	const services = 8
	var all []*fake
	for i := range services {
		p := new(Progress)
		s := service(fmt.Sprint(i), func(ctx context.Context, n int) error {
			p.Beat("loop")
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case n%7 == 0:
				panic(n)
			default:
				return errBoom
			}
		})
		all = append(all, s)
		tr.Add(fmt.Sprint("group", i%3), s, Options{Progress: p})
	}
	calm := wellBehaved("calm")
	tr.Add("group0", calm, Options{})
	tr.Start(t.Context())

	var over atomic.Bool
	var readers, stoppers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !over.Load() {
				_ = tr.Services()
				if h := tr.Hung(); len(h) > 0 {
					t.Errorf("hung: %+v", h)
				}
				runtime.Gosched()
			}
		})
	}
	for i, s := range all[:services-1] { // Close has something left
		stoppers.Go(func() {
			for s.n.Load() < 50 {
				runtime.Gosched()
			}
			if err := tr.Stop(fmt.Sprintf("group%d/%d", i%3, i), 10*time.Second); err != nil {
				t.Error(err)
			}
			if s.in.Load() != 0 {
				t.Errorf("service %d is in Serve after Stop", i)
			}
		})
	}
	stoppers.Wait()
	before := make([]int64, services-1)
	for i := range before {
		before[i] = all[i].n.Load()
	}
	if err := tr.Close(10 * time.Second); err != nil {
		t.Error(err)
	}
	over.Store(true)
	readers.Wait()
	for i, s := range all {
		if s.both.Load() || s.in.Load() != 0 {
			t.Errorf("service %d: overlapping calls %v, %d in progress", i, s.both.Load(), s.in.Load())
		}
		if i < len(before) && s.n.Load() != before[i] {
			t.Errorf("service %d was started after Stop", i)
		}
	}
	for _, s := range tr.Services() {
		if s.State != StateStopped {
			t.Errorf("%s is %s after Close", s.Path, s.State)
		}
	}
	if calm.n.Load() != 1 {
		t.Errorf("calm was started %d times", calm.n.Load())
	}
}

// Stop and an end of the service's own meet in every order.
func TestStopRacesWithFailure(t *testing.T) {
	for _, err := range []error{errBoom, nil, ErrDone} {
		for range 200 {
			tr := newTree(t, Config{})
			fail := make(chan struct{})
			tr.Add("g", service("s", func(ctx context.Context, n int) error {
				select {
				case <-fail:
				case <-ctx.Done():
				}
				return err
			}), Options{})
			tr.Start(t.Context())
			var both sync.WaitGroup
			both.Go(func() { close(fail) })
			both.Go(func() {
				if err := tr.Stop("g/s", 10*time.Second); err != nil {
					t.Error(err)
				}
			})
			both.Wait()
			s := status(t, tr, "g/s")
			if s.State != StateStopped && (s.State != StateDone || !errors.Is(err, ErrDone)) {
				t.Errorf("%v: %+v", err, s)
			}
			if err := tr.Close(10 * time.Second); err != nil {
				t.Error(err)
			}
		}
	}
}
