package kernel

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/hung"
)

const (
	// Between the thread and Read there are no more records and no more bytes of texts
	// than this, but for one publication. The rest waits in the kernel, or is lost there.
	maxQueued      = 1 << 14
	maxQueuedBytes = 8 << 20
	// publishEvery bounds how many records are made in a row before they can be read.
	publishEvery = 256
	// Reading arguments that takes longer than this is left behind, if no more are.
	readPatience = 250 * time.Millisecond
	maxHung      = 8
	// publishedBatch is how many records one Read gives at most.
	publishedBatch = 4096
)

// OpenConnector subscribes to the kernel's process connector and starts the thread
// that listens; from then on nothing is missed, or it is counted. Its error is an
// [*Unavailable] where the kernel does not tell this daemon.
//
// The thread runs under SCHED_FIFO with the lowest priority, where that is allowed, and
// as long as it takes no more than a fifth of a core: who reads /proc as soon as a
// process runs a program mostly finds it there. What was read is the process's own: its
// start time says so, and what another image of the same process may have put there is
// taken back. What is known of the parent is said at a fork, but for the start time: who
// is gone by then is taken to have started when the kernel told of it, mostly less than a
// microsecond too late, and some 50 microseconds at most on a busy host.
//
// CPU and memory of an exit are not given, nor is CgroupID. The exit of a process with
// several threads is told with the status of the last one. Where /proc hides other
// users' processes (hidepid), all but the fact itself is missing.
//
// What OpenConnector returns also has a method Note() string, safe for concurrent use:
// for people, in what respect it is less than it could be; "" if in none.
func OpenConnector(c Config) (Source, error) {
	s, err := openConnection(c, connectorHost{namespace: ownNamespace, socket: openConnector})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// connectorHost is what is seen of the host; tests have others.
type connectorHost struct {
	namespace func(name string) (inode uint64, err error) // of this process
	socket    func() (int, error)
}

func openConnection(c Config, h connectorHost) (*connectorSource, error) {
	size, err := c.receiveBytes()
	if err != nil {
		return nil, err
	}
	if err := checkNamespaces("connector", deafNamespaces, h.namespace); err != nil {
		return nil, err
	}
	conn, err := connect(h.socket, size)
	if err != nil {
		return nil, err
	}
	s, err := listen(conn, hostProc)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if conn.received < size {
		s.short = fmt.Sprintf("the kernel queues %d KiB for it and not %d: grant CAP_NET_ADMIN, or raise net.core.rmem_max", conn.received>>10, size>>10)
	}
	s.sequences.note(&conn.first)
	s.pulse.hear(time.Now(), conn.first.at)
	s.start()
	return s, nil
}

// connectorSource is what OpenConnector returns.
type connectorSource struct {
	wire      wire
	short     string // about the buffer; "" if it is as asked for
	priority  priority
	filling   chan struct{} // sent to by the thread and never closed; one is enough to be woken by
	closed    chan struct{} // closed by Close
	listening sync.WaitGroup

	// The worker's: there is one at a time, which goes on where another one was left.
	tracker   *tracker
	sequences sequences
	pulse     pulse
	messages  [batchSize]message
	got, done int  // messages that were received, and those of them that were seen to
	overflow  bool // the kernel said that it dropped some, and no gap has shown them yet

	mu      sync.Mutex // guards what follows
	queue   []Record
	bytes   int // of texts in queue
	lost    Lost
	blocked bool // the thread waits for room in queue
	resting bool // all that was received is in queue, and the thread waits for more
	awaited bool // who reads wants to be woken by the next record
	through time.Duration
	failed  error
	open    bool
	unsure  string // why nobody knows whether it still hears; "" if that is known
}

// listen makes a source of a wire and a /proc; start begins.
func listen(w wire, proc string) (*connectorSource, error) {
	clock, err := newBootClock()
	if err != nil {
		return nil, err
	}
	now, err := bootNow()
	if err != nil {
		return nil, err
	}
	files, err := newProcessFiles(proc, maxHung)
	if err != nil {
		return nil, err
	}
	return &connectorSource{
		wire: w, tracker: newTracker(files, clock), open: true, through: now,
		pulse:   pulse{silence: maxSilence, every: signEvery, heard: time.Now(), at: uint64(clock.monotonic())},
		filling: make(chan struct{}, 1), closed: make(chan struct{}),
	}, nil
}

func (s *connectorSource) start() {
	s.listening.Go(func() {
		_, err := hung.Run(s.tracker.files.hung, readPatience, nil, s.work)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = err
		s.call()
	})
}

// work is what the thread does until the source is closed. The thread ends with the
// goroutine, since it is never unlocked: its priority is not for others.
func (s *connectorSource) work(w *hung.Worker) error {
	runtime.LockOSThread()
	defer s.priority.begin()()
	for {
		for ; s.done < s.got; s.done++ {
			if err := s.tracker.take(w, &s.messages[s.done]); err != nil {
				return err // nothing was done with it yet
			}
		}
		if len(s.tracker.records) >= publishEvery {
			s.priority.check()
			s.tracker.finish(s.taken() - maxUnsent)
			if err := s.publish(); err != nil {
				return err
			}
		}
		select {
		case <-s.closed:
			return nil
		default:
		}
		if err := s.receive(); err != nil {
			return err
		}
	}
}

// maxUnsent is more than passes between the time that a message has and its being sent.
const maxUnsent = 100 * time.Millisecond

// taken is the time of the last message that was received, all of which were taken.
func (s *connectorSource) taken() time.Duration {
	if s.got == 0 {
		return 0
	}
	return time.Duration(s.messages[s.got-1].at)
}

// receive gets the next messages, or publishes what there is and waits for them.
func (s *connectorSource) receive() error {
	n, err := s.wire.receive(s.messages[:])
	s.got, s.done = n, 0
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOBUFS):
		s.overflow = true
		s.tracker.doubt()
		s.pulse.hear(time.Now(), uint64(s.tracker.clock.monotonic()))
	case errors.Is(err, unix.EAGAIN):
		return s.rest()
	case !errors.Is(err, unix.EINTR):
		return fmt.Errorf("receive process events: %w", err)
	}
	if n > 0 {
		s.pulse.hear(time.Now(), s.messages[n-1].at)
	}
	for i := range s.messages[:n] {
		if s.sequences.note(&s.messages[i]) {
			s.overflow = false
			s.tracker.doubt()
		}
	}
	return nil
}

