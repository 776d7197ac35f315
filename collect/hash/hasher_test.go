package hash

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

func TestDigestComesLaterAndIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		r.host.put("/bin/a", 1000)
		r.wantStatus(r.ask(1, "/bin/a"), event.HashPending, "")
		<-r.Ready()
		r.wantDone(r.taken()[1], 1000)
		r.wantDone(r.ask(2, "/bin/a"), 1000) // at once
		if s := r.Stats(); s.Hashed != 1 || s.Hits != 1 || s.Misses != 1 || s.Bytes != 1000 || s.Cached != 1 || s.Waiting != 0 {
			t.Errorf("stats are %+v", s)
		}
		_ = r.stop()
	})
}

// TestOneComputationPerFile asks for one file by many processes, before and while
// it is read.
func TestOneComputationPerFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		f := r.host.put("/bin/a", 1000)
		f.hangRead = make(chan struct{})
		for pid := range int32(20) {
			r.wantStatus(r.ask(pid+1, "/bin/a"), event.HashPending, "")
			r.wantStatus(r.ask(pid+1, "/bin/a"), event.HashPending, "") // asking again adds nothing
		}
		close(f.hangRead)
		synctest.Wait()
		found := r.taken()
		for pid := range int32(20) {
			r.wantDone(found[pid+1], 1000)
		}
		if s := r.Stats(); s.Hashed != 1 || s.Misses != 20 {
			t.Errorf("stats are %+v, want one file read for 20 processes", s)
		}
		_ = r.stop()
	})
}

func TestWhatIsNotKept(t *testing.T) {
	tests := map[string]func(*fakeFile){
		"a file whose pages change without a trace": func(f *fakeFile) { f.unsteady = true },
		"a file that changed a moment ago":          func(f *fakeFile) { f.ctime = time.Now().Add(-time.Second).UnixNano() },
		"a file from the future":                    func(f *fakeFile) { f.ctime = time.Now().Add(time.Hour).UnixNano() },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.start()
				change(r.host.put("/bin/a", 10))
				for pid := range int32(3) {
					r.wantStatus(r.ask(pid+1, "/bin/a"), event.HashPending, "")
					synctest.Wait()
					r.wantDone(r.taken()[pid+1], 10)
				}
				if s := r.Stats(); s.Cached != 0 || s.Hashed != 3 {
					t.Errorf("stats are %+v, want nothing kept", s)
				}
				_ = r.stop()
			})
		})
	}
}

func TestChangedFileIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		f := r.host.put("/bin/a", 10)
		r.ask(1, "/bin/a")
		synctest.Wait()
		changes := []func(){func() { f.ctime++ }, func() { f.mtime++ }, func() { f.size++ }, func() { f.ino = 77 }, func() { f.dev = 5 }}
		for i, change := range changes {
			change()
			r.wantStatus(r.ask(int32(i+2), "/bin/a"), event.HashPending, "")
			synctest.Wait()
		}
		_ = r.stop()
	})
}

func TestStatusAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxSize = 1 << 20 })
		r.start()
		r.host.put("/big", 1<<20+1)
		r.host.put("/sparse", 200e9).allocated = 4096
		r.host.put("/fifo", 0).regular = false
		r.host.put("/secret", 1).lookErr = unix.EACCES
		r.host.put("/broken", 1).lookErr = unix.EIO
		for exe, reason := range map[string]string{
			"/big":    "too big: 1048577 bytes",
			"/sparse": "too big: 200000000000 bytes, sparse: 4096 on disk",
			"/fifo":   "not a regular file",
			"/secret": "permission denied",
			"/broken": "read failed: input/output error",
			"/none":   "process is gone",
		} {
			r.wantStatus(r.ask(1, exe), event.HashSkipped, reason)
		}
		if s := r.Stats(); s.Skipped != 6 || len(s.Skips) != 5 || s.Hashed != 0 || len(r.host.openedBy()) != 0 {
			t.Errorf("stats are %+v, want 6 skipped for 5 reasons and nothing opened", s)
		}
		_ = r.stop()
	})
}

func TestFileThatChangesWhileItIsRead(t *testing.T) {
	tests := map[string]func(*fakeFile){
		"grows":     func(f *fakeFile) { f.size++ },
		"grows on":  func(f *fakeFile) { f.size += 1 << 30 }, // no more is read than it had
		"shrinks":   func(f *fakeFile) { f.size = 5 },
		"rewritten": func(f *fakeFile) { f.mtime++ },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.start()
				r.host.put("/bin/a", 3*chunk).onRead = change
				r.ask(1, "/bin/a")
				pass(time.Second)
				r.wantStatus(r.taken()[1], event.HashSkipped, "changed while it was read")
				if s := r.Stats(); s.Cached != 0 || s.Bytes > 4*chunk {
					t.Errorf("stats are %+v", s)
				}
				_ = r.stop()
			})
		})
	}
}

