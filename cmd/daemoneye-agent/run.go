package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/bus/agent/warden"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/cmd/internal/timerslack"
	"daemoneye.dev/procmond/supervisor/tree"
)

// runCommand is the agent.
type runCommand struct {
	kong.Plugins // the flags of the settings table

	values map[string][]string
}

// Help is what kong shows besides the flags.
func (runCommand) Help() string {
	return `Every flag is also an environment variable (--ready-timeout: DAEMONEYE_AGENT_READY_TIMEOUT), where
values of repeatable ones are divided by commas. A flag wins over the environment.

SIGTERM and SIGINT stop the collectors and then the broker, in order; another one half a second later stops at once.

Examples:

  daemoneye-agent run --collector /usr/bin/procmond

  daemoneye-agent run --collector procmond --collector-arg=--interval=10 --user daemoneye

  daemoneye-agent run --expect web-1 --group monitoring`
}

func (c *runCommand) run(ctx context.Context, p invocation) error {
	o, faults := resolve(c.values, p.environ)
	if len(faults) > 0 {
		return faults
	}
	logger, queue := cli.NewLogger(p.stderr, o.logFormat, o.logLevel, p.colours(p.stderr))
	defer queue.Close()
	r := &agentRun{invocation: p, options: o, log: logrus.NewEntry(logger), queue: queue}
	r.limitGarbage()
	if err := timerslack.Allow(timerslack.Usual); err != nil {
		r.log.WithError(err).Debug("Sleeps stay more exact than they need be")
	}
	if err := r.findPlaces(); err != nil {
		return err
	}
	if o.user != "" && p.getenv(parentVariable) == "" {
		return r.keepPrivileges()
	}
	return r.serve(ctx)
}

// gcPercent is what may be garbage of the agent's memory. What the broker holds is small,
// what it throws away while events come is not: with Go's 100 an agent that had seen a
// storm of 130 starts and stops a second kept 79 MB, with 25 44 MB, for a fifth more of
// its processor time (docs/performance.md). The environment's GOGC wins.
const gcPercent = 25

func (r *agentRun) limitGarbage() {
	if r.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// agentRun is one run of the agent.
type agentRun struct {
	invocation
	*options
	log    *logrus.Entry
	queue  *cli.LineQueue
	gid    int // of --group, or noGroup
	parent *warden.Link
	agent  *agent.Agent // set before the parent can be lost
	// survivors says that an earlier agent did not end in order.
	survivors bool
}

// findPlaces settles where socket and stream are.
func (r *agentRun) findPlaces() error {
	var socketErr, storeErr, groupErr error
	r.socket, socketErr = r.agentSocket(r.options)
	r.store, storeErr = r.agentStore(r.options)
	if r.gid, groupErr = groupID(r.group); groupErr != nil {
		groupErr = &exitError{code: exitConfiguration, err: groupErr}
	}
	return errors.Join(socketErr, storeErr, groupErr)
}

// serve runs the agent until a signal.
func (r *agentRun) serve(ctx context.Context) error {
	signals := make(chan os.Signal, 8) // a burst of signals is not lost while one is handled
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1) // sent once: the end of the run
	go func() { done <- r.supervise(ctx, stop) }()
	return r.attend(func() { stop(nil) }, signals, done)
}

// secondSignalAfter is how long after the first signal another one means that
// somebody does not want to wait.
const secondSignalAfter = 500 * time.Millisecond

// attend handles signals until the run has ended.
func (r *agentRun) attend(stop func(), signals <-chan os.Signal, done <-chan error) error {
	var stopping time.Time // when a signal first asked for the end
	onTerminal := cli.IsTerminal(r.stderr)
	for {
		select {
		case err := <-done:
			return err
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP && (!onTerminal || cli.IsTerminal(r.stderr)):
				r.log.Info("SIGHUP changes nothing: there is no configuration file to read again")
			case !stopping.IsZero() && time.Since(stopping) < secondSignalAfter:
				// timeout(1) and others send one to the process and one to its group.
			case !stopping.IsZero():
				r.log.Warn("Stops at once: a second signal came. Collectors stop in order by themselves, or go on for the next agent")
				return exitSilently(exitForced)
			default:
				stopping = time.Now()
				stop()
				r.log.WithField("signal", sig.String()).Info("Stops in order: first the collectors, then the broker")
			}
		}
	}
}

// supervise is the life of the broker and the agent.
func (r *agentRun) supervise(ctx context.Context, stop context.CancelCauseFunc) error {
	lock, err := r.prepare()
	if err != nil {
		return err
	}
	defer lock.release()
	r.survivors = lock.left
	base, open, cfg, err := r.parts(stop)
	if err != nil {
		return err
	}
	if r.agent, err = agent.New(cfg); err != nil {
		return err
	}
	r.log.WithFields(logrus.Fields{"socket": r.socket, "store": r.store, "version": cfg.Version, "pid": os.Getpid()}).Info("Starts")
	ready := &readiness{open: open, tell: func() { r.notify(daemon.SdNotifyReady) }, progress: new(tree.Progress)}
	watchers := []agent.Service{{Group: "agent", Service: ready, Options: tree.Options{Progress: ready.progress}}}
	if cli.IsTerminal(r.stderr) {
		t := &traffic{facts: cfg.Broker, log: r.log, progress: new(tree.Progress)}
		watchers = append(watchers, agent.Service{Group: "agent", Service: t, Options: tree.Options{Progress: t.progress}})
	}
	context.AfterFunc(ctx, func() { r.notify(daemon.SdNotifyStopping) })
	if err := r.agent.Run(ctx, base, watchers...); err != nil {
		return &exitError{code: exitWatchdog, err: err}
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	r.log.Info("Stopped")
	return lock.forget()
}

// notify tells a service manager, if there is one.
func (r *agentRun) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		r.log.WithError(err).Debug("The service manager can not be told")
	}
}

