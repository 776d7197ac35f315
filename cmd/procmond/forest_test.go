package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/supervisor/control"
)

// forestOf makes a forest of JSON objects.
func forestOf(t testing.TB, processes ...string) *forest {
	t.Helper()
	f := &forest{head: control.TableHead{Processes: len(processes)}}
	for _, p := range processes {
		if err := f.add([]byte(p), nil); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
	}
	f.plant()
	return f
}

// proc is the JSON form of a process whose id is its PID.
func proc(pid, parent int, more string) string {
	return fmt.Sprintf(`{"process_id":"%d","parent_id":"%d","pid":%d,"ppid":%d,"uid":%d,"start_time":"2026-03-01T11:%02d:00Z"%s}`, pid, parent, pid, parent, pid%3, pid%60, more)
}

// shape is the trees that are kept as text: 1(2(3) 4).
func (f *forest) shape(depth int) string {
	var b strings.Builder
	level := 0
	_ = f.walk(depth, func(n *treeNode, last []bool, hidden int) error {
		for ; level >= len(last); level-- {
			b.WriteByte(')')
		}
		fmt.Fprintf(&b, "(%d", pidOf(n))
		if hidden > 0 {
			fmt.Fprintf(&b, "+%d", hidden)
		}
		level = len(last)
		return nil
	})
	return b.String() + strings.Repeat(")", level)
}

func TestForest(t *testing.T) {
	const user, sleep = `,"exe":"/bin/sh"`, `,"exe":"/bin/sleep"`
	processes := []string{
		proc(1, 0, user), proc(2, 0, ``), proc(3, 2, ``), // 2 and 3 are the kernel's
		proc(10, 1, user), proc(12, 10, sleep), proc(11, 10, sleep), proc(13, 12, user),
		proc(20, 99, user), // its parent is not known
	}
	for _, c := range []struct {
		name     string
		filter   treeFilter
		depth    int
		want     string
		selected int
		kernel   int
	}{
		{"all but the kernel", treeFilter{}, 0, "(1(10(11)(12(13))))(20)", 6, 2},
		{"all", treeFilter{kernel: true}, 0, "(1(10(11)(12(13))))(2(3))(20)", 8, 0},
		{"two levels", treeFilter{}, 2, "(1(10+3))(20)", 6, 2},
		{"a subtree", treeFilter{pids: []int32{12}}, 0, "(1(10(12(13))))", 2, 2},
		{"two subtrees", treeFilter{pids: []int32{11, 20}}, 0, "(1(10(11)))(20)", 2, 2},
		{"an executable", treeFilter{exe: "sl*p"}, 0, "(1(10(11)(12)))", 2, 2},
		{"in a subtree", treeFilter{exe: "/bin/sh", pids: []int32{12}}, 0, "(1(10(12(13))))", 1, 2},
		{"a letter, which a thread of the kernel has not even", treeFilter{exe: "?", kernel: true}, 0, "", 0, 0},
		{"a subtree, and the kernel's were asked for", treeFilter{pids: []int32{12}, kernel: true}, 0, "(1(10(12(13))))", 2, 0},
		{"a user", treeFilter{uids: []uint32{2}}, 0, "(1(10(11)))(20)", 2, 2},
		{"nobody", treeFilter{uids: []uint32{7}}, 0, "", 0, 2},
	} {
		f := forestOf(t, processes...)
		selected, kernel := f.choose(&c.filter)
		if got := f.shape(c.depth); got != c.want || selected != c.selected || kernel != c.kernel {
			t.Errorf("%s: %s with %d selected and %d of the kernel, want %s with %d and %d", c.name, got, selected, kernel, c.want, c.selected, c.kernel)
		}
	}
}

// TestForestOfNonsense: whatever a store says of parents, each process is shown once.
func TestForestOfNonsense(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "processes")
		f := new(forest)
		for pid := range n {
			parent := rapid.IntRange(0, n).Draw(t, "parent")
			if err := f.add([]byte(proc(pid+1, parent, `,"exe":"/x"`)), nil); err != nil {
				t.Fatal(err)
			}
		}
		f.plant()
		f.choose(&treeFilter{})
		seen := make(map[int32]int)
		_ = f.walk(0, func(n *treeNode, _ []bool, _ int) error {
			seen[pidOf(n)]++
			return nil
		})
		for pid := range n {
			if seen[int32(pid+1)] != 1 {
				t.Fatalf("process %d is shown %d times: %s", pid+1, seen[int32(pid+1)], f.shape(0))
			}
		}
	})
}

