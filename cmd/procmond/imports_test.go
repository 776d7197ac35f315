package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "daemoneye.dev/procmond/"

// levels is the order of the packages: a package may import those of lower
// levels, and those of its own level only below its own folder's parent.
func level(pkg string) int {
	switch {
	case pkg == "fsm", pkg == "supervisor/tree", pkg == "bus/unixsock", strings.HasPrefix(pkg, "collect/event"):
		return 0
	case pkg == "bus/rpc": // it names epochs and kinds of events
		return 1
	case pkg == "collect", strings.HasPrefix(pkg, "collect/"), pkg == "store", pkg == "bus":
		return 2
	case pkg == "supervisor", strings.HasPrefix(pkg, "supervisor/"), strings.HasPrefix(pkg, "bus/"):
		return 3
	case strings.HasPrefix(pkg, "cmd/"):
		return 4
	}
	return -1
}

// root is the first folder of a package's path.
func root(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

// owners maps a third-party library to the one folder that may import it.
var owners = map[string]string{
	"github.com/looplab/fsm":         "fsm",
	"github.com/thejerf/suture":      "supervisor/tree",
	"github.com/cockroachdb/pebble":  "store",
	"github.com/shirou/gopsutil":     "collect/portable",
	"google.golang.org/protobuf":     "collect/event",
	"github.com/prometheus/":         "supervisor/control",
	"github.com/alecthomas/kong":     "cmd",
	"github.com/coreos/go-systemd":   "cmd",
	"gopkg.in/yaml.v3":               "cmd/procmond",
	"github.com/nats-io/nats-server": "bus/broker",
	"github.com/nats-io/nats.go":     "bus",
	"github.com/cilium/ebpf":         "collect/kernel",
	"github.com/synadia-io/orbit.go": "bus",
}

// systems are those that have files of their own.
var systems = []string{"linux", "darwin", "freebsd"}

func goList(t *testing.T, system string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	var notes strings.Builder // what is downloaded, too
	cmd.Stderr = &notes
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, &notes)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestImportLevels holds the graph of packages to its levels, and each
// third-party library to the one package that owns it.
func TestImportLevels(t *testing.T) {
	for _, system := range systems {
		t.Run(system, func(t *testing.T) { checkImports(t, system) })
	}
}

func checkImports(t *testing.T, system string) {
	t.Helper()
	lines := goList(t, system, "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...")
	if len(lines) < 8 {
		t.Fatalf("go list sees %d packages only: %v", len(lines), lines)
	}
	for _, line := range lines {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		if level(pkg) < 0 {
			t.Errorf("package %s has no level: where does it belong?", pkg)
		}
		for _, imported := range fields[1:] {
			if ours, ok := strings.CutPrefix(imported, module); ok {
				checkLevel(t, pkg, ours)
			} else {
				checkOwner(t, pkg, imported)
			}
		}
	}
}

func checkLevel(t *testing.T, pkg, imported string) {
	t.Helper()
	switch {
	case level(imported) > level(pkg):
		t.Errorf("%s (level %d) imports %s (level %d)", pkg, level(pkg), imported, level(imported))
	case level(imported) == level(pkg) && root(imported) != root(pkg):
		t.Errorf("%s imports its neighbour %s", pkg, imported)
	}
}

func checkOwner(t *testing.T, pkg, imported string) {
	t.Helper()
	for library, owner := range owners {
		if strings.HasPrefix(imported, library) && pkg != owner && !strings.HasPrefix(pkg, owner+"/") {
			t.Errorf("%s imports %s, which belongs to %s", pkg, imported, owner)
		}
	}
}

// TestLinked looks at what the program really links.
func TestLinked(t *testing.T) {
	for program, banned := range map[string][]string{
		"procmond":        {"github.com/nats-io/nats-server", "net/http/pprof", "testing"},
		"daemoneye-agent": {"github.com/cockroachdb/pebble", "testing"},
	} {
		for _, system := range systems {
			for _, dep := range goList(t, system, "-deps", module+"cmd/"+program) {
				for _, b := range banned {
					if dep == b || strings.HasPrefix(dep, b+"/") {
						t.Errorf("%s links %s on %s", program, dep, system)
					}
				}
			}
		}
	}
}