// rest publishes what there is and waits for more.
func (s *connectorSource) rest() error {
	s.tracker.finish(math.MaxInt64)
	if err := s.publish(); err != nil {
		return err
	}
	if s.overflow { // what is missing shows only when that CPU tells something again
		s.overflow = false
		s.lose(Lost{Unknown: true})
	}
	s.tracker.sweep()
	s.priority.check()
	wait, deaf := s.pulse.check(time.Now(), s.wire.sign)
	if deaf {
		s.wire.dismissed()
		return &Deaf{Source: string(ModeConnector), Heard: s.tracker.clock.boot(s.pulse.at), Signs: s.pulse.signs}
	}
	s.setResting(true)
	err := s.wire.wait(true, wait)
	s.setResting(false)
	if err != nil {
		return err
	}
	_, err = s.tracker.clock.measure()
	return err
}

func (s *connectorSource) setResting(resting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting, s.unsure = resting, s.pulse.refused
}

func (s *connectorSource) lose(l Lost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost.Other += l.Other
	s.lost.Unknown = s.lost.Unknown || l.Unknown
}

// publish gives what was made to whoever reads, and waits until there is room for more.
func (s *connectorSource) publish() error {
	if n := s.sequences.settle(); n > 0 {
		s.lose(Lost{Other: n})
	}
	if len(s.tracker.records) == 0 {
		return nil
	}
	full := s.enqueue()
	for full {
		if err := s.wire.wait(false, forever); err != nil {
			return err
		}
		select {
		case <-s.closed:
			return nil
		default:
		}
		s.mu.Lock()
		full = s.full()
		s.blocked = full
		s.mu.Unlock()
	}
	return nil
}

