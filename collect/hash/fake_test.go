package hash

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

// fakeHost has files by the paths of their processes.
type fakeHost struct {
	mu    sync.Mutex // guards everything below
	files map[string]*fakeFile
	looks int
	opens []int32 // through whom
}

// fakeFile is an executable of zeros.
type fakeFile struct {
	file
	unsteady bool
	lookErr  error
	openErr  map[int32]error   // by PID
	hangLook chan struct{}     // a look waits for it
	hangRead chan struct{}     // a read waits for it
	onRead   func(f *fakeFile) // before each; needs no lock
	panics   bool              // the next open does
}

func newFakeHost() *fakeHost { return &fakeHost{files: make(map[string]*fakeFile)} }

// put adds a file that has not changed for an hour.
func (h *fakeHost) put(path string, size int64) *fakeFile {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctime := time.Now().Add(-time.Hour).UnixNano()
	f := &fakeFile{file: file{
		key:     key{dev: 1, ino: uint64(len(h.files) + 1), size: size, mtime: ctime, ctime: ctime},
		regular: true, allocated: size,
	}}
	h.files[path] = f
	return f
}

func (h *fakeHost) look(t *collect.HashTarget) (file, error) {
	h.mu.Lock()
	h.looks++
	f := h.files[t.Exe]
	h.mu.Unlock()
	if f == nil {
		return file{}, &skip{reason: reasonGone}
	}
	if f.hangLook != nil {
		<-f.hangLook
	}
	return f.file, f.lookErr
}

func (h *fakeHost) open(t *collect.HashTarget, _ key) (content, error) {
	h.mu.Lock()
	h.opens = append(h.opens, t.PID)
	f := h.files[t.Exe]
	h.mu.Unlock()
	if f.panics {
		f.panics = false
		panic("host is broken")
	}
	if err := f.openErr[t.PID]; err != nil {
		return nil, err
	}
	return &fakeContent{fakeFile: f}, nil
}

func (h *fakeHost) openedBy() []int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.opens)
}

type fakeContent struct {
	*fakeFile
	at int64
}

func (c *fakeContent) Read(p []byte) (int, error) {
	if c.onRead != nil {
		c.onRead(c.fakeFile)
	}
	if c.hangRead != nil {
		<-c.hangRead
	}
	if c.at >= c.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.size-c.at)
	clear(p[:n])
	c.at += n
	return int(n), nil
}

func (c *fakeContent) Close() error        { return nil }
func (c *fakeContent) stat() (file, error) { return c.file, nil }
func (c *fakeContent) steady() bool        { return !c.unsteady }

// rig is a hasher on a fake host, in a bubble.
type rig struct {
	*Hasher
	t      *testing.T
	host   *fakeHost
	ended  chan error
	cancel context.CancelFunc
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, host: newFakeHost()}
	cfg := Config{host: r.host, Log: discard()}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Hasher, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

func discard() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

var errPanicked = errors.New("service panicked")

// start serves until stop.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() {
		defer func() {
			if recover() != nil {
				r.ended <- errPanicked
			}
		}()
		r.ended <- r.Serve(ctx)
	}()
	synctest.Wait()
}

func (r *rig) stop() error {
	r.cancel()
	return <-r.ended
}

func target(pid int32, exe string) collect.HashTarget {
	return collect.HashTarget{PID: pid, StartTicks: uint64(pid) * 100, Exe: exe}
}

// ask looks at one process.
func (r *rig) ask(pid int32, exe string) event.Hash {
	targets := []collect.HashTarget{target(pid, exe)}
	r.Look(context.Background(), targets)
	return targets[0].Hash
}

// askTogether looks at processes while another file is read, so that all of them
// wait for theirs before it is begun.
func (r *rig) askTogether(targets []collect.HashTarget) {
	busy := make(chan struct{})
	r.host.put("/busy", 10).hangRead = busy
	r.ask(1000, "/busy")
	r.Look(context.Background(), targets)
	close(busy)
}

// zeros is the digest of so many bytes.
func zeros(n int64) digest { return sha256.Sum256(make([]byte, n)) }

func (r *rig) wantStatus(got event.Hash, want event.HashStatus, reason string) {
	r.t.Helper()
	if got.Status != want || got.Reason != reason {
		r.t.Errorf("hash is %v %q, want %v %q", got.Status, got.Reason, want, reason)
	}
}

func (r *rig) wantDone(got event.Hash, size int64) {
	r.t.Helper()
	want := zeros(size)
	if got.Status != event.HashDone || got.Algorithm != "sha256" || !slices.Equal(got.Value, want[:]) {
		r.t.Errorf("hash is %+v, want the digest of %d zeros", got, size)
	}
}

// taken are the results so far, by PID.
func (r *rig) taken() map[int32]event.Hash {
	found := make(map[int32]event.Hash)
	for _, t := range r.Take() {
		if _, twice := found[t.PID]; twice {
			r.t.Errorf("two results for process %d", t.PID)
		}
		found[t.PID] = t.Hash
	}
	return found
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
