package tree

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
)

// A log that stands still loses notices, never the supervisors' time; what was
// lost is counted and said.
func TestReporterDrops(t *testing.T) {
	entry, hook := recorded()
	r := newReporter(entry)
	for range cap(r.notices) + 6 {
		r.post(notice{log: entry, level: logrus.InfoLevel, message: "x"})
	}
	if n := r.dropped.Load(); n != 6 {
		t.Errorf("%d dropped, want 6", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Serve(ctx); err != nil { // what is left is logged before the end
		t.Error(err)
	}
	want := map[string]int{"info: x": cap(r.notices), "warning: log lines about services were dropped": 1}
	if diff := cmp.Diff(want, messages(hook)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// blocked is a log output that stands still until it is closed.
type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}

// The status must be there when the log is not: a full pipe on stderr must not
// hide the state of the daemon.
func TestStatusWhileLogBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(blocked)
		logger := logrus.New()
		logger.SetOutput(out)
		tr := newTree(t, Config{Log: logrus.NewEntry(logger), Deadline: time.Second})
		tr.Add("g", failing("bad", 1, errBoom), Options{})
		calm := wellBehaved("calm")
		tr.Add("g", calm, Options{})
		tr.Start(t.Context())
		pass(2 * time.Second)
		if s := status(t, tr, "g/bad"); s.State != StateRestarting || s.LastError != "boom" || s.Failures != 1 {
			t.Errorf("%+v", s)
		}
		wantHung(t, tr, "g/calm")
		if err := tr.Stop("g/calm", time.Second); err != nil {
			t.Error(err)
		}
		close(out)
		synctest.Wait()
		wantState(t, tr, "g/bad", StateRunning)
		if err := tr.Close(0); err != nil {
			t.Error(err)
		}
	})
}

// A service that is out of Serve but stuck in its log is told apart from one
// that ended, and ends when the log moves.
func TestStopWhileLogBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(blocked)
		logger := logrus.New()
		tr := newTree(t, Config{Log: logrus.NewEntry(logger)})
		fail := make(chan struct{})
		tr.Add("g", service("s", func(context.Context, int) error {
			<-fail
			return errBoom
		}), Options{})
		tr.Start(t.Context())
		synctest.Wait()
		logger.SetOutput(out)
		close(fail)
		synctest.Wait()
		stopped := make(chan error)
		go func() { stopped <- tr.Stop("g/s", time.Second) }()
		pass(time.Millisecond)
		wantState(t, tr, "g/s", StateStopped)
		began := time.Now()
		if err := <-stopped; !errors.Is(err, ErrUnstopped) || time.Since(began) > time.Second {
			t.Errorf("Stop = %v after %s", err, time.Since(began))
		}
		wantState(t, tr, "g/s", StateHung)
		close(out)
		synctest.Wait()
		wantState(t, tr, "g/s", StateStopped)
		if err := tr.Close(0); err != nil {
			t.Error(err)
		}
		if s := status(t, tr, "g/s"); s.Starts != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// Without a log nothing is written and nothing fails.
func TestNoLog(t *testing.T) {
	tr := newTree(t, Config{})
	if tr.config.Log == nil || tr.config.Log.Logger.Out != io.Discard {
		t.Errorf("log %+v", tr.config.Log)
	}
	if tr.Dropped() != 0 {
		t.Error("dropped before the start")
	}
}
