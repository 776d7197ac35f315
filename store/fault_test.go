package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// faultFS is a file system whose operations fail as the injector says.
type faultFS struct{ vfs.FS }

func injectFaults(inner vfs.FS, inj errorfs.Injector) vfs.FS {
	return faultFS{errorfs.Wrap(inner, inj)}
}

func (f faultFS) Unwrap() vfs.FS { return f.FS }

// ReuseForWrite of errorfs returns a file that never fails.
func (f faultFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return f.OpenReadWrite(newname, c)
}

// fullFS is a file system that can run out of space.
type fullFS struct {
	vfs.FS
	avail atomic.Uint64 // bytes, for those who ask; 0 is unknown
	err   atomic.Value  // errno that writes fail with, 0 for none
	syncs bool          // syncs fail too
	only  string        // part of the path of those that fail
	after atomic.Int64  // writes that still succeed
	hits  atomic.Int64
}

func newFullFS(inner vfs.FS) *fullFS {
	f := &fullFS{}
	f.err.Store(syscall.Errno(0))
	f.FS = injectFaults(inner, errorfs.InjectorFunc(f.inject))
	return f
}

func (f *fullFS) Unwrap() vfs.FS { return f.FS }

func (f *fullFS) inject(op errorfs.Op) error {
	errno := f.err.Load().(syscall.Errno)
	if errno == 0 || op.Kind.ReadOrWrite() != errorfs.OpIsWrite || !strings.Contains(op.Path, f.only) {
		return nil
	}
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		if !f.syncs { // space was missing before: see fsync_test.go
			return nil
		}
	}
	if op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpFileClose || f.after.Add(-1) >= 0 {
		return nil
	}
	f.hits.Add(1)
	return errno
}

func (f *fullFS) fail(errno syscall.Errno, after int64) {
	f.after.Store(after)
	f.err.Store(errno)
}

func (f *fullFS) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	if n := f.avail.Load(); n > 0 {
		return vfs.DiskUsage{AvailBytes: n, TotalBytes: 1 << 40}, nil
	}
	return f.FS.GetDiskUsage(path)
}

// serve runs Serve until the function it returns is called.
func serve(t *testing.T, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}
}

func TestFailedAppendLeavesService(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failedAppend(t, errno) })
		})
	}
}

func failedAppend(t *testing.T, errno syscall.Errno) {
	fs := newFullFS(vfs.NewMem())
	s := mustOpen(t, testConfig(t, fs))
	stop := serve(t, s)
	mustAppend(t, s, testBatch(testTime, 1, 2))
	fs.fail(errno, 0)
	b := testBatch(testTime, 3)
	err := s.Append(t.Context(), b)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), errno.Error()) {
		t.Errorf("append: %v", err)
	}
	if b.Events[0].Seq != 0 || s.Head() != 2 {
		t.Errorf("failed event is %d, head %d", b.Events[0].Seq, s.Head())
	}
	time.Sleep(time.Minute) //nolint:forbidigo // virtual time
	st := s.Stats()
	if st.InService || !strings.Contains(st.Reason, errno.Error()) || st.Head != 2 {
		t.Errorf("stats: %+v", st)
	}
	_, err = s.Load(t.Context())
	for name, err := range map[string]error{"load": err, "journal": s.Journal(t.Context(), Transition{}), "append": s.Append(t.Context(), b)} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fs.fail(0, 0)
	returned := time.Now()
	<-s.Available()
	if d := time.Since(returned); d > defaultPace.backoffMax {
		t.Errorf("came back after %v", d)
	}
	mustAppend(t, s, b)
	if b.Events[0].Seq != 3 && b.Events[0].Seq != 4 { // 3 may have reached the disk
		t.Errorf("next event is %d", b.Events[0].Seq)
	}
	readAll(t, s)
	if st := s.Stats(); !st.InService || st.Reopens != 1 || st.Reason != "" {
		t.Errorf("stats: %+v", st)
	}
	stop()
	mustClose(t, s, true)
}

