package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// metadataDocument is what these tests read of an event.
type metadataDocument struct {
	Kind       string `json:"kind"`
	CWD        string `json:"cwd"`
	Cgroup     string `json:"cgroup"`
	Namespaces []struct{ Type string }
	Env        []string          `json:"env"`
	RSSKind    string            `json:"rss_kind"`
	Missing    map[string]string `json:"missing"`
}

// TestEnhancedMetadata runs the daemon with and without it, on one store: what the
// first run recorded is not shown by the second.
func TestEnhancedMetadata(t *testing.T) {
	database := newDatabase(t)
	dir := filepath.Join(t.TempDir(), "where it works")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pid := sleepingWith(t, func(cmd *exec.Cmd) {
		cmd.Dir = dir
		cmd.Env = []string{"LANG=C", "HOME=/nowhere", "API_TOKEN=hunter2"}
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}
		}
	})

	d := startDaemon(t, database, "--interval", "5", "--enhanced-metadata", "--env-allow", "LANG", "--env-allow", "API_TOKEN")
	sources := d.awaitCycle(1).Sources
	if sources.EnhancedMetadata != "on" || sources.RSSKind == "" {
		t.Errorf("sources %+v", sources)
	}
	first := lastMetadata(t, database, pid)
	if diff := cmp.Diff([]string{"LANG=C", "API_TOKEN=[redacted]"}, first.Env); diff != "" {
		t.Errorf("environment, -want +got:\n%s", diff)
	}
	if first.CWD != dir || !strings.HasPrefix(first.Cgroup, "/") || first.RSSKind != sources.RSSKind {
		t.Errorf("got %+v", first)
	}
	if os.Getuid() == 0 && (len(first.Namespaces) != 1 || first.Namespaces[0].Type != "uts") {
		t.Errorf("namespaces %+v, want one", first.Namespaces)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("stop: exit %d\n%s", code, d.log)
	}

	d = startDaemon(t, database, "--interval", "5")
	if got := d.awaitCycle(1).Sources; got.EnhancedMetadata != "off" || got.RSSKind != "approximate" {
		t.Errorf("sources %+v", got)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the process", func() bool { return lastMetadata(t, database, pid).Kind == "stop" })
	if last := lastMetadata(t, database, pid); last.CWD != "" || len(last.Env) > 0 || last.Missing["cwd"] != "unsupported" {
		t.Errorf("without enhanced metadata: %+v", last)
	}
}

// TestEnhancedMetadataOfPortableSnapshots: asked for, and said not to be there.
func TestEnhancedMetadataOfPortableSnapshots(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "5", "--snapshots", "portable", "--enhanced-metadata")
	if got := d.awaitCycle(1).Sources.EnhancedMetadata; got != "unsupported" {
		t.Errorf("state says %q", got)
	}
	if !strings.Contains(d.log.String(), "enhanced-metadata has no effect") {
		t.Errorf("the log does not say so:\n%s", d.log)
	}
}

// sleepingWith starts sleep(1) until the end of the test.
func sleepingWith(t *testing.T, change func(*exec.Cmd)) (pid int) {
	t.Helper()
	path, _ := oldSleep(t)
	cmd := exec.Command(path, "600")
	change(cmd)
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// lastMetadata is what the last event of a process says.
func lastMetadata(t *testing.T, database string, pid int) (doc metadataDocument) {
	t.Helper()
	out, _, _ := run(t, "events", "-o", "json", "--limit", "0", "--pid", strconv.Itoa(pid), "--database", database)
	for line := range strings.Lines(out) {
		doc = metadataDocument{}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
	}
	return doc
}
