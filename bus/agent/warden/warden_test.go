package warden

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/supervisor/tree"
)

const patience = 10 * time.Second

// TestMain is also the program that the tests run, as agent or as collector.
func TestMain(m *testing.M) {
	switch role := os.Getenv("WARDEN_TEST_ROLE"); role {
	case "":
		goleak.VerifyTestMain(m)
	case "collector":
		os.Exit(collectorMain()) //nolint:forbidigo // it is a program of its own here
	default:
		os.Exit(agentMain(role)) //nolint:forbidigo // it is a program of its own here
	}
}

func collectorMain() int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	appendLine("collector " + strconv.Itoa(os.Getpid()))
	<-signals
	return 0
}

// appendLine tells the test what happens.
func appendLine(line string) {
	f, err := os.OpenFile(os.Getenv("WARDEN_TEST_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		panic(err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		panic(err)
	}
	_ = f.Close()
}

// agentMain is an unprivileged agent: it takes what runs, or starts it, and then does
// as its role says.
func agentMain(role string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	gone := make(chan struct{})
	link, err := Open(ChildFD, 1, func() { close(gone) })
	if err != nil {
		appendLine("no parent: " + err.Error())
		return 1
	}
	t, _ := tree.New(tree.Config{})
	t.Add("test", link, tree.Options{Progress: link.Progress})
	t.Start(context.Background())
	process := link.Running(0)
	word := "found "
	if process == nil {
		word = "started "
		if process, err = link.Start(0); err != nil {
			appendLine("failed: " + err.Error())
			return 78
		}
	}
	appendLine(word + strconv.Itoa(process.PID()) + " uid " + strconv.Itoa(os.Getuid()) + " " + capabilities())
	switch {
	case role == "crash" && word == "started ":
		return 1
	case role == "hostile":
		_, _ = link.conn.Write([]byte(`{"do":"exec","n":0,"path":"/bin/sh"}` + "\n"))
	case role == "reach":
		_, _ = link.conn.Write([]byte(`{"do":"start","n":7}` + "\n"))
	case role == "flood":
		_, _ = link.conn.Write([]byte(strings.Repeat("x", 2*maxLine)))
	case role == "kill":
		_ = process.Signal(syscall.SIGUSR1) // is refused
		_ = process.Signal(syscall.SIGKILL)
		<-process.Exited()
		appendLine("exit " + process.Exit().Text)
		return 0
	}
	select {
	case <-signals:
		if role == "leave" {
			return 0
		}
		_ = process.Signal(syscall.SIGTERM)
		<-process.Exited()
		appendLine("exit " + process.Exit().Text)
		return 0
	case <-gone:
		appendLine("gone")
		return 64 // final, so that the test ends
	}
}

func capabilities() string {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}

// parentRun is a parent under test.
type parentRun struct {
	t       *testing.T
	log     string
	signals chan os.Signal
	done    chan int
	starter *agent.Programs
}

func startParent(t *testing.T, role string, credential *syscall.Credential) *parentRun {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{log, dir, filepath.Dir(dir)} { // another user writes there
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	self := selfPath(t)
	environ := append(os.Environ(), "WARDEN_TEST_LOG="+log, "GORACE=atexit_sleep_ms=0") // no second of waiting at each end
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	r := &parentRun{
		t: t, log: log, signals: make(chan os.Signal, 4), done: make(chan int, 1),
		starter: agent.NewPrograms([]agent.Command{{ID: "p", Path: self}}, append(environ, "WARDEN_TEST_ROLE=collector"), "/s"),
	}
	go func() {
		code, err := Run(Config{
			Path: self, Argv: []string{"agent"}, Environ: append(environ, "WARDEN_TEST_ROLE="+role), Credential: credential,
			Programs: r.starter, Count: 1, Signals: r.signals, Stop: patience, Log: logrus.NewEntry(quiet),
			Final: func(code int) bool { return code == 64 || code == 78 }, Forced: func(code int) bool { return code == 130 },
		})
		if err != nil {
			t.Error(err)
		}
		r.done <- code
	}()
	return r
}

// lines are what was told so far.
func (r *parentRun) lines() []string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(text)), " ", "_"))
}

