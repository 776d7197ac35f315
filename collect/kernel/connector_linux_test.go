//go:build amd64 || arm64

package kernel

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// readLife starts processes until one lived long enough for its last image to be read,
// and returns its records, which are of these kinds.
func (r *recorder) readLife(start func() (pid int), kinds ...Kind) []Record {
	r.t.Helper()
	for began := time.Now(); time.Since(began) < deadline; {
		all := r.of(start(), kinds...)
		if x := all[len(all)-2]; !x.Missing.Failed.Has(event.FieldArgs) && !x.Missing.Failed.Has(event.FieldExe) && x.Missing.Inherited == 0 {
			return all
		}
	}
	r.t.Fatal("all were gone too soon")
	return nil
}

// ofActor starts an actor for readLife.
func (r *recorder) ofActor(role string, change func(*exec.Cmd), kinds ...Kind) []Record {
	r.t.Helper()
	return r.readLife(func() int { return run(r.t, role, change).Process.Pid }, kinds...)
}

// TestConnectorProcess: what is told of a plain process is what /proc says of it.
func TestConnectorProcess(t *testing.T) {
	r := hear(t)
	args := []string{"watched", "", "two words", "not\xffUTF-8", "(a) b\n"}
	all := r.readLife(func() int { return int(zoo.Start(t, "exit 3", zoo.With(args...)).PID) }, KindFork, KindExec, KindExit)
	parent := statOf(t, os.Getpid())
	for i, x := range all {
		if int(x.PPID) != os.Getpid() || x.ParentStart != start(&parent) || x.StartApprox || x.Start%procfile.Tick != 0 || i > 0 && x.At <= all[i-1].At {
			t.Errorf("got %+v", x)
		}
	}
	x := all[1]
	if d := cmp.Diff(args, x.Args); d != "" {
		t.Errorf("arguments, -want +got:\n%s", d)
	}
	if x.Exe != testBinary(t) || x.ExeDeleted || x.Comm != "exe" || !x.Missing.IsZero() {
		t.Errorf("executable %q, deleted %v, name %q, missing %+v", x.Exe, x.ExeDeleted, x.Comm, x.Missing)
	}
	for _, x := range all[:2] {
		if int(x.UID) != os.Getuid() || int(x.EGID) != os.Getgid() || x.Session != parent.Session || x.TTY != parent.TTY {
			t.Errorf("got %+v", x)
		}
	}
	want := event.FieldSet(0).With(event.FieldCPU).With(event.FieldRSS)
	if x := all[2]; *x.Exit != (event.Exit{Code: 3}) || x.Missing != (event.Mask{Unsupported: want}) {
		t.Errorf("exit %+v, missing %+v", x.Exit, x.Missing)
	}
}

// TestConnectorRoles: the lives of processes that do something uncommon.
func TestConnectorRoles(t *testing.T) {
	r := hear(t)
	t.Run("exec by thread", func(t *testing.T) {
		r.t = t
		all := r.ofActor("exec", nil, KindFork, KindExec, KindExec, KindExit)
		if d := cmp.Diff([]string{"second", "image"}, all[2].Args); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	})
	t.Run("fork without exec", func(t *testing.T) {
		r.t = t
		cmd := run(t, "fork", nil)
		child := r.until("child", func(x *Record) bool { return int(x.PPID) == cmd.Process.Pid && x.Kind == KindExit && x.Exit.Code == 5 })
		all := r.of(int(child.PID), KindFork, KindExit)
		if all[0].Comm != "exe" || all[0].ParentStart != r.of(cmd.Process.Pid, KindFork, KindExec, KindExit)[0].Start {
			t.Errorf("got %+v", all[0])
		}
	})
	t.Run("no arguments", func(t *testing.T) {
		r.t = t
		all := r.ofActor("empty", nil, KindFork, KindExec, KindExec, KindExit)
		// The kernel gives an empty name to who has none, since 5.18.
		if args := all[2].Args; len(args) > 1 || strings.Join(args, "") != "" || !all[2].Missing.IsZero() {
			t.Errorf("arguments %q, missing %+v", args, all[2].Missing)
		}
	})
	t.Run("long arguments", func(t *testing.T) {
		r.t = t
		args := []string{"short", strings.Repeat("x", 128<<10-1)}
		x := r.ofActor("nothing", func(c *exec.Cmd) { c.Args = args }, KindFork, KindExec, KindExit)[1]
		kept := strings.Join(x.Args, "\x00")
		if len(kept) != maxArgsText || !strings.HasPrefix(strings.Join(args, "\x00"), kept) || x.Missing != (event.Mask{Truncated: event.FieldSet(0).With(event.FieldArgs)}) {
			t.Errorf("%d bytes, missing %+v", len(kept), x.Missing)
		}
	})
	t.Run("session", func(t *testing.T) {
		r.t = t
		all := r.ofActor("session", nil, KindFork, KindExec, KindExec, KindExit)
		if before, after := all[0].Session, all[2].Session; before == after || after != all[0].PID {
			t.Errorf("sessions %d and %d of process %d", before, after, all[0].PID)
		}
	})
	t.Run("title", func(t *testing.T) {
		r.t = t
		p := zoo.Start(t, "title rewritten", zoo.With("as", "it began"))
		r.settle()
		p.Act()
		r.settle()
		if x := r.of(int(p.PID), KindFork, KindExec)[1]; !slices.Equal(x.Args, []string{"as", "it began"}) {
			t.Errorf("arguments %q", x.Args)
		}
	})
}

