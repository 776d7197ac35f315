package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// hashDocument is what these tests read of an event.
type hashDocument struct {
	Hash *struct {
		Status string `json:"status"`
		Value  string `json:"value"`
	} `json:"hash"`
}

// TestHashes runs a program that nobody has seen before, and again.
func TestHashes(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Skip(err)
	}
	text = append(text, t.TempDir()...)
	program := filepath.Join(t.TempDir(), "sleeper")
	if err := os.WriteFile(program, text, 0o755); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)

	database := newDatabase(t)
	d := startDaemon(t, database, "--interval", "5", "--compute-hashes", "--hash-rate=1GiB")
	d.awaitCycle(1)
	for _, round := range []string{"new", "seen before"} {
		cmd := exec.Command(program, "600")
		if err := cmd.Start(); err != nil {
			t.Skip(err)
		}
		waitFor(t, "the hash of a program that is "+round, func() bool {
			return lastHash(t, database, cmd.Process.Pid) == hex.EncodeToString(sum[:])
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if code := d.stop(); code != 0 {
		t.Errorf("stop: exit %d\n%s", code, d.log)
	}
}

// lastHash is the value in the last event of a process.
func lastHash(t *testing.T, database string, pid int) string {
	t.Helper()
	value := ""
	for _, e := range readEvents(t, database) {
		if e.PID != pid || e.Kind == "stop" {
			continue
		}
		var doc hashDocument
		if err := json.Unmarshal([]byte(e.line), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Hash == nil {
			t.Errorf("an event says nothing of a hash: %s", e.line)
			continue
		}
		value = doc.Hash.Value
	}
	return value
}
