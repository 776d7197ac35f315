package tree

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// paths of the services that are hung.
func hung(tr *Tree) (paths []string) {
	for _, s := range tr.Hung() {
		paths = append(paths, s.Path)
	}
	return paths
}

func wantHung(t *testing.T, tr *Tree, want ...string) {
	t.Helper()
	got := hung(tr)
	if len(got) != len(want) {
		t.Fatalf("hung: %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("hung: %v, want %v", got, want)
		}
	}
}

func TestHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, Config{Deadline: 10 * time.Second})
		own := new(Progress)
		if got := tr.Add("g", wellBehaved("own"), Options{Progress: own, Deadline: 3 * time.Second}); got != own {
			t.Error("Add made another Progress")
		}
		usual := tr.Add("g", wellBehaved("usual"), Options{})
		tr.Add("g", wellBehaved("free"), Options{Deadline: -1})
		wantHung(t, tr)
		tr.Start(t.Context())
		began := time.Now()
		pass(3 * time.Second)
		wantHung(t, tr) // at the deadline is in time
		pass(1)
		wantHung(t, tr, "g/own")
		s := status(t, tr, "g/own")
		if s.State != StateHung || !s.Since.Equal(began.Add(3*time.Second)) || s.Activity != "starting" || s.BeatAge != 3*time.Second+1 {
			t.Errorf("%+v", s)
		}
		own.Beat("moves again")
		wantHung(t, tr)
		if s := status(t, tr, "g/own"); s.State != StateRunning || s.Activity != "moves again" || s.BeatAge != 0 || !s.Since.Equal(began) {
			t.Errorf("%+v", s)
		}
		pass(10 * time.Second)
		wantHung(t, tr, "g/own", "g/usual")
		usual.Beat("x")
		wantHung(t, tr, "g/own")
		pass(time.Hour)
		wantHung(t, tr, "g/own", "g/usual")
		wantState(t, tr, "g/free", StateRunning)
		if s := status(t, tr, "g/own"); s.Starts != 1 {
			t.Errorf("a hung service was started again: %+v", s)
		}
		if err := tr.Close(0); err != nil {
			t.Error(err)
		}
		wantHung(t, tr)
	})
}

// A start is a beat: the deadline of a service that came back begins anew.
func TestRestartBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, Config{Deadline: 10 * time.Second})
		s := service("s", func(ctx context.Context, n int) error {
			select {
			case <-time.After(9 * time.Second):
				return errBoom
			case <-ctx.Done():
				return nil
			}
		})
		p := tr.Add("g", s, Options{})
		tr.Start(t.Context())
		pass(8 * time.Second)
		p.Beat("almost there")
		pass(time.Second)
		if s := status(t, tr, "g/s"); s.Starts != 2 || s.BeatAge != 0 || s.Activity != "starting" {
			t.Errorf("%+v", s)
		}
		for range 60 {
			pass(time.Second)
			wantHung(t, tr)
		}
		if err := tr.Close(0); err != nil {
			t.Error(err)
		}
	})
}

// Who does not run can't hang, and who stops has Stop's deadline.
func TestNotHungUnlessRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		tr := newTree(t, Config{Deadline: time.Second, FailureBackoff: time.Hour})
		tr.Add("g", failing("rests", 1e9, errBoom), Options{})
		tr.Add("g", failing("done", 1, ErrDone), Options{})
		tr.Add("g", wellBehaved("stopped"), Options{})
		tr.Add("g", stubborn("stuck", release), Options{})
		tr.Start(t.Context())
		synctest.Wait()
		if err := tr.Stop("g/stopped", 0); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		wantHung(t, tr, "g/stuck")
		if err := tr.Stop("g/stuck", time.Minute); err == nil {
			t.Error("stopped")
		}
		wantHung(t, tr)
		wantState(t, tr, "g/stuck", StateHung)
		for _, path := range []string{"g/rests", "g/done", "g/stopped"} {
			if s := status(t, tr, path); s.BeatAge != 0 || s.Activity != "" {
				t.Errorf("%+v", s)
			}
		}
		close(release)
		if err := tr.Close(0); err != nil {
			t.Error(err)
		}
	})
}

func TestBeatBeforeAdd(t *testing.T) {
	p := new(Progress)
	p.Beat("too early") // must not fail
}

func TestBeatDoesNotAllocate(t *testing.T) {
	p := new(Progress)
	p.attach(time.Now())
	p.Beat("scan")
	if n := testing.AllocsPerRun(100, func() { p.Beat("scan") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBeat(b *testing.B) {
	p := new(Progress)
	p.attach(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		p.Beat("scan")
	}
}