// TestConnectorExecutable: the path is what /proc shows.
func TestConnectorExecutable(t *testing.T) {
	r := hear(t)
	path := copyOfTestBinary(t, "named) R 1 (\n (deleted)")
	x := r.ofActor("nothing", func(c *exec.Cmd) { c.Path = path }, KindFork, KindExec, KindExit)[1]
	if x.Exe != path || x.ExeDeleted || x.Comm != "named) R 1 (\n (" {
		t.Errorf("got %q, deleted %v, named %q", x.Exe, x.ExeDeleted, x.Comm)
	}
	path = copyOfTestBinary(t, "gone")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	linked := func(c *exec.Cmd) { c.ExtraFiles = []*os.File{file}; c.Path = "/proc/self/fd/3" }
	if x := r.ofActor("nothing", linked, KindFork, KindExec, KindExit)[1]; x.Exe != path || !x.ExeDeleted {
		t.Errorf("got %q, deleted %v, want %q, deleted", x.Exe, x.ExeDeleted, path)
	}
	if x := r.ofActor("memory made of memory", nil, KindFork, KindExec, KindExec, KindExit)[2]; x.Exe != "/memfd:made of memory" || !x.ExeDeleted {
		t.Errorf("got %q, deleted %v", x.Exe, x.ExeDeleted)
	}
}

// TestConnectorBelievesTheKernel: what others send to the same address is not heard.
func TestConnectorBelievesTheKernel(t *testing.T) {
	r := hear(t)
	own, err := unix.Getsockname(r.source.(*connectorSource).wire.(*connection).socket)
	if err != nil {
		t.Fatal(err)
	}
	liar, err := openConnector()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(liar) }()
	lie := appendRequest(nil, 1, 0) // an event has the same envelope
	ne := lie[:0:0]
	ne = append(ne, lie[:netlinkHeader+16]...)
	ne = append(ne, eventHeader+maxEventData, 0, 0, 0)
	forged := make([]byte, eventHeader+maxEventData)
	forged[0] = byte(whatFork)
	forged[4] = 1 // CPU
	copy(forged[eventHeader:], []byte{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 0, 0, 64, 0})
	ne = append(ne, forged...)
	ne[0] = byte(len(ne))
	var m message
	if err := m.decode(ne); err != nil {
		t.Fatal(err)
	}
	err = unix.Sendto(liar, ne, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: own.(*unix.SockaddrNetlink).Pid})
	zoo.Needs(t, "send to another process", err)
	r.settle()
	for _, x := range r.records {
		if x.PID == 64<<16 {
			t.Errorf("told %+v", x)
		}
	}
	if r.lost.Any() {
		t.Errorf("lost %+v", r.lost)
	}
}

// held is a connection that is not read while a test holds it.
type held struct {
	*connection
	gate  sync.Mutex         // held by the test; or by receive, for its time
	heard map[[2]uint32]bool // guarded by gate: the CPU and the number of each message
}

