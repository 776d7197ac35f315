package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// hashDocument is what these tests read of an event.
type hashDocument struct {
	Hash *struct {
		Status string `json:"status"`
		Value  string `json:"value"`
		Reason string `json:"reason"`
	} `json:"hash"`
}

// text is the value, or why there is none; empty while it is pending.
func (d *hashDocument) text() string {
	if d.Hash == nil {
		return "null"
	}
	return d.Hash.Value + d.Hash.Reason
}

// TestHashes runs programs that nobody has seen before, one with its file gone and
// one of an absurd size among them: each gets its status. Later the digest comes
// with the start.
func TestHashes(t *testing.T) {
	database := newDatabase(t)
	program, sum := oldSleep(t)
	deleted, deletedSum := sleepCopy(t)
	sparse, _ := sleepCopy(t)
	if err := os.Truncate(sparse, 200e9); err != nil {
		t.Skip(err)
	}
	wanted := map[int]string{
		sleeping(t, program): sum,
		sleeping(t, deleted): deletedSum,
		sleeping(t, sparse):  "too big: 200000000000 bytes, sparse: ",
	}
	if err := os.Remove(deleted); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, database, "--interval", "5", "--compute-hashes", "--hash-rate=1GiB")
	for pid, want := range wanted {
		waitFor(t, "the hash of a program", func() bool { return strings.HasPrefix(lastHash(t, database, pid), want) })
	}
	again := sleeping(t, program)
	waitFor(t, "the hash of a program seen before", func() bool { return lastHash(t, database, again) == sum })
	if code := d.stop(); code != 0 {
		t.Errorf("stop: exit %d\n%s", code, d.log)
	}
}

// sleeping starts a program that sleeps until the end of the test.
func sleeping(t *testing.T, program string) (pid int) {
	t.Helper()
	cmd := exec.Command(program, "600")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// oldSleep is sleep(1), which has not changed for a while, and its digest.
func oldSleep(t *testing.T) (path, sum string) {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Skip(err)
	}
	digest := sha256.Sum256(text)
	return path, hex.EncodeToString(digest[:])
}

// sleepCopy is a program of which there is no other, and its digest.
func sleepCopy(t *testing.T) (path, sum string) {
	t.Helper()
	from, _ := oldSleep(t)
	text, err := os.ReadFile(from)
	if err != nil {
		t.Skip(err)
	}
	path = filepath.Join(t.TempDir(), "sleeper")
	text = append(text, path...)
	if err := os.WriteFile(path, text, 0o755); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	digest := sha256.Sum256(text)
	return path, hex.EncodeToString(digest[:])
}

// hashesOf is what the events of a process say of its executable, in order.
func hashesOf(t *testing.T, database string, pid int) []string {
	t.Helper()
	var all []string
	out, _, _ := run(t, "events", "-o", "json", "--limit", "0", "--pid", strconv.Itoa(pid), "--database", database)
	for line := range strings.Lines(out) {
		var doc hashDocument
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		all = append(all, doc.text())
	}
	return all
}

// lastHash is empty while there is none.
func lastHash(t *testing.T, database string, pid int) string {
	t.Helper()
	if all := hashesOf(t, database, pid); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}