// TestBudget reads more than the budget of a second at a time.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		r := newRig(t, func(c *Config) { c.Rate, c.MaxSize = rate, 16<<20 })
		r.start()
		for i := range 8 {
			exe := fmt.Sprintf("/bin/%d", i)
			r.host.put(exe, 2*rate)
			r.ask(int32(i+1), exe)
		}
		began := time.Now()
		for last := uint64(0); r.Stats().Hashed < 8; {
			pass(time.Second)
			now := r.Stats().Bytes
			if now-last > 2*rate+rate { // files are counted when they are done
				t.Errorf("%d bytes in a second", now-last)
			}
			last = now
		}
		if took := time.Since(began); took < 15*time.Second || took > 18*time.Second {
			t.Errorf("16 MiB at 1 MiB/s took %v", took)
		}
		_ = r.stop()
	})
}

func TestSlowFileEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Deadline = 30 * time.Second })
		r.start()
		f := r.host.put("/slow", 100<<20)
		f.onRead = func(*fakeFile) { <-time.After(700 * time.Millisecond) } // some 180 KiB/s
		r.host.put("/bin/b", 10)
		r.ask(1, "/slow")
		r.ask(2, "/bin/b")
		pass(29 * time.Second)
		if found := r.taken(); len(found) > 0 {
			t.Errorf("too early: %v", found)
		}
		pass(2 * time.Second)
		found := r.taken()
		r.wantStatus(found[1], event.HashSkipped, "not read within deadline")
		r.wantDone(found[2], 10)
		if s := r.Stats(); s.Stuck != 0 {
			t.Errorf("stats are %+v, nothing is stuck", s)
		}
		_ = r.stop()
	})
}

// TestHangingRead has a file system that does not answer: what hangs gets a
// status, the others go on, and nobody waits.
func TestHangingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Deadline = 30 * time.Second })
		r.start()
		hang := make(chan struct{})
		r.host.put("/net/a", 10).hangRead = hang
		r.host.put("/bin/b", 10)
		r.ask(1, "/net/a")
		r.ask(2, "/bin/b")
		pass(32 * time.Second)
		found := r.taken()
		r.wantStatus(found[1], event.HashSkipped, "file system does not answer")
		r.wantDone(found[2], 10)
		if s := r.Stats(); s.Stuck != 1 || s.Suspended {
			t.Errorf("stats are %+v, want one stuck call", s)
		}
		close(hang)
		synctest.Wait()
		if s := r.Stats(); s.Stuck != 0 {
			t.Errorf("stats are %+v, want none stuck", s)
		}
		_ = r.stop()
	})
}

func TestHangingLookDelaysOnlyALittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		hang := make(chan struct{})
		r.host.put("/net/a", 10).hangLook = hang
		r.host.put("/bin/b", 10)
		began := time.Now()
		targets := []collect.HashTarget{target(1, "/net/a"), target(2, "/bin/b")}
		r.Look(t.Context(), targets)
		if took := time.Since(began); took > time.Second {
			t.Errorf("look took %v", took)
		}
		for i := range targets {
			r.wantStatus(targets[i].Hash, event.HashPending, "")
		}
		pass(lookLimit + 2*hangGrace)
		r.wantStatus(r.taken()[1], event.HashSkipped, "file system does not answer")
		// The other one is pending still, and asked for again.
		r.wantStatus(r.ask(2, "/bin/b"), event.HashPending, "")
		synctest.Wait()
		r.wantDone(r.taken()[2], 10)
		close(hang)
		_ = r.stop()
	})
}

// TestSuspends leaves so many calls behind that no other file is touched until
// one returns.
func TestSuspends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		hang := make(chan struct{})
		for i := range mostStuck {
			exe := fmt.Sprintf("/net/%d", i)
			r.host.put(exe, 10).hangLook = hang
			r.ask(int32(i+1), exe)
			pass(lookLimit + 2*hangGrace)
		}
		if s := r.Stats(); s.Stuck != mostStuck || !s.Suspended {
			t.Errorf("stats are %+v, want it suspended", s)
		}
		r.host.put("/bin/b", 10)
		before, began := r.host.looks, time.Now()
		r.wantStatus(r.ask(9, "/bin/b"), event.HashPending, "")
		if r.host.looks != before || time.Since(began) > 0 {
			t.Error("a file was touched, or somebody waited")
		}
		close(hang)
		synctest.Wait()
		r.wantStatus(r.ask(9, "/bin/b"), event.HashPending, "")
		synctest.Wait()
		r.wantDone(r.taken()[9], 10)
		_ = r.stop()
	})
}

func TestNobodyServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.host.put("/bin/a", 10)
		began := time.Now()
		r.wantStatus(r.ask(1, "/bin/a"), event.HashPending, "")
		if took := time.Since(began); took > lookPatience {
			t.Errorf("look waited %v for nobody", took)
		}
	})
}

