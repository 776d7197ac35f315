package warden

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/agent"
)

// ChildFD is the descriptor at which a child finds the connection to its parent.
const ChildFD = 3

const (
	pauseMin  = time.Second
	pauseMax  = time.Minute
	pauseCalm = time.Minute // a child that lived this long begins anew at pauseMin
	// sendPatience is how long a child may leave its messages unread.
	sendPatience = 5 * time.Second
)

// Config is what a parent is made from.
type Config struct {
	// Path, Argv (its first is the name) and Environ are those of the child.
	Path    string
	Argv    []string
	Environ []string
	// Credential is who the child is.
	Credential *syscall.Credential
	Programs   agent.Starter // what the child may have started
	Count      int           // of those
	// Signals are passed on to the child. SIGTERM and SIGINT mean the end.
	Signals <-chan os.Signal
	// Final reports whether a child that ends like this is not started again.
	Final func(code int) bool
	// Forced reports whether an end is one that waits for nobody.
	Forced func(code int) bool
	// Stop is how long collectors that a child left may take to stop.
	Stop time.Duration
	Log  *logrus.Entry
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults []error
	fault := func(bad bool, what string) {
		if bad {
			faults = append(faults, errors.New(what))
		}
	}
	fault(c.Path == "" || len(c.Argv) == 0, "program of the child is missing")
	fault(c.Programs == nil, "programs are missing")
	fault(c.Count < 0, "count of programs is negative")
	fault(c.Signals == nil, "signals are missing")
	fault(c.Final == nil || c.Forced == nil, "meaning of exit codes is missing")
	fault(c.Stop <= 0, "time to stop is not positive")
	fault(c.Log == nil, "log is missing")
	return errors.Join(faults...)
}

// Run is the life of the parent. It returns the code that the last child ended with,
// once no collector runs any more. It blocks until a signal asks for the end, or a
// child ends for good.
func Run(cfg Config) (code int, err error) {
	if err := cfg.Validate(); err != nil {
		return 0, fmt.Errorf("configure parent: %w", err)
	}
	p := &parent{Config: cfg}
	pause := pauseMin
	for {
		born := time.Now()
		code, err := p.life()
		switch {
		case err != nil:
			return 0, errors.Join(err, p.stopAll())
		case p.stopping || code == 0 || cfg.Final(code) || cfg.Forced(code):
			if cfg.Forced(code) {
				p.signalAll(syscall.SIGTERM)
				return code, nil
			}
			return code, p.stopAll()
		}
		if time.Since(born) >= pauseCalm {
			pause = pauseMin
		}
		cfg.Log.WithFields(logrus.Fields{"exit": code, "retry_in": pause.String()}).Warn("The unprivileged agent ended and is started again; its collectors go on")
		if p.rest(pause) {
			return 0, p.stopAll()
		}
		pause = min(2*pause, pauseMax)
	}
}

// parent is one run of it. Only Run's goroutine uses its fields.
type parent struct {
	Config
	stopping bool
}

// rest waits before the next child. It is true if the end is asked for meanwhile.
func (p *parent) rest(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return false
		case s := <-p.Signals:
			if isEnd(s) {
				return true
			}
		}
	}
}

func isEnd(s os.Signal) bool { return s == syscall.SIGTERM || s == syscall.SIGINT }

// life is that of one child. Its goroutines end with it.
func (p *parent) life() (code int, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, err
	}
	defer func() { _ = ours.Close() }() // nothing is written any more
	cmd := p.command(theirs)
	err = cmd.Start()
	_ = theirs.Close() // it is the child's
	if err != nil {
		return 0, fmt.Errorf("start the unprivileged agent: %w", err)
	}
	p.Log.WithField("pid", cmd.Process.Pid).Debug("The unprivileged agent was started")
	l := &life{
		parent: p, conn: ours, done: make(chan struct{}),
		orders: make(chan order), exits: make(chan exited), ended: make(chan int, 1),
	}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer close(l.done)
	defer func() { _ = ours.Close() }() // ends who reads
	helpers.Go(func() { l.ended <- waitFor(cmd) })
	helpers.Go(l.read)
	return l.serve(&helpers, cmd.Process), nil
}

func (p *parent) command(theirs *os.File) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), p.Path)
	cmd.Args = p.Argv
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.Env = p.Environ
	cmd.ExtraFiles = []*os.File{theirs} // becomes ChildFD
	// A group of its own, so that a signal of the terminal reaches it once: through
	// us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.Credential, Setpgid: true}
	return cmd
}