// TestFullDiskAnywhere runs out of space at a random write, of any file, and gets
// it back later: the process must live, and what was acknowledged must be there.
func TestFullDiskAnywhere(t *testing.T) {
	for seed := range uint64(100) {
		fullDisk(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func fullDisk(t *testing.T, seed uint64) {
	p := newPlayer(seed)
	fs := newFullFS(vfs.NewMem())
	if parts := []string{"", ".log", ".sst", "MANIFEST", "marker", "db/0"}; true {
		fs.only = parts[p.r.IntN(len(parts))]
	}
	c := testConfig(t, fs)
	c.memTable = 64 << 10
	// In real time: a goroutine of Pebble that waits for a mutex stops virtual time.
	c.pace = pace{wait: time.Millisecond, backoff: time.Millisecond, backoffMax: 2 * time.Millisecond, lack: 3 * time.Millisecond, closing: time.Minute}
	p.s = mustOpen(t, c)
	stop := serve(t, p.s)
	pain := rand.New(rand.NewPCG(seed, 44))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 3 {
			fs.fail(syscall.ENOSPC, pain.Int64N(100))
			<-time.After(time.Duration(pain.Int64N(int64(20 * time.Millisecond))))
			fs.fail(0, 0)
			<-time.After(time.Duration(pain.Int64N(int64(10 * time.Millisecond))))
		}
	}()
	for running := true; running; {
		select {
		case <-over:
			running = false
		default:
		}
		p.play(t)
	}
	for !p.s.Stats().InService {
		<-p.s.Available()
	}
	p.settle(t)
	stop()
	mustClose(t, p.s, true)
	checkCrash(t, p, fs, int64(len(p.worlds)-1))
}

// play does a few operations, until one is refused.
func (p *player) play(t *testing.T) {
	for range 5 {
		err := p.step(t.Context())
		if errors.Is(err, ErrUnavailable) {
			for !p.s.Stats().InService {
				<-p.s.Available()
			}
			p.settle(t)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// settle finds out whether the last operation, which may have failed, was done.
func (p *player) settle(t *testing.T) {
	got := found(t, p.s)
	for last := len(p.worlds) - 1; last >= max(0, len(p.worlds)-2); last-- {
		if cmp.Equal(got, p.worlds[last]) {
			p.worlds = p.worlds[:last+1]
			return
		}
	}
	t.Fatalf("neither done nor undone (-want +got):\n%s", cmp.Diff(p.now(), got))
}

func TestSpaceIsForeseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newFullFS(vfs.NewMem())
		fs.avail.Store(1 << 30)
		s := mustOpen(t, testConfig(t, fs))
		stop := serve(t, s)
		mustAppend(t, s, testBatch(testTime, 1))
		synctest.Wait() // for the background work of making the store
		syncs := s.Stats().Syncs
		fs.avail.Store(DefaultReserve/2 - 1)
		if err := s.Append(t.Context(), testBatch(testTime, 2)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("append: %v", err)
		}
		if n := len(readAll(t, s)); n != 1 {
			t.Errorf("%d events can be read", n)
		}
		if got := s.Stats().Syncs; got != syncs {
			t.Errorf("%d syncs without space", got-syncs)
		}
		fs.avail.Store(DefaultReserve / 2) // not enough yet
		time.Sleep(time.Minute)            //nolint:forbidigo // virtual time
		if s.Stats().InService {
			t.Error("in service without the reserve")
		}
		fs.avail.Store(DefaultReserve * 9 / 16)
		<-s.Available()
		mustAppend(t, s, testBatch(testTime, 2))
		if s.Head() != 2 {
			t.Errorf("head %d", s.Head())
		}
		stop()
		mustClose(t, s, true)
	})
}

func TestServeSeesShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newFullFS(vfs.NewMem())
		fs.avail.Store(1 << 30)
		s := mustOpen(t, testConfig(t, fs))
		stop := serve(t, s)
		synctest.Wait()
		fs.avail.Store(1 << 10)
		time.Sleep(2 * maintainEvery) //nolint:forbidigo // virtual time
		if st := s.Stats(); st.InService || st.Reason == "" {
			t.Errorf("stats: %+v", st)
		}
		stop()
		mustClose(t, s, false)
	})
}

func TestOpenWithoutSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := mustOpen(t, testConfig(t, mem))
		mustAppend(t, s, testBatch(testTime, 1))
		mustClose(t, s, true)
		for _, foreseen := range []bool{true, false} {
			fs := newFullFS(mem)
			if foreseen {
				fs.avail.Store(1000)
			} else {
				fs.fail(syscall.ENOSPC, 0)
			}
			s := mustOpen(t, testConfig(t, fs))
			if _, err := s.Load(t.Context()); !errors.Is(err, ErrUnavailable) || s.Stats().InService {
				t.Errorf("load: %v", err)
			}
			stop := serve(t, s)
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time
			fs.avail.Store(1 << 30)
			fs.fail(0, 0)
			<-s.Available()
			if table := mustLoad(t, s); len(table.Processes) != 1 || !table.Clean {
				t.Errorf("table: %+v", table)
			}
			stop()
			mustClose(t, s, true)
		}
	})
}

func TestCloseWithoutSpace(t *testing.T) {
	fs := newFullFS(vfs.NewMem())
	c := testConfig(t, fs)
	c.pace = defaultPace
	c.pace.wait, c.pace.closing = time.Millisecond, 100*time.Millisecond
	s := mustOpen(t, c)
	mustAppend(t, s, testBatch(testTime, 1))
	fs.fail(syscall.ENOSPC, 0)
	if err := s.Append(t.Context(), testBatch(testTime, 2)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	_ = s.Close(true) // may have to wait for space, and then gives up
	fs.fail(0, 0)
	c.LockWait = time.Minute
	s = mustOpen(t, c)
	defer mustClose(t, s, true)
	if table := mustLoad(t, s); table.Clean || len(readAll(t, s)) == 0 {
		t.Errorf("table: %+v", table)
	}
}

// TestRoomForASmallCommitOnly: the store stays out of service until there is room
// for what was refused, so that it does not go in and out for ever.
func TestRoomForASmallCommitOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newFullFS(vfs.NewMem())
		fs.avail.Store(DefaultReserve*9/16 + 256<<10)
		s := mustOpen(t, testConfig(t, fs))
		stop := serve(t, s)
		defer mustClose(t, s, true)
		defer stop()
		big := testBatch(testTime, 1)
		big.Put[0].Args = []string{strings.Repeat("x", 600<<10)}
		small := testBatch(testTime, 2)
		for range 10 {
			if err := s.Append(t.Context(), big); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("append of 600 KiB: %v", err)
			}
			<-time.After(time.Minute)
		}
		if st := s.Stats(); st.InService || st.Reopens > 0 || !st.Full {
			t.Errorf("came back without room for what was refused: %+v", st)
		}
		fs.avail.Store(DefaultReserve*9/16 + 1<<20)
		<-s.Available()
		for _, b := range []*event.Batch{big, small} {
			if err := s.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		fs.avail.Store(DefaultReserve*9/16 + 256<<10)
		if err := s.Append(t.Context(), small); err != nil {
			t.Errorf("a small commit: %v", err)
		}
	})
}