// TestRestart ends the service in the middle of a file: nothing is forgotten.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		r.host.put("/bin/a", 64<<20) // two seconds
		r.host.put("/bin/b", 10)
		r.ask(1, "/bin/a")
		r.ask(2, "/bin/b")
		pass(time.Second)
		if err := r.stop(); err == nil || len(r.taken()) > 0 {
			t.Errorf("stopped with %v", err)
		}
		r.start()
		pass(3 * time.Second)
		found := r.taken()
		r.wantDone(found[1], 64<<20)
		r.wantDone(found[2], 10)
		_ = r.stop()
	})
}

// TestPanic makes the service restart, and gives up the file that did it.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		r.host.put("/bin/a", 10).panics = true
		r.host.put("/bin/b", 10)
		r.ask(1, "/bin/a")
		if err := <-r.ended; err == nil || err.Error() != errPanicked.Error() {
			t.Fatalf("service ended with %v", err)
		}
		r.start()
		r.ask(2, "/bin/b")
		synctest.Wait()
		found := r.taken()
		r.wantStatus(found[1], event.HashSkipped, "internal error")
		r.wantDone(found[2], 10)
		_ = r.stop()
	})
}

// TestBehindAnotherDoor has processes of one file of which the first can not be
// reached any more.
func TestBehindAnotherDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		f := r.host.put("/bin/a", 10)
		f.openErr = map[int32]error{1: &skip{reason: reasonGone}, 2: unix.ESRCH}
		r.start()
		targets := []collect.HashTarget{target(1, "/bin/a"), target(2, "/bin/a"), target(3, "/bin/a")}
		r.askTogether(targets)
		synctest.Wait()
		found := r.taken()
		for pid := range int32(3) {
			r.wantDone(found[pid+1], 10) // all were seen to run that very file
		}
		if !slices.Equal(r.host.openedBy(), []int32{1000, 1, 2, 3}) {
			t.Errorf("opened through %v", r.host.openedBy())
		}
		_ = r.stop()
	})
}

func TestEveryDoorIsShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		f := r.host.put("/bin/a", 10)
		f.openErr = make(map[int32]error)
		var targets []collect.HashTarget
		for pid := range int32(mostDoors + 3) {
			f.openErr[pid+1] = &skip{reason: reasonGone}
			targets = append(targets, target(pid+1, "/bin/a"))
		}
		delete(f.openErr, mostDoors+3)
		r.start()
		r.askTogether(targets)
		synctest.Wait()
		found := r.taken()
		r.wantStatus(found[1], event.HashSkipped, "process is gone")
		r.wantStatus(found[mostDoors], event.HashSkipped, "process is gone")
		r.wantDone(found[mostDoors+1], 10)
		r.wantDone(found[mostDoors+3], 10)
		_ = r.stop()
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.entries, c.queue, c.results = 3, 4, 2 })
		r.start()
		hang := make(chan struct{})
		for i := range 6 {
			exe := fmt.Sprintf("/bin/%d", i)
			r.host.put(exe, 10).hangRead = hang
			r.wantStatus(r.ask(int32(i+1), exe), event.HashPending, "")
		}
		if s := r.Stats(); s.Waiting != 4 || s.Deferred != 2 {
			t.Errorf("stats are %+v, want 4 waiting and 2 without room", s)
		}
		close(hang)
		synctest.Wait()
		if found := r.taken(); len(found) != 2 {
			t.Errorf("%d results, want 2", len(found))
		}
		if s := r.Stats(); s.Deferred != 4 || s.Cached != 3 {
			t.Errorf("stats are %+v, want 4 without room and 3 kept", s)
		}
		r.wantDone(r.ask(3, "/bin/2"), 10) // found no room, but is known
		r.wantStatus(r.ask(1, "/bin/0"), event.HashPending, "")
		synctest.Wait()
		r.wantDone(r.ask(4, "/bin/2"), 10) // used last, so it was kept
		_ = r.stop()
	})
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{MaxSize: -1, Rate: -1})
	if err == nil {
		t.Fatal("no fault was found")
	}
	want := "configure hasher: log is missing\nmaximal size -1 is not positive\nrate -1 is not positive"
	if err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	if _, err := New(Config{Log: discard(), MaxSize: 1 << 30, Rate: 1 << 20, Deadline: time.Minute}); err == nil {
		t.Error("a file that can not be read within the deadline is accepted")
	}
	if _, err := New(Config{Log: discard(), MaxSize: 1 << 40, Rate: 1 << 20}); err != nil {
		t.Errorf("the deadline does not follow: %v", err)
	}
}

func TestLookHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		hang := make(chan struct{})
		r.host.put("/net/a", 10).hangLook = hang
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		r.Look(ctx, []collect.HashTarget{target(1, "/net/a")})
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("look took %v", took)
		}
		close(hang)
		_ = r.stop()
	})
}
