package collect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"daemoneye.dev/procmond/fsm"
)

// messages are the five, each as a call that returns its error.
var messages = map[string]func(context.Context, Handle) error{
	"HealthCheck": func(ctx context.Context, h Handle) error { _, err := h.HealthCheck(ctx); return err },
	"UpdateConfig": func(ctx context.Context, h Handle) error {
		_, err := h.UpdateConfig(ctx, Update{Values: map[string]string{KeyInterval: "60"}})
		return err
	},
	"GracefulShutdown": func(ctx context.Context, h Handle) error {
		_, err := h.GracefulShutdown(ctx, Shutdown{Reason: "test"})
		return err
	},
	"BeginMonitoring": func(ctx context.Context, h Handle) error {
		_, err := h.BeginMonitoring(ctx, Begin{Cause: "test"})
		return err
	},
	"AdjustInterval": func(ctx context.Context, h Handle) error {
		d := time.Minute
		_, err := h.AdjustInterval(ctx, Adjust{Value: &d})
		return err
	},
}

func TestEveryMessageInEveryState(t *testing.T) {
	refused := map[fsm.CollectorState]map[string]error{
		fsm.CollectorWaitingForAgent: {},
		fsm.CollectorRunning:         {},
		fsm.CollectorShuttingDown:    {"UpdateConfig": ErrShuttingDown, "BeginMonitoring": ErrShuttingDown, "AdjustInterval": ErrShuttingDown},
		fsm.CollectorStopped: {
			"HealthCheck": ErrStopped, "UpdateConfig": ErrStopped, "GracefulShutdown": ErrStopped,
			"BeginMonitoring": ErrStopped, "AdjustInterval": ErrStopped,
		},
	}
	for state, want := range refused {
		for name, send := range messages {
			t.Run(fmt.Sprintf("%s in %s", name, state), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.serve(w.collector())
					release := w.bring(state)
					answered := make(chan error, 1)
					go func() { answered <- send(t.Context(), w.handle) }()
					synctest.Wait()
					release()
					if err := <-answered; !errors.Is(err, want[name]) {
						t.Errorf("answer %v, want %v", err, want[name])
					}
					_ = w.stop()
				})
			})
		}
	}
}

// bring brings a served collector into a state. release lets go of what keeps it
// there.
func (w *world) bring(state fsm.CollectorState) (release func()) {
	release = func() {}
	switch state {
	case fsm.CollectorRunning:
		w.begin()
	case fsm.CollectorShuttingDown:
		hang := make(chan struct{})
		w.host.with(func() { w.host.hang = hang })
		w.begin()
		go func() { _, _ = w.handle.GracefulShutdown(w.t.Context(), Shutdown{Reason: "test"}) }()
		release = func() { close(hang) }
	case fsm.CollectorStopped:
		if _, err := w.handle.GracefulShutdown(w.t.Context(), Shutdown{Reason: "test"}); err != nil {
			w.t.Fatal(err)
		}
	}
	synctest.Wait()
	if got := w.cfg.Machine.State(); got != state {
		w.t.Fatalf("state %s, want %s", got, state)
	}
	return release
}

func TestFullMailboxAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		answers := make(chan error, mailboxCapacity)
		for range mailboxCapacity {
			go func() { answers <- messages["AdjustInterval"](ctx, w.handle) }()
		}
		synctest.Wait()
		for name, send := range messages {
			began := time.Now()
			if err := send(ctx, w.handle); !errors.Is(err, ErrMailboxFull) || time.Since(began) > 0 {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
		}
		cancel()
		for range mailboxCapacity {
			if err := <-answers; !errors.Is(err, context.Canceled) {
				t.Errorf("waiting request: %v", err)
			}
		}
		w.serve(w.collector())
		if got := w.handle.Status().Interval; got.Adjusted != 0 {
			t.Errorf("requests that nobody waited for were carried out: %+v", got)
		}
		_ = w.stop()
	})
}