// enqueue moves the records to the queue and reports whether it is full now.
func (s *connectorSource) enqueue() (full bool) {
	records := s.tracker.records
	s.mu.Lock()
	s.queue = append(s.queue, records...)
	s.bytes += textBytes(records)
	full = s.full()
	s.blocked = full
	wake := s.awaited && len(records) > 0 || len(s.queue) > maxQueued/4 || s.bytes > maxQueuedBytes/4
	s.awaited = s.awaited && !wake
	s.mu.Unlock()
	clear(records) // others own the texts
	s.tracker.records = records[:0]
	if wake {
		s.call()
	}
	return full
}

// call wakes who reads.
func (s *connectorSource) call() {
	select {
	case s.filling <- struct{}{}:
	default:
	}
}

func (s *connectorSource) full() bool {
	return len(s.queue) >= maxQueued || s.bytes >= maxQueuedBytes
}

// textBytes is what the texts of records take, roughly.
func textBytes(records []Record) (n int) {
	for i := range records {
		n += len(records[i].Exe)
		for _, arg := range records[i].Args {
			n += len(arg) + 16
		}
	}
	return n
}

func (s *connectorSource) Filling() <-chan struct{} { return s.filling }

func (s *connectorSource) Read(b *Batch) error {
	now, err := bootNow()
	if err != nil {
		return fmt.Errorf("read kernel events: %w", err)
	}
	b.begin(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited = false
	switch {
	case !s.open:
		return fmt.Errorf("read kernel events: %w", os.ErrClosed)
	case s.failed != nil && len(s.queue) == 0:
		return fmt.Errorf("read kernel events: %w", s.failed)
	}
	if err := s.lookThrough(now); err != nil {
		return fmt.Errorf("read kernel events: %w", err)
	}
	if len(s.queue) <= publishedBatch { // the usual case, without a copy
		b.Records, s.queue = s.queue, b.Records
		if cap(s.queue) > publishedBatch {
			s.queue = nil // what a storm took is not kept
		}
	} else {
		b.Records = append(b.Records, s.queue[:publishedBatch]...)
		left := copy(s.queue, s.queue[publishedBatch:])
		clear(s.queue[left:])
		s.queue = s.queue[:left]
	}
	s.bytes -= textBytes(b.Records)
	b.More = len(s.queue) > 0
	b.Through = s.through
	b.Lost, s.lost = s.lost, Lost{}
	if !b.More { // whoever was to be woken is awake
		select {
		case <-s.filling:
		default:
		}
	}
	if s.blocked && !s.full() {
		s.blocked = false
		return s.wire.kick()
	}
	return nil
}

func (s *connectorSource) Rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited = s.open && s.failed == nil && len(s.queue) == 0
	return s.awaited
}

// lookThrough notes that everything was told that happened before now, if that is so.
func (s *connectorSource) lookThrough(now time.Duration) error {
	if !s.resting || len(s.queue) > publishedBatch {
		return nil
	}
	empty, err := s.wire.empty()
	if empty {
		s.through = now
	}
	return err
}

// Note says in what respect the source is less than it could be.
func (s *connectorSource) Note() string {
	s.mu.Lock()
	unsure := s.unsure
	s.mu.Unlock()
	var notes []string
	for _, note := range []string{s.short, s.priority.said(), unsure} {
		if note != "" {
			notes = append(notes, note)
		}
	}
	if n := s.tracker.files.hung.Len(); n > 0 {
		notes = append(notes, fmt.Sprintf("the arguments of %d processes can not be read: that hangs", n))
	}
	return strings.Join(notes, "; ")
}

// Close ends the thread, unless that hangs in reading the arguments of a process: then
// it is left behind, after a moment, and ends when the kernel answers.
func (s *connectorSource) Close() error {
	s.mu.Lock()
	open := s.open
	s.open = false
	s.mu.Unlock()
	if !open {
		return nil
	}
	close(s.closed)
	err := s.wire.kick()
	s.listening.Wait()
	return errors.Join(err, s.wire.Close(), s.tracker.files.close())
}
