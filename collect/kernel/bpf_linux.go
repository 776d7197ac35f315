//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxBatch bounds how long one Read takes: some milliseconds.
	maxBatch = 4096
	// missesEvery is how often the kernel is asked for what costs a system call.
	missesEvery = time.Second
)

// OpenBPF loads and attaches the programs; from then on nothing is missed. Its error
// is an [*Unavailable] where this host does not let it.
func OpenBPF(c Config) (Source, error) { return openBPF(c, thisHost()) }

func openBPF(c Config, h host) (*bpfSource, error) {
	size, err := c.ringBytes()
	if err != nil {
		return nil, err
	}
	if err := h.permits(); err != nil {
		return nil, err
	}
	p, err := h.load(size)
	if err != nil {
		return nil, h.explain(err)
	}
	s, err := newBPFSource(p, size)
	if err != nil {
		return nil, errors.Join(h.explain(err), p.close())
	}
	return s, nil
}

// bpfSource is what OpenBPF returns. All programs and their maps are gone from the
// kernel with the last descriptor of them, however the daemon ends.
type bpfSource struct {
	programs *programs
	file     *os.File // the ring once more, as something that Go can wait for
	filling  chan struct{}
	closed   chan struct{} // closed by Close
	watching sync.WaitGroup

	mu      sync.Mutex // guards what follows, against Close
	ring    *ring      // nil once it is closed
	losses  *losses
	bell    *bell
	told    Lost // all that was told of
	through time.Duration
	checked time.Time
}

func newBPFSource(p *programs, size int) (_ *bpfSource, err error) {
	r, err := newRing(p.objects.Ring.FD(), size)
	if err != nil {
		return nil, err
	}
	l, err := newLosses(p.objects.Lost.FD(), int(p.objects.Lost.MaxEntries()))
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	bell, err := newBell(p.objects.Reader.FD())
	if err != nil {
		return nil, errors.Join(err, r.close(), l.close())
	}
	file, err := pollable(p.objects.Ring.FD())
	if err != nil {
		return nil, errors.Join(err, r.close(), l.close(), bell.close())
	}
	s := &bpfSource{
		programs: p, ring: r, losses: l, bell: bell, file: file,
		filling: make(chan struct{}), // not buffered: who is not waited for is not woken again
		closed:  make(chan struct{}),
	}
	from, _ := wakeBand(size)
	s.watching.Go(func() { s.watch(r, from) })
	return s, nil
}

// pollable returns another descriptor of fd for which the runtime's poller waits.
func pollable(fd int) (*os.File, error) {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate the ring: %w", err)
	}
	if err := unix.SetNonblock(other, true); err != nil { // makes it pollable, and has no other effect
		return nil, errors.Join(fmt.Errorf("make the ring pollable: %w", err), unix.Close(other))
	}
	file := os.NewFile(uintptr(other), "bpf ring")
	if err := file.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(fmt.Errorf("poll the ring: %w", err), file.Close())
	}
	return file, nil
}

// watch tells of each time that a program wakes the reader, until the source is closed.
// All is one call of Read, since each begins with forgetting that it was woken.
func (s *bpfSource) watch(r *ring, from uint64) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return // it was closed already
	}
	_ = conn.Read(func(uintptr) (done bool) { // the error is that it was closed
		if !s.bell.rung() && r.fill() < from {
			return false // the reader was faster
		}
		select {
		case s.filling <- struct{}{}:
			return false
		case <-s.closed:
			return true
		}
	})
}

func (s *bpfSource) Filling() <-chan struct{} { return s.filling }

func (s *bpfSource) Read(b *Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring == nil {
		return fmt.Errorf("read kernel events: %w", os.ErrClosed)
	}
	now, err := bootNow()
	if err != nil {
		return fmt.Errorf("read kernel events: %w", err)
	}
	s.bell.disarm()
	b.begin(now)
	told := s.ring.end() // by now
	for len(b.Records) < maxBatch {
		raw, takes, err := s.ring.next()
		if err != nil {
			return fmt.Errorf("read kernel events: %w", err)
		}
		if raw == nil {
			break
		}
		b.Records = append(b.Records, Record{})
		if err := decode(raw, &b.Records[len(b.Records)-1]); err != nil {
			return fmt.Errorf("read kernel events: %d bytes: %w", len(raw), err)
		}
		s.ring.release(takes)
	}
	if s.ring.read(told) {
		s.through = now
	}
	b.Through = s.through
	b.More = len(b.Records) == maxBatch && s.ring.fill() > 0
	return s.countLost(b)
}

func (s *bpfSource) Rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring == nil {
		return false
	}
	// In this order: a record that comes between the two is seen by both sides.
	s.bell.arm()
	if s.ring.fill() > 0 {
		s.bell.disarm()
		return false
	}
	return true
}

// countLost says what was lost since it was last asked. Losses are counted when they
// happen; what the kernel did not run a program for, once a second.
func (s *bpfSource) countLost(b *Batch) error {
	if now := time.Now(); now.Sub(s.checked) >= missesEvery {
		s.checked = now
		if err := s.programs.misses(&s.losses.missed); err != nil {
			return fmt.Errorf("read kernel events: %w", err)
		}
	}
	all := s.losses.sum()
	b.Lost = Lost{
		Forks: all.Forks - s.told.Forks,
		Execs: all.Execs - s.told.Execs,
		Exits: all.Exits - s.told.Exits,
	}
	s.told = all
	return nil
}

func (s *bpfSource) Close() error {
	s.mu.Lock()
	r := s.ring
	s.ring = nil
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	close(s.closed)
	err := s.file.Close()
	s.watching.Wait()
	return errors.Join(err, s.programs.close(), r.close(), s.losses.close(), s.bell.close())
}