func TestRequestsWaitWhileTheActorIsDown(t *testing.T) {
	for name, send := range messages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				answered := make(chan error, 1)
				go func() { answered <- send(t.Context(), w.handle) }()
				synctest.Wait()
				w.serve(w.collector())
				if err := <-answered; err != nil {
					t.Errorf("answer %v", err)
				}
				_ = w.stop()
			})
		})
	}
}

func TestCloseAnswersThoseWhoWait(t *testing.T) {
	for name, send := range messages {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			answered := make(chan error, 1)
			go func() { answered <- send(t.Context(), w.handle) }()
			synctest.Wait()
			w.cfg.Mailbox.Close()
			w.cfg.Mailbox.Close()
			if err := <-answered; !errors.Is(err, ErrStopped) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestRequestInHandAtACrash(t *testing.T) {
	for _, name := range []string{"BeginMonitoring", "GracefulShutdown"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				crash := true
				w.cfg.OnTransition = func(fsm.Transition) {
					if crash {
						crash = false
						panic("no journal")
					}
				}
				c := w.collector()
				w.serve(c)
				if err := messages[name](t.Context(), w.handle); !errors.Is(err, ErrRestarted) {
					t.Errorf("answer %v", err)
				}
				if err := <-w.ended; !strings.Contains(err.Error(), "no journal") {
					t.Errorf("the panic was swallowed: %v", err)
				}
				w.cancel()
				w.serve(c)
				want := fsm.CollectorRunning
				if name == "GracefulShutdown" {
					want = fsm.CollectorStopped // the new actor only finishes
				}
				if got := w.cfg.Machine.State(); got != want {
					t.Errorf("state %s, want %s", got, want)
				}
				_ = w.stop()
			})
		})
	}
}

func TestHotKeyThatPanicsCrashesTheUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Hot = map[string]HotKey{"log_level": func(string) (func(), error) { panic("bad hot key") }}
		w.serve(w.collector())
		_, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{"log_level": "info"}})
		if !errors.Is(err, ErrRestarted) {
			t.Errorf("answer %v", err)
		}
		if err := <-w.ended; err == nil || !strings.Contains(err.Error(), "bad hot key") {
			t.Errorf("Serve ended with %v", err)
		}
		w.cancel()
	})
}

func TestHealthOfABlockedActor(t *testing.T) {
	bubble(t, func(w *world) { w.host.spawn(7, 5) }, func(t *testing.T, w *world) {
		hold := make(chan struct{})
		w.begin()
		w.store.with(func() { w.store.hold = hold })
		pass(DefaultInterval)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.handle.HealthCheck(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("caller's deadline: %v", err)
		}
		began := time.Now()
		health, err := w.handle.HealthCheck(t.Context())
		if err != nil || health.Level != LevelUnhealthy || health.Reasons[0] != "Collector busy 1 s in append." {
			t.Errorf("health %v %v, %v", health.Level, health.Reasons, err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
		pass(3 * time.Second)
		began = time.Now()
		health, err = w.handle.HealthCheck(t.Context())
		if err != nil || health.Reasons[0] != "Collector busy 4 s in append." || time.Since(began) > 0 {
			t.Errorf("known to be blocked: health %v, %v, after %v", health.Reasons, err, time.Since(began))
		}
		if w.beats.age() < 4*time.Second || w.beats.last != activityAppend {
			t.Errorf("beat %v ago in %s", w.beats.age(), w.beats.last)
		}
		w.store.with(func() { w.store.hold = nil })
		close(hold)
		synctest.Wait()
		if health, err := w.handle.HealthCheck(t.Context()); err != nil || health.Level != LevelHealthy {
			t.Errorf("health %v, %v", health, err)
		}
	})
}

func TestIdleActorBeats(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		for range 100 {
			pass(time.Second)
			if w.beats.age() > beatEvery {
				t.Fatalf("no beat for %v", w.beats.age())
			}
		}
	})
}