func (r *parentRun) told(start string) string {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, line := range r.lines() {
			if strings.HasPrefix(line, start) {
				return line
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("%q is not told, but %q", start, r.lines())
		}
	}
}

func (r *parentRun) end(want int) {
	r.t.Helper()
	select {
	case code := <-r.done:
		if code != want {
			r.t.Errorf("ended with %d, want %d", code, want)
		}
	case <-time.After(patience):
		r.t.Fatal("the parent does not end")
	}
	if r.starter.Running(0) != nil {
		r.t.Error("a collector is left")
	}
}

func TestStartAndStop(t *testing.T) {
	r := startParent(t, "plain", nil)
	r.told("started_")
	r.told("collector_")
	r.signals <- syscall.SIGTERM
	r.told("exit_exit_status_0")
	r.end(0)
}

func TestAgentIsStartedAgainAndCollectorsLiveOn(t *testing.T) {
	r := startParent(t, "crash", nil)
	r.told("collector_")
	started := strings.Split(r.told("started_"), "_")[1]
	found := strings.Split(r.told("found_"), "_")[1]
	if started != found {
		t.Errorf("started %s, found %s", started, found)
	}
	r.signals <- syscall.SIGTERM
	r.end(0)
}

func TestKill(t *testing.T) {
	r := startParent(t, "kill", nil)
	r.told("exit_signal:_killed")
	r.end(0)
}

// Collectors that the child leaves are stopped by the parent.
func TestCollectorsAreNotLeft(t *testing.T) {
	r := startParent(t, "leave", nil)
	r.told("collector_")
	r.signals <- syscall.SIGTERM
	r.end(0)
}

func TestHostileChildIsCutOff(t *testing.T) {
	for _, role := range []string{"hostile", "reach", "flood"} {
		t.Run(role, func(t *testing.T) {
			r := startParent(t, role, nil)
			r.told("gone")
			r.end(64)
		})
	}
}

func TestUnprivilegedChild(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	r := startParent(t, "plain", &syscall.Credential{Uid: 65534, Gid: 65534})
	line := r.told("started_")
	if !strings.HasSuffix(line, "_uid_65534_0000000000000000") && !strings.HasSuffix(line, "_uid_65534_unknown") {
		t.Errorf("the child is %s", line)
	}
	pid := strings.Split(line, "_")[1]
	if info, err := os.Stat("/proc/" + pid); err == nil && info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error("the collector has lost its privileges")
	}
	r.told("collector_")
	r.signals <- syscall.SIGTERM
	r.end(0)
}

func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	ours, file, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := connOf(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
	return ours, theirs
}

func TestLinkLosesItsParent(t *testing.T) {
	ours, theirs := pair(t)
	for _, n := range []notice{{What: whatStarted, PID: 42}, {What: whatReady}} {
		if err := send(ours, n); err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	link, err := newLink(theirs, 1, func() { calls++ })
	if err != nil {
		t.Fatal(err)
	}
	process := link.Running(0)
	if process == nil || process.PID() != 42 {
		t.Fatalf("%v", process)
	}
	_ = ours.Close()
	for range 2 {
		if err := link.Serve(context.Background()); !errors.Is(err, ErrGone) || !errors.Is(err, tree.ErrDone) {
			t.Error(err)
		}
	}
	<-process.Exited()
	if calls != 1 || process.Exit().Code != -1 || process.Signal(syscall.SIGTERM) != nil || link.Running(0) != nil {
		t.Errorf("%d calls, %+v", calls, process.Exit())
	}
	if _, err := link.Start(0); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

// A line that comes in pieces, around a deadline, is one line.
func TestLinesInPieces(t *testing.T) {
	ours, theirs := pair(t)
	l := newLines(theirs)
	text, _ := json.Marshal(order{Do: doStart, N: 3})
	if _, err := ours.Write(text[:5]); err != nil {
		t.Fatal(err)
	}
	var o order
	if err := theirs.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := l.next(&o); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := ours.Write(append(text[5:], '\n')); err != nil {
		t.Fatal(err)
	}
	if err := theirs.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := l.next(&o); err != nil || o.Do != doStart || o.N != 3 {
		t.Errorf("%+v %v", o, err)
	}
}
