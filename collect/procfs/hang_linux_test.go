package procfs

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/scantest"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// hang makes every reader of the arguments of pid wait, until release is called,
// which makes later ones read them.
func (f fixture) hang(pid int) (release func()) {
	f.T.Helper()
	return f.hangAt(pid, "cmdline", zoo.Sleeper(pid, 1).Cmdline)
}

// hangAt is hang for any file, which will have this content.
func (f fixture) hangAt(pid int, file, content string) (release func()) {
	f.T.Helper()
	path := f.Path(pid, file)
	f.Must(os.Remove(path))
	f.Must(unix.Mkfifo(path, 0o600))
	released := false
	release = func() {
		if released {
			return
		}
		released = true
		// One end for writing lets all readers go on; they find the end of the file.
		w, err := os.OpenFile(path, os.O_RDWR, 0)
		f.Must(err)
		f.Must(os.Remove(path))
		f.Must(os.WriteFile(path, []byte(content), 0o600))
		f.Must(w.Close())
	}
	f.T.Cleanup(release)
	return release
}

// awaitHung scans until so many workers hang: they end in their own time.
func awaitHung(t *testing.T, s *Scanner, want int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); s.hung.Len() != want; {
		if time.Now().After(deadline) {
			t.Fatalf("%d workers hang, want %d", s.hung.Len(), want)
		}
		scantest.Scan(t, s, false)
	}
}

func TestHangingArgumentsStopNoScan(t *testing.T) {
	f := newFixture(t)
	for pid := 1; pid <= 5; pid++ {
		f.Put(pid, zoo.Sleeper(pid, 1))
	}
	release := f.hang(3)
	s := newScanner(t, Config{Proc: f.Dir, Patience: 20 * time.Millisecond})
	snap := scantest.Scan(t, s, false)
	if len(snap.Observations) != 5 {
		t.Fatalf("%d processes, want 5", len(snap.Observations))
	}
	for pid := int32(1); pid <= 5; pid++ {
		p := scantest.Whole(t, snap, pid).Process
		hangs := pid == 3
		if p.Exe != "/usr/bin/sleeper" || p.UID != 1 || p.Missing.Failed.Has(event.FieldArgs) != hangs || (len(p.Args) == 0) != hangs {
			t.Errorf("process %d: %+v", pid, p)
		}
	}
	for range 2 * rereadEvery { // its turn comes, and it is not tried again
		if o := scantest.Observed(t, scantest.Scan(t, s, false), 3); o.Process != nil {
			t.Fatalf("reported again: %+v", o.Process)
		}
		if n := s.hung.Len(); n != 1 {
			t.Fatalf("%d workers hang, want 1", n)
		}
	}
	release()
	for deadline := time.Now().Add(time.Minute); ; {
		if o := scantest.Observed(t, scantest.Scan(t, s, false), 3); o.Process != nil {
			if len(o.Process.Args) != 3 || o.Process.Missing.Failed != 0 || o.ExecChanged {
				t.Errorf("afterwards: %+v", o.Process)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("arguments are not read once they can be")
		}
	}
}

func TestNoMoreHangThanAllowed(t *testing.T) {
	f := newFixture(t)
	const n, limit = 10, 3
	releases := make([]func(), 0, n)
	for pid := 1; pid <= n; pid++ {
		f.Put(pid, zoo.Sleeper(pid, 1))
		releases = append(releases, f.hang(pid))
	}
	f.Put(n+1, zoo.Sleeper(n+1, 1))
	s := newScanner(t, Config{Proc: f.Dir, Patience: 10 * time.Millisecond, MaxHung: limit})
	for range 3 {
		snap := scantest.Scan(t, s, true)
		if s.hung.Len() != limit {
			t.Fatalf("%d hang, want %d", s.hung.Len(), limit)
		}
		for pid := int32(1); pid <= n+1; pid++ {
			if p := scantest.Whole(t, snap, pid).Process; !p.Missing.Failed.Has(event.FieldArgs) {
				t.Errorf("process %d: the mask does not say that arguments were not read: %+v", pid, p)
			}
		}
	}
	for _, release := range releases {
		release()
	}
	awaitHung(t, s, 0)
	scantest.Scan(t, s, false)
	if p := scantest.Whole(t, scantest.Scan(t, s, true), n+1).Process; len(p.Args) != 3 {
		t.Errorf("arguments are not read though nothing hangs: %+v", p)
	}
}

func TestProbeOfAHangingProcess(t *testing.T) {
	f := newFixture(t)
	f.Put(1, zoo.Sleeper(1, 1))
	f.hang(1)
	s := newScanner(t, Config{Proc: f.Dir, Patience: 10 * time.Millisecond})
	for range 2 {
		o, err := s.Probe(t.Context(), 1)
		if err != nil || o.Process == nil || !o.Process.Missing.Failed.Has(event.FieldArgs) {
			t.Errorf("got %+v, %v", o, err)
		}
	}
}
