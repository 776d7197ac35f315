package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// fatalEnv makes the test binary write to a store whose file system fails as its
// value says, until Fatal ends the process: what a fatal error leaves behind can
// not be undone in a process that goes on.
const fatalEnv = "PROCMOND_TEST_FATAL"

const fatalExit = 74

type fatalCase struct {
	part   string // of the path
	kind   errorfs.OpKind
	err    error  // nil blocks for ever
	reason string // part of what Fatal is told
}

// deadline is short only where it is what is tested.
func (c fatalCase) deadline() time.Duration {
	if c.err == nil {
		return 100 * time.Millisecond
	}
	return time.Minute
}

var fatalCases = map[string]fatalCase{
	"log write":                   {".log", errorfs.OpFileWrite, syscall.EIO, "input/output error"},
	"log sync":                    {".log", errorfs.OpFileSyncData, syscall.EIO, "input/output error"},
	"log rotation":                {".log", errorfs.OpRename, syscall.EIO, "input/output error"},
	"log reuse":                   {".log", errorfs.OpOpen, syscall.EIO, "input/output error"},
	"manifest write":              {"MANIFEST", errorfs.OpFileWrite, syscall.EIO, "input/output error"},
	"manifest sync":               {"MANIFEST", errorfs.OpFileSync, syscall.EIO, "input/output error"},
	"manifest sync without space": {"MANIFEST", errorfs.OpFileSync, syscall.ENOSPC, "sync db/MANIFEST"},
	"log sync blocks":             {".log", errorfs.OpFileSyncData, nil, "blocked for"},
}

func failForEver(name string) {
	fc := fatalCases[name]
	on := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != fc.kind || !strings.Contains(op.Path, fc.part) {
			return nil
		}
		if fc.err == nil {
			select {}
		}
		return fc.err
	})}
	c := Config{
		Dir: "db", FS: injectFaults(vfs.NewMem(), on), memTable: 64 << 10, CommitDeadline: fc.deadline(),
		Fatal: func(err error) {
			_, _ = fmt.Fprintln(os.Stdout, err)
			os.Exit(fatalExit) //nolint:forbidigo // this is a process of its own
		},
	}
	s, err := Open(context.Background(), c)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stdout, err)
		return
	}
	for n := uint64(1); n < 1000; n++ {
		if n == 100 {
			on.On()
		}
		b := testBatch(testTime, n)
		b.Put[0].CWD = strings.Repeat("x", 4000)
		if err := s.Append(context.Background(), b); err != nil {
			_, _ = fmt.Fprintln(os.Stdout, err)
			return
		}
	}
	_, _ = fmt.Fprintln(os.Stdout, "never failed")
}

func TestFatal(t *testing.T) {
	for name, fc := range fatalCases {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), fatalEnv+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != fatalExit {
				t.Fatalf("ended with %v:\n%s", err, out)
			}
			if text := strings.TrimSpace(string(out)); !strings.Contains(text, fc.reason) || strings.Count(text, "\n") > 0 {
				t.Errorf("reason: %q", text)
			}
		})
	}
}