func (h *held) receive(messages []message) (int, error) {
	h.gate.Lock()
	defer h.gate.Unlock()
	n, err := h.connection.receive(messages)
	for i := range messages[:n] {
		h.heard[[2]uint32{messages[i].cpu, messages[i].seq}] = true
	}
	return n, err
}

// missed counts the messages that another one has heard and h has not, between the
// first and the last of each CPU that it has.
func (h *held) missed(other *held) (n uint64) {
	h.gate.Lock()
	defer h.gate.Unlock()
	other.gate.Lock()
	defer other.gate.Unlock()
	type span struct{ first, last uint32 }
	spans := make(map[uint32]span)
	for m := range h.heard {
		s, ok := spans[m[0]]
		if !ok {
			s = span{m[1], m[1]}
		}
		spans[m[0]] = span{min(s.first, m[1]), max(s.last, m[1])}
	}
	for m := range other.heard {
		if s, ok := spans[m[0]]; ok && m[1] >= s.first && m[1] <= s.last && !h.heard[m] {
			n++
		}
	}
	return n
}

func holdable(t *testing.T, bytes int) (*held, *recorder) {
	t.Helper()
	listenOrSkip(t, Config{})
	c, err := connect(openConnector, bytes)
	if err != nil {
		t.Fatal(err)
	}
	h := &held{connection: c, heard: map[[2]uint32]bool{{c.first.cpu, c.first.seq}: true}}
	s, err := listen(h, "/proc")
	if err != nil {
		t.Fatal(err)
	}
	s.sequences.note(&c.first)
	s.start()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, &recorder{t: t, source: s}
}

// TestConnectorLossIsCounted: what finds no room in a small buffer is counted, to the
// last message.
func TestConnectorLossIsCounted(t *testing.T) {
	const n = 2_000
	s := newStorm(t)
	wide, all := holdable(t, DefaultReceiveBytes)
	narrow, r := holdable(t, 8<<10)
	onEachCPU(t, func() { run(t, "nothing", nil) }) // the base
	all.settle()
	r.settle()
	narrow.gate.Lock()
	s.run(t, "vfork", n)
	narrow.gate.Unlock()
	for began := time.Now(); ; {
		onEachCPU(t, func() { run(t, "nothing", nil) }) // shows what was lost at the end
		all.settle()
		r.settle()
		if missed := narrow.missed(wide); missed == r.lost.Other && missed > n {
			t.Logf("%d messages are missing, and counted", missed)
			break
		}
		if time.Since(began) > deadline/4 {
			t.Fatalf("%d messages are missing, lost %+v", narrow.missed(wide), r.lost)
		}
	}
	if all.lost.Any() {
		t.Errorf("lost %+v in a wide one", all.lost)
	}
}

// onEachCPU calls f on one CPU after the other; what it starts begins there.
func onEachCPU(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
	}()
	for cpu := range len(all) * 64 {
		if !all.IsSet(cpu) {
			continue
		}
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Fatal(err)
		}
		f()
	}
}

// TestConnectorSuspendedReader: what nobody reads is kept within bounds, then in the
// kernel, and nothing is lost that has room there.
func TestConnectorSuspendedReader(t *testing.T) {
	const n = maxQueued
	r := hear(t)
	s, name := namedStorm(t)
	source := r.source.(*connectorSource)
	s.run(t, "vfork", n/2+1000)
	zoo.Await(t, "the thread to wait for room", func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		if got := len(source.queue); got > maxQueued+publishEvery+batchSize {
			t.Fatalf("%d records are queued", got)
		}
		return source.blocked
	})
	select {
	case <-source.Filling():
	default:
		t.Error("the reader is not told")
	}
	var b Batch
	if err := source.Read(&b); err != nil || len(b.Records) != publishedBatch || !b.More {
		t.Fatalf("%d records, more %v, %v", len(b.Records), b.More, err)
	}
	r.records = append(r.records, b.Records...)
	r.settle()
	if forks, exits, _ := r.told(t, name); forks != n/2+1000+2 || exits != forks || r.lost.Any() {
		t.Errorf("%d forks, %d exits, lost %+v", forks, exits, r.lost)
	}
	select {
	case <-source.Filling():
		t.Error("the reader is told of nothing")
	default:
	}
}

