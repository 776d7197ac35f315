package main

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/store"
)

// treeOf asks for the tree around a process and returns the depth of each that is
// shown, by PID.
func treeOf(t *testing.T, database string, pid int, args ...string) map[int]int {
	t.Helper()
	out, errors, code := run(t, append([]string{"tree", "--database", database, "--pid", strconv.Itoa(pid), "-o", "json"}, args...)...)
	if code != 0 {
		t.Fatalf("tree: exit %d: %s", code, errors)
	}
	depths := make(map[int]int)
	for line := range strings.Lines(out) {
		var p struct{ PID, Depth int }
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		depths[p.PID] = p.Depth
	}
	return depths
}

// TestTree asks for the tree of real processes, before and after one of them has
// ended, of a daemon and of what it leaves.
func TestTree(t *testing.T) {
	shell := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait; read line")
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Skipf("no shell: %v", err)
	}
	t.Cleanup(func() { _, _ = in.Close(), shell.Wait() })
	var text [32]byte
	n, err := out.Read(text[:])
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		t.Fatal(err)
	}
	database := newDatabase(t)
	d := startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	parent := shell.Process.Pid
	tree := treeOf(t, database, child)
	if tree[child] == 0 || tree[child] != tree[parent]+1 {
		t.Errorf("the child is at depth %d below %d: %v", tree[child], tree[parent], tree)
	}
	both := time.Now()
	if err := exec.Command("kill", strconv.Itoa(child)).Run(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the child's end", func() bool { _, there := treeOf(t, database, parent)[child]; return !there })
	at := both.UTC().Format(time.RFC3339Nano)
	check := func(what string) {
		tree := treeOf(t, database, parent, "--at", at)
		if _, there := tree[child]; !there || tree[child] != tree[parent]+1 {
			t.Errorf("%s: the child %d is not below its parent %d at %s: %v", what, child, parent, at, tree)
		}
	}
	check("of the daemon")
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
	check("of its store")
	if _, there := treeOf(t, database, parent)[child]; there {
		t.Error("the last table of the store has the child")
	}
	for _, long := range []string{"2001-01-01", "0001-01-01T00:00:00Z"} {
		_, text2, code := run(t, "tree", "--database", database, "--at", long)
		if code != 1 || !strings.Contains(text2, "the oldest event that is kept") || !strings.Contains(text2, "--at ") {
			t.Errorf("before all: exit %d: %s", code, text2)
		}
	}
}

// TestTreeOfAStoreThatIsHeld: who can not be asked may run all the same.
func TestTreeOfAStoreThatIsHeld(t *testing.T) {
	database := newDatabase(t)
	s, err := store.Open(t.Context(), store.Config{Dir: database, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	_, text, code := run(t, "tree", "--database", database)
	if err := s.Close(true); err != nil {
		t.Error(err)
	}
	if code != int(exitInUse) || strings.Contains(text, "no daemon runs") {
		t.Errorf("held: exit %d: %s", code, text)
	}
	if _, text, code = run(t, "tree", "--database", database); code != 0 || !strings.Contains(text, "no daemon runs") {
		t.Errorf("let go: exit %d: %s", code, text)
	}
}
