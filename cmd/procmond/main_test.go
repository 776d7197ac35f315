package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// update makes the golden files and generated documents again.
var update = flag.Bool("update", false, "write golden files and generated documents")

// TestMain lets the test binary be the program: whoever starts it under the name
// procmond runs the real main.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"procmond":         main,
		"procmond-sleeper": sleep,
		"procmond-hangs":   hang,
	})
}

// leakChecked fails the tests that leave goroutines behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
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
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"STATE_DIRECTORY", "XDG_STATE_HOME", "NOTIFY_SOCKET", "DAEMONEYE_BROKER_SOCKET", "NO_COLOR"} {
				env.Setenv(name, "")
			}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PROCMOND_CONFIG", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exitcode": exitCodeCommand},
	})
}

// exitCodeCommand is `exitcode N procmond ARGS`: the command must end with N.
func exitCodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N command args...")
	}
	want := args[0]
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = exitOf(err)
	}
	if got != want {
		ts.Fatalf("%v ended with %s, want %s", args[1:], got, want)
	}
}

// checkGenerated compares a document with what it is made from.
func checkGenerated(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", name)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/%s is not current: run `just generate`", name)
	}
}
