package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/cmd/internal/timerslack"

	"github.com/alecthomas/kong"
	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/procmond/internal/sdnotify"
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/store"
	"daemoneye.dev/procmond/supervisor"
	"daemoneye.dev/procmond/supervisor/tree"
)

// runCommand is the daemon.
type runCommand struct {
	kong.Plugins // the flags of the settings table

	config *string
	values map[string][]string
}

// Help is what kong shows besides the flags.
func (runCommand) Help() string {
	return `Every flag is also an environment variable (--log-level: PROCMOND_LOG_LEVEL) and a key of the
configuration file (log_level). A flag wins over the environment, the environment over the file.

SIGTERM and SIGINT stop in order, another one half a second later stops at once; SIGHUP reads the file again.

With $DAEMONEYE_BROKER_SOCKET set to the socket of an agent's broker it waits for that agent's word before it
begins (see --begin-timeout), and delivers its events to it; without, it keeps them for itself.

Examples:

  procmond --interval 10 --database /tmp/p.db

  procmond run --exclude 'exe:/usr/bin/runc' --retention 7d,2GiB`
}

// daemonRun is one run of the daemon.
type daemonRun struct {
	invocation
	input    settings.Input
	values   settings.Values
	database string
	broker   string // socket of the agent's broker; empty in standalone mode
	// Two queues, so that neither waits for the other's reader.
	logQueue  *cli.LineQueue
	viewQueue *cli.LineQueue // nil if nobody watches
	logger    *logrus.Logger
	log       *logrus.Entry
	notifier  *sdnotify.Notifier
	// onTerminal says that a terminal showed the events when the run began.
	onTerminal bool
	last       *lastWords
	// Both are trimMemory's, which one goroutine at a time calls.
	trimmed bool
	ballast []byte // for the garbage collector
}

func (c *runCommand) run(ctx context.Context, p invocation) error {
	d := &daemonRun{
		invocation: p,
		input:      settings.Input{Flags: c.values, Environ: p.environ, ConfigFlag: c.config, DefaultFile: settings.DefaultFile},
	}
	values, faults, warnings := settings.Resolve(d.input)
	broker, err := brokerSocket(p.getenv(rpc.EnvSocket))
	if err != nil {
		faults = append(faults, settings.Fault{Origin: "environment " + rpc.EnvSocket, What: err.Error()})
	}
	if len(faults) > 0 {
		return faults
	}
	d.values, d.broker = values, broker
	d.limitGarbage()
	defer d.flush()
	if err := d.prepare(warnings); err != nil {
		return err
	}
	if err := timerslack.Allow(timerslack.Usual); err != nil {
		d.log.WithError(err).Debug("Sleeps stay more exact than they need be")
	}
	return d.serve(ctx)
}

// prepare makes the log and finds the database.
func (d *daemonRun) prepare(warnings []string) error {
	d.logger, d.logQueue = cli.NewLogger(d.stderr, d.values.LogFormat, d.values.LogLevel, d.colours(d.stderr))
	d.log = logrus.NewEntry(d.logger)
	d.notifier = sdnotify.New(d.log)
	if d.onTerminal = d.showsEvents(); d.onTerminal {
		d.viewQueue = cli.NewLineQueue(d.stdout, viewPieces, nil) // the view says itself what it skips
	}
	for _, warning := range warnings {
		d.log.Warn(warning)
	}
	database, err := d.daemonDatabase(&d.values)
	if err != nil {
		return err
	}
	d.database = database
	if err := makeParent(database); err != nil {
		return err
	}
	d.last = &lastWords{
		database: database, log: d.log, stderr: d.stderr, flush: d.flush,
		exit: func(code exitCode) { os.Exit(int(code)) },
	}
	if earlier := readFatal(database); earlier != nil {
		d.log.WithFields(logrus.Fields{"ended": earlier.Time, "earlier_pid": earlier.PID, "exit_code": int(earlier.Code)}).
			Warn("An earlier run ended itself: " + earlier.Reason)
	}
	return nil
}

// flush ends the queues; what is printed later is lost.
func (d *daemonRun) flush() {
	if d.viewQueue != nil {
		d.viewQueue.Close()
	}
	d.logQueue.Close()
}

// serve opens the store, runs the tree until a signal, and closes the store.
func (d *daemonRun) serve(ctx context.Context) error {
	signals := make(chan os.Signal, 8) // a burst of signals is not lost while one is handled
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// opened is where signals find the supervisor once there is one.
	opened := make(chan *supervisor.Supervisor, 1) // sent once, below
	done := make(chan error, 1)                    // sent once: the end of the run
	go func() { done <- d.supervise(ctx, opened) }()
	return d.attend(stop, signals, opened, done)
}