// prepare makes directories, and secrets once the place is ours alone.
func (r *agentRun) prepare() (lock *pidFile, err error) {
	if err := r.makeSocketDir(); err != nil {
		return nil, err
	}
	if err := r.makeDir(r.store, 0o700); err != nil {
		return nil, err
	}
	if lock, err = lockPIDFile(r.socket + ".pid"); err != nil {
		return nil, err
	}
	for _, id := range append(r.ids(), rpc.UserOperator) {
		if err := enroll(r.socket, id, noGroup, false); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(storageError(err), lock.forget())
		}
	}
	return lock, nil
}

// makeSocketDir makes the directory of the socket, if it is not there, and lets in who
// may reach the socket.
func (r *agentRun) makeSocketDir() error {
	dir := filepath.Dir(r.socket)
	if _, err := os.Lstat(dir); err == nil || dir == r.privateDir() {
		return r.makeDir(dir, 0o700)
	}
	if err := r.makeDir(dir, r.socketDirMode()); err != nil || r.gid == noGroup {
		return err
	}
	if err := os.Lchown(dir, -1, r.gid); err != nil {
		return storageError(fmt.Errorf("give directory of the socket to its group: %w", err))
	}
	return nil
}

// socketDirMode lets through who may connect, and nobody else look.
func (r *agentRun) socketDirMode() fs.FileMode {
	switch {
	case len(r.allowUIDs) > 0:
		return 0o751
	case r.gid != noGroup:
		return 0o750
	}
	return 0o700
}

// ids are those that need a secret: of whom the agent starts or expects, else the
// default one.
func (r *agentRun) ids() []string {
	ids := slices.Clone(r.expect)
	for _, c := range r.collectors {
		ids = append(ids, c.ID)
	}
	if len(ids) == 0 {
		ids = []string{rpc.DefaultID}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// parts are the services below the agent, whether its clients find it, and the agent's
// configuration.
func (r *agentRun) parts(stop context.CancelCauseFunc) (base []agent.Service, open func() bool, cfg agent.Config, err error) {
	timing := agent.DefaultTiming()
	timing.Ready, timing.Heartbeat = r.ready, r.heartbeat
	v, _ := readBuild()
	cfg = agent.Config{
		Survivors: r.survivors, Expected: r.expect, Children: r.collectors, Version: v, Timing: timing, Log: r.log, Abort: r.abort,
	}
	if cfg.Starter, err = r.starter(stop); err != nil {
		return nil, nil, cfg, err
	}
	if r.parent != nil {
		base = append(base, agent.Service{Group: "parent", Service: r.parent, Options: tree.Options{Progress: r.parent.Progress}})
	}
	b, services, err := r.openBroker(stop)
	if err != nil {
		return nil, nil, cfg, err
	}
	cfg.Broker = b
	return append(base, services...), b.Open, cfg, nil
}

// starter is this process, or the parent that has kept its privileges.
func (r *agentRun) starter(stop context.CancelCauseFunc) (agent.Starter, error) {
	if r.getenv(parentVariable) == "" {
		return agent.NewPrograms(r.collectors, r.environ, r.socket), nil
	}
	fd, err := strconv.ParseUint(r.getenv(parentVariable), 10, 16)
	if err != nil {
		return nil, &exitError{code: exitConfiguration, err: fmt.Errorf("environment %s: this variable is not for people", parentVariable)}
	}
	r.parent, err = warden.Open(uintptr(fd), len(r.collectors), func() {
		r.log.Error("The parent process is gone: the agent stops, and leaves its collectors alone")
		r.agent.Abandon()
		stop(warden.ErrGone)
	})
	if err != nil {
		return nil, err
	}
	return r.parent, nil
}

// abort ends the process because a service hangs. Collectors go on.
func (r *agentRun) abort(reason string) {
	r.log.WithField("exit_code", int(exitWatchdog)).Error("Ends itself: " + reason)
	r.queue.Close()
	buf := make([]byte, 1<<20)
	_, _ = r.stderr.Write(buf[:runtime.Stack(buf, true)]) // nowhere else to say it
	os.Exit(int(exitWatchdog))
}

// trafficEvery is the time between two lines about the stream.
const trafficEvery = 10 * time.Second

// traffic is the service that shows on a terminal what the stream takes.
type traffic struct {
	facts    agent.Facts
	log      *logrus.Entry
	progress *tree.Progress
}

func (*traffic) String() string { return "traffic" }

// Serve logs a line now and then, while there is something new.
func (t *traffic) Serve(ctx context.Context) error {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	told := time.Now()
	last := t.facts.Report().LastSeq
	for {
		t.progress.Beat("watch")
		select {
		case <-beat.C:
		case <-ctx.Done():
			return nil
		}
		elapsed := time.Since(told)
		if elapsed < trafficEvery {
			continue
		}
		s := t.facts.Report()
		if s.LastSeq > last {
			t.log.WithField("kept", strings.ReplaceAll(cli.Bytes(s.Bytes), " ", "")).Infof("The stream took %d events, %.1f/s", s.LastSeq-last, float64(s.LastSeq-last)/elapsed.Seconds())
		}
		told, last = time.Now(), s.LastSeq
	}
}
