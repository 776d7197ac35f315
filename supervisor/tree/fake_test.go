package tree

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
)

// fake is a service whose n-th call of Serve (from 1) is f(ctx, n).
type fake struct {
	name string
	f    func(ctx context.Context, n int) error
	n    atomic.Int64 // calls so far
	in   atomic.Int64 // calls in progress
	both atomic.Bool  // two calls were in progress at once
}

func (s *fake) String() string { return s.name }

func (s *fake) Serve(ctx context.Context) error {
	if s.in.Add(1) > 1 {
		s.both.Store(true)
	}
	defer s.in.Add(-1)
	return s.f(ctx, int(s.n.Add(1)))
}

func service(name string, f func(ctx context.Context, n int) error) *fake {
	return &fake{name: name, f: f}
}

func untilStopped(ctx context.Context, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

// wellBehaved runs until it is stopped.
func wellBehaved(name string) *fake { return service(name, untilStopped) }

// failing returns err from its first calls, and then runs until it is stopped.
func failing(name string, calls int, err error) *fake {
	return service(name, func(ctx context.Context, n int) error {
		if n <= calls {
			return err
		}
		return untilStopped(ctx, n)
	})
}

func newTree(t interface{ Fatal(...any) }, c Config) *Tree {
	tr, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// bubble runs f with the fake clock of synctest and a started tree of
// services in the group "group", which is closed afterwards.
func bubble(t *testing.T, c Config, f func(t *testing.T, tr *Tree), services ...*fake) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := newTree(t, c)
		for _, s := range services {
			tr.Add("group", s, Options{})
		}
		tr.Start(t.Context())
		defer func() {
			if err := tr.Close(0); err != nil {
				t.Errorf("Close: %v", err)
			}
		}()
		synctest.Wait()
		f(t, tr)
	})
}

// pass lets d of the bubble's time go by, and everything settle.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// status is that of one service.
func status(t testing.TB, tr *Tree, path string) Status {
	t.Helper()
	for _, s := range tr.Services() {
		if s.Path == path {
			return s
		}
	}
	t.Fatalf("no service %s in %+v", path, tr.Services())
	return Status{}
}

func wantState(t testing.TB, tr *Tree, path string, want State) {
	t.Helper()
	if s := status(t, tr, path); s.State != want {
		t.Errorf("%s is %s, want %s", path, s.State, want)
	}
}

// recorded is a log that keeps its entries.
func recorded() (*logrus.Entry, *logtest.Hook) {
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	return logrus.NewEntry(logger), hook
}

// messages counts the entries by level and message.
func messages(hook *logtest.Hook) map[string]int {
	count := map[string]int{}
	for _, e := range hook.AllEntries() {
		count[e.Level.String()+": "+e.Message]++
	}
	return count
}

// journal is a list that services append to.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}
