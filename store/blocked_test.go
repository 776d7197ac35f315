package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// noLogsFS is a file system that can be told to make no more log files, as one whose
// inodes are used up does.
type noLogsFS struct {
	vfs.FS
	full atomic.Bool
}

func (l *noLogsFS) refuse(name string) error {
	if l.full.Load() && strings.HasSuffix(name, ".log") {
		return &fs.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	return nil
}

func (l *noLogsFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := l.refuse(name); err != nil {
		return nil, err
	}
	return l.FS.Create(name, c)
}

func (l *noLogsFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := l.refuse(newname); err != nil {
		return nil, err
	}
	return l.FS.ReuseForWrite(oldname, newname, c)
}

// TestBlockedRotation: while one append waits for space where it must, everybody
// else is answered, and Close ends.
func TestBlockedRotation(t *testing.T) {
	noLogs := &noLogsFS{FS: vfs.NewMem()}
	c := testConfig(t, noLogs)
	c.pace = defaultPace
	c.pace.wait, c.pace.closing = time.Millisecond, 50*time.Millisecond
	c.memTable = 64 << 10
	s := mustOpen(t, c)
	mustAppend(t, s, testBatch(testTime, 1))
	changed, err := s.watch()
	if err != nil {
		t.Fatal(err)
	}
	noLogs.full.Store(true)
	blocked := make(chan error)
	go func() {
		var err error
		for n := uint64(2); err == nil; n++ {
			b := testBatch(testTime, n)
			b.Events[0].Process.Args = []string{strings.Repeat("x", 10<<10)}
			err = s.Append(context.Background(), b)
		}
		blocked <- err
	}()
	for {
		<-changed
		if changed, err = s.watch(); err != nil {
			break
		}
	}
	if err := s.Append(context.Background(), testBatch(testTime, 1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append beside a blocked one: %v", err)
	}
	if _, err := s.Load(context.Background()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("load beside a blocked append: %v", err)
	}
	if err := s.Close(true); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "blocked") {
		t.Errorf("close: %v", err)
	}
	noLogs.full.Store(false)
	if err := <-blocked; !errors.Is(err, ErrClosed) {
		t.Errorf("the blocked append, when there was space: %v", err)
	}
	if err := s.Close(false); err != nil {
		t.Errorf("close, when there was space: %v", err)
	}
}

// TestReaderKeepsStoreOut: a reader that does not let go keeps the store out of
// service, and that is all.
func TestReaderKeepsStoreOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := newFullFS(vfs.NewMem())
		s := mustOpen(t, testConfig(t, full))
		stop := serve(t, s)
		mustAppend(t, s, testBatch(testTime, 1))
		letGo, read := make(chan struct{}), make(chan error)
		go func() {
			read <- s.Query(context.Background(), Query{}, func(*event.Event) error {
				<-letGo
				return nil
			})
		}()
		synctest.Wait()
		full.fail(syscall.ENOSPC, 0)
		if err := s.Append(t.Context(), testBatch(testTime, 2)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("append: %v", err)
		}
		full.fail(0, 0)
		time.Sleep(10 * time.Minute) //nolint:forbidigo // virtual time
		if st := s.Stats(); st.InService || !strings.Contains(st.Reason, "reader") {
			t.Errorf("stats: %+v", st)
		}
		close(letGo)
		if err := <-read; err != nil {
			t.Logf("query: %v", err)
		}
		<-s.Available()
		mustAppend(t, s, testBatch(testTime, 2))
		stop()
		mustClose(t, s, true)
	})
}

func TestCloseSaysThatNoMarkWasWritten(t *testing.T) {
	full := newFullFS(vfs.NewMem())
	s := mustOpen(t, testConfig(t, full))
	s.leave(leaveSpace, "no space, says the test")
	if err := s.Close(true); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "says the test") {
		t.Errorf("close: %v", err)
	}
	s = mustOpen(t, testConfig(t, full))
	if table := mustLoad(t, s); table.Clean {
		t.Errorf("table: %+v", table)
	}
	s.leave(leaveSpace, "no space, says the test")
	mustClose(t, s, false) // nobody asked for a mark
}

func TestUnreadableRowIsDamage(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem()))
	n, err := s.serving()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.db.Set(appendProcessKey(nil, testID(77)), []byte{0xff, 0xff, 0xff}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("load: %v", err)
	}
	stop := serve(t, s)
	<-s.Available()
	if st := s.Stats(); st.QuarantinedTo == "" {
		t.Errorf("stats: %+v", st)
	}
	stop()
	mustClose(t, s, true)
}
