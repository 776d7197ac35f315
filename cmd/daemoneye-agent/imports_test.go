package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestLinked looks at what the program really links: never a collector's store.
func TestLinked(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		cmd := exec.Command("go", "list", "-deps", ".")
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			for _, banned := range []string{"github.com/cockroachdb/pebble", "daemoneye.dev/procmond/store", "daemoneye.dev/procmond/collect/portable", "daemoneye.dev/procmond/collect/procfs", "testing"} {
				if dep == banned || strings.HasPrefix(dep, banned+"/") {
					t.Errorf("the agent links %s on %s", dep, system)
				}
			}
		}
	}
}
