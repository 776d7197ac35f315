package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be the program, and the collector that it runs.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"daemoneye-agent": main,
		"fake-procmond":   collectorMain,
	})
}

// builtPrograms is the directory of both programs once a test has built them.
var builtPrograms string

// leakChecked fails the tests that leave goroutines behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if builtPrograms != "" {
		_ = os.RemoveAll(builtPrograms)
	}
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestScripts runs the real program as its users do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "NO_COLOR"} {
				env.Setenv(name, "")
			}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv(envPrefix+"SOCKET", env.WorkDir+"/none/broker.sock")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exitcode": exitCodeCommand},
	})
}

// exitCodeCommand is `exitcode N daemoneye-agent ARGS`: the command must end with N.
func exitCodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N command args...")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v: %v", args[1:], err)
	}
	if want := args[0]; fmt.Sprint(got) != want {
		ts.Fatalf("%v ended with %d, want %s", args[1:], got, want)
	}
}
