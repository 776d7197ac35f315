package warden

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/supervisor/tree"
)

// ErrGone reports that the parent has ended.
var ErrGone = errors.New("the parent process is gone")

const (
	// answerPatience is how long the parent may take to start a program.
	answerPatience = 10 * time.Second
	// readEvery is how long a read takes at most: after it, Serve looks up.
	readEvery = 200 * time.Millisecond
)

// Link is a child's side: it has the parent start programs. It is a service too,
// which must run for the Link to hear of anything.
type Link struct {
	conn  *net.UnixConn
	count int
	lines *lines // used by Open, and then by Serve only
	gone  func()
	// Progress is the service's own.
	Progress *tree.Progress

	mu        sync.Mutex // guards everything below, and what is sent
	processes map[int]*process
	answers   map[int]chan notice // by the program: who waits for it to be started; holds 1, sent to once
	lost      bool
}

// Open takes the connection that the parent gave this process at a descriptor, for
// count programs. It waits for the parent's word on those that run. gone is called
// when the parent has ended.
func Open(fd uintptr, count int, gone func()) (*Link, error) {
	conn, err := connOf(os.NewFile(fd, "parent"))
	if err != nil {
		return nil, err
	}
	return newLink(conn, count, gone)
}

func newLink(conn *net.UnixConn, count int, gone func()) (*Link, error) {
	l := &Link{
		conn: conn, count: count, lines: newLines(conn), gone: gone, Progress: new(tree.Progress),
		processes: map[int]*process{}, answers: map[int]chan notice{},
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerPatience)); err != nil {
		return nil, fmt.Errorf("listen to the parent: %w", err)
	}
	for {
		var n notice
		if err := l.lines.next(&n); err != nil {
			return nil, errors.Join(fmt.Errorf("listen to the parent: %w", err), conn.Close())
		}
		if n.What == whatReady {
			return l, nil
		}
		l.take(n)
	}
}

// String names the service.
func (l *Link) String() string { return "parent" }

// Serve listens to the parent until ctx ends.
func (l *Link) Serve(ctx context.Context) error {
	for ctx.Err() == nil {
		l.Progress.Beat("listen")
		if err := l.conn.SetReadDeadline(time.Now().Add(readEvery)); err != nil {
			return l.lose(err)
		}
		var n notice
		err := l.lines.next(&n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return l.lose(err)
		default:
			l.take(n)
		}
	}
	return nil
}

// lose gives up all processes: nothing will be heard of them any more.
func (l *Link) lose(err error) error {
	l.mu.Lock()
	first := !l.lost
	l.lost = true
	l.mu.Unlock()
	if first { // before the processes end, which is a lie
		l.gone()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, p := range l.processes {
		p.end(agent.Exit{Code: -1, Text: ErrGone.Error()})
		delete(l.processes, n)
	}
	return fmt.Errorf("%w: %w: %w", tree.ErrDone, ErrGone, err)
}

// take takes in what the parent says.
func (l *Link) take(n notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n.What {
	case whatStarted:
		if p := l.processes[n.N]; p == nil || p.pid != n.PID {
			l.processes[n.N] = &process{link: l, n: n.N, pid: n.PID, exited: make(chan struct{})}
		}
		l.reply(n)
	case whatFailed:
		l.reply(n)
	case whatExited:
		if p := l.processes[n.N]; p != nil && p.pid == n.PID {
			p.end(agent.Exit{Code: n.Code, Text: n.Text})
			delete(l.processes, n.N)
		}
	}
}

// reply needs l.mu.
func (l *Link) reply(n notice) {
	if waiting := l.answers[n.N]; waiting != nil {
		delete(l.answers, n.N)
		waiting <- n
	}
}

// Running returns the process of a program that is running, else nil.
func (l *Link) Running(n int) agent.Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.processes[n]; p != nil {
		return p
	}
	return nil
}

// Start has the parent start a program. It waits for its answer.
func (l *Link) Start(n int) (agent.Process, error) {
	l.mu.Lock()
	if l.lost {
		l.mu.Unlock()
		return nil, ErrGone
	}
	answer := make(chan notice, 1) // so that take never waits
	l.answers[n] = answer
	err := l.order(doStart, n)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(answerPatience)
	defer timer.Stop()
	select {
	case got := <-answer:
		if got.What == whatFailed {
			return nil, errors.New(got.Text)
		}
		return l.started(got)
	case <-timer.C:
		return nil, errors.New("start collector: the parent process does not answer")
	}
}

// started is the process that the parent told of. It may have ended since.
func (l *Link) started(got notice) (agent.Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.processes[got.N]; p != nil && p.pid == got.PID {
		return p, nil
	}
	return nil, errors.New("start collector: it ended at once")
}

// order needs l.mu.
func (l *Link) order(do string, n int) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return fmt.Errorf("ask the parent: %w", err)
	}
	return send(l.conn, order{Do: do, N: n})
}

// process is a program that the parent runs.
type process struct {
	link   *Link
	n, pid int
	exited chan struct{} // closed by end, after exit is set
	exit   agent.Exit
}

func (p *process) end(e agent.Exit) {
	p.exit = e
	close(p.exited)
}

func (p *process) PID() int                { return p.pid }
func (p *process) Exited() <-chan struct{} { return p.exited }
func (p *process) Exit() agent.Exit        { return p.exit }

// Signal has the parent send it.
func (p *process) Signal(s syscall.Signal) error {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	if p.link.lost || p.link.processes[p.n] != p {
		return nil
	}
	switch s {
	case syscall.SIGTERM:
		return p.link.order(doTerm, p.n)
	case syscall.SIGKILL:
		return p.link.order(doKill, p.n)
	}
	return fmt.Errorf("signal collector: the parent sends no %s", s)
}