// TestForestOfAChain: one below the other, as deep as a hostile user may make them.
func TestForestOfAChain(t *testing.T) {
	const deep = 50_000
	f := new(forest)
	for pid := range deep {
		if err := f.add([]byte(proc(pid+1, pid, `,"exe":"/x"`)), nil); err != nil {
			t.Fatal(err)
		}
	}
	f.plant()
	f.choose(&treeFilter{})
	view := &treeView{lines: asciiLines(), now: viewNow, users: make(map[uint32]string), lookup: func(uint32) string { return "user" }}
	longest, lines := 0, 0
	_ = f.walk(0, func(n *treeNode, last []bool, _ int) error {
		lines++
		longest = max(longest, len(view.line(n, last, 0)))
		return nil
	})
	if lines != deep || longest > 300 {
		t.Errorf("%d lines, the longest has %d bytes", lines, longest)
	}
}

func TestForestRefusesNonsense(t *testing.T) {
	if err := new(forest).add([]byte(`{"pid":"x"}`), nil); err == nil {
		t.Error("a PID that is no number is accepted")
	}
}

// TestTreeView shows every part of a line, and hostile text made harmless.
func TestTreeView(t *testing.T) {
	at, yesterday := viewNow.Add(-3*time.Second), viewNow.Add(-24*time.Hour)
	f := forestOf(t,
		`{"process_id":"a","parent_id":null,"pid":1,"ppid":0,"uid":0,"name":"init","exe":"/sbin/init","args":["init"],"start_time":"2025-01-01T00:00:00Z","rss":12345678,"rss_kind":"exact","missing":{}}`,
		`{"process_id":"b","parent_id":"a","pid":20,"ppid":1,"uid":33,"name":"nginx","exe":"/usr/sbin/nginx","exe_deleted":true,"args":["nginx: master process"],"start_time":"2026-02-20T08:00:00Z","rss":4096,"rss_kind":"approximate","missing":{}}`,
		`{"process_id":"c","parent_id":"b","pid":21,"ppid":20,"uid":33,"name":"x","exe":"/tmp/\\x1b[2Jevil","args":["x","`+strings.Repeat("long ", 30)+`"],"start_time":"2026-03-01T11:59:00Z","rss":0,"missing":{}}`,
		`{"process_id":"d","parent_id":"a","pid":30,"ppid":1,"uid":null,"name":"secret","exe":null,"args":null,"start_time":null,"rss":1,"missing":{"exe":"denied","args":"denied"}}`,
		`{"process_id":"e","parent_id":null,"pid":40,"ppid":7,"uid":1000,"name":"orphan","exe":"/bin/orphan","args":["orphan"],"start_time":"2026-03-01T11:59:59Z","rss":1,"missing":{}}`,
		`{"process_id":"f","parent_id":null,"pid":2,"ppid":0,"uid":0,"name":"kthreadd","exe":"","args":[],"start_time":"2025-01-01T00:00:00Z","rss":0,"missing":{}}`,
	)
	f.head = control.TableHead{At: &at, Processes: 6, Gaps: []control.TableGap{
		{Cause: "down", From: &yesterday, To: &at, Hint: "not shown"}, {Cause: "shed", To: &at, Hint: "Raise it.\x1b[2J"},
	}}
	f.nodes[4].doubts = []control.Doubt{control.DoubtSeenLater, control.DoubtMayHaveEnded, control.DoubtEndLost, "\x1b"}
	filter := &treeFilter{}
	selected, kernel := f.choose(filter)
	f.nodes[0].selected = false
	for name, view := range map[string]*treeView{
		"tree.golden":        {lines: asciiLines()},
		"tree-colour.golden": {lines: lightLines(), paint: cli.Painter(true), width: 90},
	} {
		view.now, view.users = viewNow, make(map[uint32]string)
		view.lookup = func(uid uint32) string { return fmt.Sprintf("user%d\x1b_with_a_long_name", uid) }
		text := view.summary(f, selected, kernel, filter) + view.header()
		_ = f.walk(0, func(n *treeNode, last []bool, _ int) error {
			text += view.line(n, last, 0)
			return nil
		})
		golden(t, name, text)
	}
}

// captured is what a command prints.
func captured(t *testing.T, run func(invocation) error) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	if err := run(invocation{stdout: out, stderr: out}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTreeJSON is what scripts read.
func TestTreeJSON(t *testing.T) {
	f := forestOf(t, proc(1, 0, `,"exe":"/a"`), proc(2, 1, `,"exe":"/b"`))
	f.nodes[1].doubts = []control.Doubt{control.DoubtEndLost}
	f.choose(&treeFilter{pids: []int32{2}})
	out := captured(t, func(p invocation) error { return new(treeCommand).printJSON(p, f) })
	var got []map[string]any
	for line := range strings.Lines(out) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		delete(m, "start_time")
		got = append(got, m)
	}
	want := []map[string]any{
		{"depth": 0.0, "selected": false, "doubts": []any{}, "process_id": "1", "parent_id": "0", "pid": 1.0, "ppid": 0.0, "uid": 1.0, "exe": "/a"},
		{"depth": 1.0, "selected": true, "doubts": []any{"end_lost"}, "process_id": "2", "parent_id": "1", "pid": 2.0, "ppid": 1.0, "uid": 2.0, "exe": "/b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}