// secondSignalAfter is how long after the first signal another one means that
// somebody does not want to wait.
const secondSignalAfter = 500 * time.Millisecond

// attend handles signals until the run has ended.
func (d *daemonRun) attend(stop context.CancelFunc, signals <-chan os.Signal, opened <-chan *supervisor.Supervisor, done <-chan error) error {
	var s *supervisor.Supervisor
	var stopping time.Time // when a signal first asked for the end
	for {
		select {
		case s = <-opened:
		case err := <-done:
			return err
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP && !d.hungUp():
				d.reload(s)
			case !stopping.IsZero() && time.Since(stopping) < secondSignalAfter:
				// timeout(1) and others send one to the process and one to its group.
			case !stopping.IsZero():
				d.log.Warn("Stops at once: a second signal came. The next start recovers what this one leaves")
				return exitSilently(exitForced)
			default:
				stopping = time.Now()
				stop()
				d.log.WithField("signal", sig.String()).Info("Stops in order")
			}
		}
	}
}

// slowOpen is when is said that the database takes long to open: a million events are
// there in less than 0.1 s.
const slowOpen = 2 * time.Second

// supervise is the life of the store and the tree.
func (d *daemonRun) supervise(ctx context.Context, opened chan<- *supervisor.Supervisor) error {
	slow := time.AfterFunc(slowOpen, func() {
		d.log.WithField("database", d.database).Info("Opening the database takes long: the disk is slow, or another process has it")
		d.notify(supervisor.Notice{Status: "opening the database"})
	})
	defer slow.Stop()
	st, err := store.Open(ctx, store.Config{
		Dir:            d.database,
		Retention:      store.Retention{Age: d.values.RetentionAge, Bytes: d.values.RetentionBytes},
		LockWait:       store.DefaultLockWait,
		Owed:           d.broker != "",
		MaxBacklog:     d.values.MaxBacklog,
		DeliverFromNow: d.values.DeliverFrom == settings.DeliverNow,
		Fatal:          d.last.storage,
		Log:            d.log,
	})
	slow.Stop()
	if err != nil {
		return openError(ctx, err)
	}
	runErr := d.runTree(ctx, st, opened)
	if err := st.Close(runErr == nil); err != nil {
		return &exitError{code: exitStorage, err: errors.Join(runErr, fmt.Errorf("close store: %w", err))}
	}
	if runErr != nil {
		return runErr
	}
	d.log.Info("Stopped")
	return forgetFatal(d.database)
}

// openError gives an error of opening the store its exit code. A stop that was
// asked for meanwhile is not an error.
func openError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return asStorage(err)
}

func (d *daemonRun) runTree(ctx context.Context, st *store.Store, opened chan<- *supervisor.Supervisor) error {
	cfg, err := d.supervisorConfig(st)
	if err != nil {
		return err
	}
	s, err := supervisor.New(cfg)
	if err != nil {
		return err
	}
	opened <- s
	d.log.WithFields(logrus.Fields{"database": d.database, "version": cfg.Version, "pid": os.Getpid(), "mode": d.mode()}).Info("Starts")
	return s.Run(ctx)
}

// notify passes the supervisor's news on.
func (d *daemonRun) notify(n supervisor.Notice) {
	if n.Status != "" {
		d.notifier.Status(n.Status)
	}
	if n.Ready {
		d.notifier.Ready()
	}
	if n.Stopping {
		d.notifier.Stopping()
	}
	if n.Alive {
		d.notifier.Alive()
	}
}

// hungUp reports whether the terminal that showed the events is gone: its end is
// a SIGHUP too, and means stop.
func (d *daemonRun) hungUp() bool { return d.onTerminal && !cli.IsTerminal(d.stdout) }

// showsEvents reports whether a person watches standard output.
func (d *daemonRun) showsEvents() bool { return cli.IsTerminal(d.stdout) }

func (d *daemonRun) services(st *store.Store) []tree.Service {
	if d.viewQueue == nil {
		return nil
	}
	lines := eventLines{paint: cli.Painter(d.colours(d.stdout)), width: cli.Width(d.stdout)}
	return []tree.Service{newLiveView(st, lines, d.viewQueue.Patient)}
}

// logFaults puts each fault into the log.
func (d *daemonRun) logFaults(faults settings.Faults) {
	for _, line := range faults.Lines() {
		d.log.WithField("fault", line).Error("The configuration is wrong; the running one stays")
	}
}

// takeOver says what of a reload has to wait.
func (d *daemonRun) takeOver(next settings.Values) {
	if restart := settings.RestartRequired(&d.values, &next); len(restart) > 0 {
		d.log.WithField("settings", strings.Join(restart, ", ")).Warn("These settings changed and wait for a restart")
	}
}
