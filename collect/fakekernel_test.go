package collect

import (
	"slices"
	"sync"
	"time"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/kernel"
)

// fakeKernel lets processes of a fakeHost fork, exec and exit, and tells of it as
// Events. Its clock since boot goes on by itself with each thing that happens, so that
// no two happen at once.
type fakeKernel struct {
	host *fakeHost

	mu      sync.Mutex // guards everything below; taken before the host's
	boot    time.Time
	skew    time.Duration
	records []toldRecord // in the order in which they happened
	// late is how much later than it happens the next record can be read.
	late     time.Duration
	slowest  time.Duration // when all records can be read
	quiet    bool          // what happens is not told, and not counted as lost
	lose     bool          // what happens is lost, and counted
	lost     kernel.Lost   // since the last Read
	since    time.Duration // of lost, if it is older than that
	note     string        // for the next Read
	began    time.Duration
	absent   bool          // there is no source
	lives    []*fakeProc   // all that it ever made
	lag      time.Duration // how much Through is behind
	most     int           // records in a batch; 0: no bound
	room     int           // records that may wait; 0: no bound
	reads    int
	restless bool                 // it does not call for one record
	hasty    bool                 // Through knows nothing of records that can not be read yet
	spoil    func(*kernel.Record) // what the source makes of a record
	awaited  bool                 // the next record calls
	// filling is sent to by tests and by send, and never closed; one is enough to call.
	filling chan struct{}
}

// toldRecord is a record and when it can be read.
type toldRecord struct {
	kernel.Record
	readable time.Duration
	hasty    bool
}

func newFakeKernel(h *fakeHost) *fakeKernel {
	k := &fakeKernel{host: h, boot: time.Now().Add(-time.Hour), filling: make(chan struct{}, 1)}
	k.began = k.now()
	return k
}

// now is the time since boot. It needs mu.
func (k *fakeKernel) now() time.Duration { return time.Since(k.boot) + k.skew }

// tick is a new moment. It needs mu.
func (k *fakeKernel) tick() time.Duration {
	k.skew += time.Microsecond
	return k.now()
}

// with changes the script.
func (k *fakeKernel) with(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// tell makes a record of what has happened to p. It needs both mutexes.
func (k *fakeKernel) tell(kind kernel.Kind, p *fakeProc) *kernel.Record {
	r := kernel.Record{
		Kind: kind, PID: p.record.PID, PPID: p.record.PPID, Start: p.start, At: k.now(),
	}
	if kind != kernel.KindExit {
		r.Comm, r.Session, r.TTY, r.CapEffective = p.record.Name, p.record.Session, p.record.TTY, p.record.CapEffective
		r.UID, r.GID, r.EUID, r.EGID = p.record.UID, p.record.GID, p.record.EUID, p.record.EGID
	}
	if parent := k.host.procs[p.record.PPID]; parent != nil {
		r.ParentStart = parent.start
	}
	return &r
}

// send hands a record to the source, which may lose it.
func (k *fakeKernel) send(r *kernel.Record) {
	switch {
	case k.quiet:
		return
	case k.lose || k.room > 0 && len(k.records) >= k.room:
		switch r.Kind {
		case kernel.KindFork:
			k.lost.Forks++
		case kernel.KindExec:
			k.lost.Execs++
		case kernel.KindExit:
			k.lost.Exits++
		}
		k.call() // it is full
		return
	}
	if k.spoil != nil {
		k.spoil(r)
	}
	readable := r.At + k.late
	for i := 0; k.slowest > readable && i < len(k.records); i++ { // it overtakes only what has happened a moment before
		if before := &k.records[i]; r.At-before.At > holdBack/2 && before.readable > readable {
			readable = before.readable
		}
	}
	k.slowest = max(k.slowest, readable)
	k.records = append(k.records, toldRecord{*r, readable, k.hasty && readable-r.At < holdBack})
	k.call()
}

// call wakes who rests.
func (k *fakeKernel) call() {
	if !k.awaited {
		return
	}
	k.awaited = false
	select {
	case k.filling <- struct{}{}:
	default:
	}
}

// fork makes pid a child of parent, which need not be there.
func (k *fakeKernel) fork(parent, pid int32) *fakeProc { return k.clone(parent, parent, pid) }

// clone makes pid a child of parent with the image of creator (CLONE_PARENT).
func (k *fakeKernel) clone(parent, creator, pid int32) *fakeProc {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	at := k.tick()
	p := &fakeProc{start: at, record: event.Process{Name: "?", Exe: "/bin/?"}}
	if from := k.host.procs[creator]; from != nil {
		p.record = from.record
	}
	r := &p.record
	r.PID, r.PPID, r.State, r.Threads, r.CPU, r.RSS = pid, parent, 'S', 1, 0, 10<<20
	r.StartTicks, r.StartTime = uint64(at/procfile.Tick), k.boot.Add(at)
	k.host.procs[pid] = p
	k.lives = append(k.lives, p)
	record := k.tell(kernel.KindFork, p)
	record.Creator = creator
	k.send(record)
	return p
}

// exec replaces the image of pid.
func (k *fakeKernel) exec(pid int32, exe string, args ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	k.tick()
	p := k.host.procs[pid]
	p.record.Exe, p.record.Args, p.record.Name = exe, args, exe[max(0, len(exe)-15):]
	p.exec = p.seen
	p.execs++
	record := k.tell(kernel.KindExec, p)
	record.Exe, record.Args = exe, args
	k.send(record)
}

// exit ends pid, of which nothing is left; its children go to process 1.
func (k *fakeKernel) exit(pid, code int32) {
	k.die(pid, code)
	k.reap(pid)
}

// die makes pid a zombie.
func (k *fakeKernel) die(pid, code int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	k.tick()
	p := k.host.procs[pid]
	for _, child := range k.host.procs {
		if child.record.PPID == pid {
			child.record.PPID = 1
		}
	}
	record := k.tell(kernel.KindExit, p)
	p.exit = &event.Exit{Code: code, CPU: time.Millisecond, MaxRSS: 1 << 20}
	p.record.State, p.record.Threads = event.StateZombie, 1
	record.Exit = p.exit
	k.send(record)
}

// reap takes away a zombie.
func (k *fakeKernel) reap(pid int32) { k.host.kill(pid) }

// Read implements Events.
func (k *fakeKernel) Read(b *kernel.Batch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	k.awaited = false
	now := k.now()
	*b = kernel.Batch{Records: b.Records[:0], Now: now, Lost: k.lost, LostSince: k.since, Note: k.note}
	k.lost, k.since, k.note = kernel.Lost{}, 0, ""
	if k.absent {
		k.records = nil
		return
	}
	b.Began, b.Through = k.began, now-k.lag
	k.records = slices.DeleteFunc(k.records, func(r toldRecord) bool {
		if k.most > 0 && len(b.Records) == k.most {
			b.More = true
		}
		if r.readable > now-k.lag || b.More {
			if !r.hasty || b.More {
				b.Through = min(b.Through, r.At-1)
			}
			return false
		}
		b.Records = append(b.Records, r.Record)
		return true
	})
}

// Filling implements Events.
func (k *fakeKernel) Filling() <-chan struct{} { return k.filling }

// Rest implements Events.
func (k *fakeKernel) Rest() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.awaited = !k.restless && !k.absent && len(k.records) == 0
	return k.awaited
}

// Exists implements Events.
func (k *fakeKernel) Exists(pid int32) bool {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return k.host.procs[pid] != nil
}

func (k *fakeKernel) readCount() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reads
}
