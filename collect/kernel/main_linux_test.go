//go:build amd64 || arm64

package kernel

import (
	"os"
	"testing"

	"daemoneye.dev/procmond/collect/internal/zoo"
)

// roleVariable makes the test binary, started by a test, play a process in place of
// running tests.
const roleVariable = "KERNEL_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role)) //nolint:forbidigo // a child is no test and ends as its role says
	}
	zoo.Main(m, nil)
}