// TestConnectorRefused: where the kernel does not tell, the error says what to do.
func TestConnectorRefused(t *testing.T) {
	listenOrSkip(t, Config{})
	for name, test := range map[string]struct {
		change *syscall.SysProcAttr
		want   []string // one of them
		mend   string
	}{
		"PID namespace":     {&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, []string{"namespace: connector: "}, "hostPID"},
		"network namespace": {&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, []string{"namespace: connector: "}, "hostNetwork"},
		"user namespace":    {&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}, []string{"namespace: connector: "}, "--userns=host"},
		// Since Linux 6.6 it needs no privilege.
		"nobody": {&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, []string{"opened", "rights: connector: "}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			path := copyOfTestBinary(t, "actor")
			for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
				if st, err := os.Stat(dir); err != nil || st.Mode()&1 == 0 && os.Chmod(dir, 0o755) != nil { //nolint:gosec // others are to run it
					t.Fatal(err)
				}
			}
			cmd := actor(t, "listen", func(c *exec.Cmd) { c.SysProcAttr, c.Stdout, c.Path = test.change, &out, path })
			err := cmd.Start()
			zoo.Needs(t, "start it", err)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(test.want, func(w string) bool { return strings.HasPrefix(out.String(), w) }) || !strings.Contains(out.String(), test.mend) {
				t.Errorf("got %q, want %q and %q", out.String(), test.want, test.mend)
			}
		})
	}
}

// TestConnectorNoAnswer: a kernel that says nothing is not waited for.
func TestConnectorNoAnswer(t *testing.T) {
	silent := func() (int, error) { // routing does not understand what it is asked, and says nothing
		return unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	}
	began := time.Now()
	_, err := openConnection(Config{}, connectorHost{namespace: ownNamespace, socket: silent})
	var u *Unavailable
	if !errors.As(err, &u) || u.Reason != ReasonKernel && u.Reason != ReasonNamespace || u.Mend == "" {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); u.Reason == ReasonKernel && (took < ackTimeout || took > 5*ackTimeout) {
		t.Errorf("it took %v", took)
	}
}

func TestConnectorErrors(t *testing.T) {
	for errno, want := range map[unix.Errno]Reason{unix.EPROTONOSUPPORT: ReasonKernel, unix.EAFNOSUPPORT: ReasonRefused, unix.EMFILE: ReasonFailed} {
		h := connectorHost{
			namespace: func(name string) (uint64, error) {
				return map[string]uint64{"pid": inodePID, "user": inodeUser, "time": inodeTime}[name], nil
			},
			socket: func() (int, error) { return -1, errno },
		}
		_, err := openConnection(Config{}, h)
		var u *Unavailable
		if !errors.As(err, &u) || u.Reason != want || !errors.Is(err, errno) {
			t.Errorf("%v: got %v, want %v", errno, err, want)
		}
	}
	for errno, want := range map[unix.Errno]Reason{unix.EPERM: ReasonRights, unix.EACCES: ReasonRefused, unix.ECONNREFUSED: ReasonNamespace, unix.ENOMEM: ReasonFailed} {
		var u *Unavailable
		if err := explainSubscription(errno); !errors.As(err, &u) || u.Reason != want {
			t.Errorf("%v: got %v, want %v", errno, err, want)
		}
	}
	if _, err := OpenConnector(Config{ReceiveBytes: -1}); err == nil {
		t.Error("a buffer of -1 bytes")
	}
}

func TestConnectorClosed(t *testing.T) {
	s := listenOrSkip(t, Config{})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := s.Read(new(Batch)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestConnectorPriority: the thread goes before others, or the note says why not; its
// priority goes with it.
func TestConnectorPriority(t *testing.T) {
	s := listenOrSkip(t, Config{ReceiveBytes: 100 << 10})
	first := func() (n int) {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				t.Fatal(err)
			}
			if attr, err := unix.SchedGetAttr(tid, 0); err == nil && attr.Policy == unix.SCHED_FIFO && attr.Priority == 1 {
				n++
			}
		}
		return n
	}
	zoo.Await(t, "the thread", func() bool { return first() == 1 || s.Note() != "" })
	t.Logf("note %q", s.Note())
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	zoo.Await(t, "the thread to end", func() bool { return first() == 0 })
}