// waitFor is the exit code of a process; one that a signal ended has 128 and that
// signal, as in a shell.
func waitFor(cmd *exec.Cmd) int {
	_ = cmd.Wait() // the state says it
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// exited is the end of a program.
type exited struct {
	n       int
	process agent.Process
}

// life is a child and what is under way with it.
type life struct {
	*parent
	conn *net.UnixConn
	done chan struct{} // closed when the life is over
	// Sent to by helpers, which give up when the life is over; never closed.
	orders chan order
	exits  chan exited
	ended  chan int // sent to once
}

// read passes on what the child asks for, until the connection ends.
func (l *life) read() {
	from := newLines(l.conn)
	for {
		var o order
		if err := from.next(&o); err != nil {
			select {
			case <-l.done:
			default:
				// The child notices, and ends.
				_ = l.conn.Close()
			}
			return
		}
		select {
		case l.orders <- o:
		case <-l.done:
			return
		}
	}
}

// serve does what the child asks for, until it has ended.
func (l *life) serve(helpers *sync.WaitGroup, child *os.Process) (code int) {
	for n := range l.Count {
		if p := l.Programs.Running(n); p != nil {
			l.watch(helpers, n, p)
			l.tell(notice{What: whatStarted, N: n, PID: p.PID()})
		}
	}
	l.tell(notice{What: whatReady})
	for {
		select {
		case o := <-l.orders:
			l.obey(helpers, o)
		case e := <-l.exits:
			exit := e.process.Exit()
			l.tell(notice{What: whatExited, N: e.n, PID: e.process.PID(), Code: exit.Code, Text: exit.Text})
		case s := <-l.Signals:
			l.stopping = l.stopping || isEnd(s)
			if err := child.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				l.Log.WithError(err).Warn("The unprivileged agent can not be signalled")
			}
		case code := <-l.ended:
			return code
		}
	}
}

// obey does one thing. What no honest child asks for ends the connection.
func (l *life) obey(helpers *sync.WaitGroup, o order) {
	if o.N < 0 || o.N >= l.Count {
		l.refuse(o)
		return
	}
	running := l.Programs.Running(o.N)
	switch o.Do {
	case doStart:
		if running != nil {
			l.tell(notice{What: whatStarted, N: o.N, PID: running.PID()})
			return
		}
		p, err := l.Programs.Start(o.N)
		if err != nil {
			l.tell(notice{What: whatFailed, N: o.N, Text: clip(err.Error())})
			return
		}
		l.watch(helpers, o.N, p)
		l.tell(notice{What: whatStarted, N: o.N, PID: p.PID()})
	case doTerm, doKill:
		if running != nil {
			l.signal(running, map[string]syscall.Signal{doTerm: syscall.SIGTERM, doKill: syscall.SIGKILL}[o.Do])
		}
	default:
		l.refuse(o)
	}
}

func (l *life) refuse(o order) {
	l.Log.WithFields(logrus.Fields{"do": fmt.Sprintf("%q", clip(o.Do)), "n": o.N}).Error("The unprivileged agent asked for what it may not have: the connection to it is closed")
	_ = l.conn.Close() // the child notices, and ends
}

// watch sends to exits when the program has ended.
func (l *life) watch(helpers *sync.WaitGroup, n int, p agent.Process) {
	helpers.Go(func() {
		select {
		case <-p.Exited():
		case <-l.done:
			return
		}
		select {
		case l.exits <- exited{n, p}:
		case <-l.done:
		}
	})
}

// tell sends to the child. One that does not read is cut off, and so ends.
func (l *life) tell(n notice) {
	err := l.conn.SetWriteDeadline(time.Now().Add(sendPatience))
	if err == nil {
		err = send(l.conn, n)
	}
	if err != nil {
		_ = l.conn.Close() // the child notices, and ends
	}
}

func (p *parent) signal(process agent.Process, s syscall.Signal) {
	if err := process.Signal(s); err != nil {
		p.Log.WithError(err).Warn("A collector can not be signalled")
	}
}

// stopAll stops the collectors that are left, and reaps them.
func (p *parent) stopAll() error {
	p.signalAll(syscall.SIGTERM)
	kill := time.NewTimer(p.Stop)
	defer kill.Stop()
	for n := range p.Count {
		process := p.Programs.Running(n)
		if process == nil {
			continue
		}
		select {
		case <-process.Exited():
			continue
		case <-kill.C:
		}
		kill.Reset(0)
		p.signal(process, syscall.SIGKILL)
		<-process.Exited() // the kernel's word
	}
	return nil
}

func (p *parent) signalAll(s syscall.Signal) {
	for n := range p.Count {
		if process := p.Programs.Running(n); process != nil {
			p.signal(process, s)
		}
	}
}

// clip bounds a text in a message.
func clip(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most]
	}
	return s
}

// socketPair makes a connection with two ends: ours, and a child's.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := cloexecPair()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "child")
	if ours, err = connOf(os.NewFile(uintptr(fds[0]), "parent")); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// connOf is the connection behind a file, which it closes.
func connOf(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("use a socket: %w", err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("use a socket: it is not one of this host"), conn.Close())
	}
	return unix, nil
}
