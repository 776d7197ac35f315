package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"

	"daemoneye.dev/procmond/bus/rpc"
)

// Command is a program that is a collector.
type Command struct {
	ID   string
	Path string
	Args []string
}

// String is the command as a person would type it.
func (c Command) String() string { return strings.Join(append([]string{c.Path}, c.Args...), " ") }

// Starter starts programs by their place in the list that it was made with, and
// never by a path.
type Starter interface {
	// Start starts a program, or returns its process if it is running already.
	Start(n int) (Process, error)
	// Running returns the process of a program that is running, else nil.
	Running(n int) Process
}

// Process is a program that was started. Its methods are safe for concurrent use and
// do not block.
type Process interface {
	PID() int
	// Signal sends it a signal; that it has ended is no error.
	Signal(s syscall.Signal) error
	// Exited is closed when the process has ended and was reaped.
	Exited() <-chan struct{}
	// Exit is how it ended; only after Exited.
	Exit() Exit
}

// Exit is how a process ended.
type Exit struct {
	Code int    // of the exit; -1 if there was none
	Text string // in words: "exit status 73", "signal: killed"
}

// notInherited are variables that speak of the agent's own process, to a service
// manager.
var notInherited = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "MAINPID"}

// Programs starts programs as children of this process. Each is in a process group
// of its own, so that a terminal's Ctrl-C reaches only the agent, which then stops
// them in order. They write where this process writes, with no pipe between: they
// can go on when it is killed.
type Programs struct {
	commands []Command
	environ  []string

	mu      sync.Mutex     // guards running
	running []*programExit // by the place of the command; nil if it was never started
}

// NewPrograms returns a starter. The programs inherit environ, and learn from it
// where the broker's socket is and which id they have.
func NewPrograms(commands []Command, environ []string, socket string) *Programs {
	environ = slices.DeleteFunc(slices.Clone(environ), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(notInherited, name)
	})
	return &Programs{
		commands: slices.Clone(commands), environ: append(environ, rpc.EnvSocket+"="+socket),
		running: make([]*programExit, len(commands)),
	}
}

// Start starts a program, or returns its process if it is running already.
func (p *Programs) Start(n int) (Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n >= len(p.commands) {
		return nil, fmt.Errorf("start program %d: there are %d", n, len(p.commands))
	}
	if e := p.running[n]; e != nil && !e.over() {
		return e, nil
	}
	c := &p.commands[n]
	//nolint:gosec,noctx // the operator's own command line; it must outlive every context
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(slices.Clone(p.environ), "PROCMOND_ID="+c.ID)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start collector %s: %w", c.ID, err)
	}
	e := &programExit{cmd: cmd, exited: make(chan struct{})}
	p.running[n] = e
	// It ends with the process, which outlives whoever asked for it.
	go e.wait()
	return e, nil
}

// Running returns the process of a program that is running, else nil.
func (p *Programs) Running(n int) Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n >= len(p.running) || p.running[n] == nil || p.running[n].over() {
		return nil
	}
	return p.running[n]
}

// programExit is a process and its end.
type programExit struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed by wait, after exit is set
	exit   Exit
}

func (e *programExit) wait() {
	err := e.cmd.Wait()
	e.exit = Exit{Code: e.cmd.ProcessState.ExitCode(), Text: e.cmd.ProcessState.String()}
	if err != nil && e.cmd.ProcessState == nil {
		e.exit = Exit{Code: -1, Text: err.Error()}
	}
	close(e.exited)
}

func (e *programExit) over() bool {
	select {
	case <-e.exited:
		return true
	default:
		return false
	}
}

func (e *programExit) PID() int                { return e.cmd.Process.Pid }
func (e *programExit) Exited() <-chan struct{} { return e.exited }
func (e *programExit) Exit() Exit              { return e.exit }

func (e *programExit) Signal(s syscall.Signal) error {
	if err := e.cmd.Process.Signal(s); err != nil && !e.over() && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal collector: %w", err)
	}
	return nil
}
