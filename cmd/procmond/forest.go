package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"daemoneye.dev/procmond/supervisor/control"
)

// treeRow is what a line for people shows of a process, from its JSON form.
type treeRow struct {
	eventRow
	ID         string     `json:"process_id"`
	Parent     string     `json:"parent_id"`
	ExeDeleted bool       `json:"exe_deleted"`
	StartTime  *time.Time `json:"start_time"`
	RSS        *uint64    `json:"rss"`
	RSSKind    string     `json:"rss_kind"`
}

// kernel reports whether it is a thread of the kernel: it has neither executable nor
// arguments, which is not for want of rights.
func (r *treeRow) kernel() bool {
	_, unknown := r.Missing["exe"]
	return r.Exe == "" && len(r.Args) == 0 && !unknown
}

// treeNode is a process with its children, the oldest first.
type treeNode struct {
	treeRow
	encoded  []byte // its JSON form
	doubts   []control.Doubt
	parent   *treeNode
	children []*treeNode
	// selected is what was asked for; kept is what is shown: that, and the way to it.
	selected, kept bool
}

// forest is a process table as trees. Whose parent is not in the table is a root.
type forest struct {
	head  control.TableHead
	nodes []*treeNode
	roots []*treeNode
}

// add takes a process; plant must be called after the last.
func (f *forest) add(process []byte, doubts []control.Doubt) error {
	n := &treeNode{encoded: append([]byte(nil), process...), doubts: doubts}
	if err := json.Unmarshal(process, &n.treeRow); err != nil {
		return fmt.Errorf("decode process: %w", err)
	}
	f.nodes = append(f.nodes, n)
	return nil
}

// plant makes the trees.
func (f *forest) plant() {
	byID := make(map[string]*treeNode, len(f.nodes))
	for _, n := range f.nodes {
		byID[n.ID] = n
	}
	for _, n := range f.nodes {
		if n.parent = byID[n.Parent]; n.parent != nil {
			n.parent.children = append(n.parent.children, n)
		}
	}
	f.cut()
	for _, n := range f.nodes {
		if n.parent == nil {
			f.roots = append(f.roots, n)
		}
		slices.SortFunc(n.children, older)
	}
	slices.SortFunc(f.roots, older)
}

// cut ends every circle: no process is its own ancestor, but a record may say so.
func (f *forest) cut() {
	rooted := make(map[*treeNode]bool, len(f.nodes)) // its ancestors come to an end
	for _, n := range f.nodes {
		var path []*treeNode
		onPath := make(map[*treeNode]bool)
		for a := n; a != nil && !rooted[a]; a = a.parent {
			if onPath[a] {
				a.parent.children = slices.DeleteFunc(a.parent.children, func(c *treeNode) bool { return c == a })
				a.parent = nil
				break
			}
			onPath[a] = true
			path = append(path, a)
		}
		for _, a := range path {
			rooted[a] = true
		}
	}
}

func older(a, b *treeNode) int {
	var first, second time.Time
	if a.StartTime != nil {
		first = *a.StartTime
	}
	if b.StartTime != nil {
		second = *b.StartTime
	}
	return cmp.Or(first.Compare(second), cmp.Compare(pidOf(a), pidOf(b)))
}

func pidOf(n *treeNode) int32 {
	if n.PID == nil {
		return 0
	}
	return *n.PID
}

// treeFilter says which processes are asked for. Conditions are joined by and, the
// values of one by or; nothing given is no condition.
type treeFilter struct {
	pids   []int32 // these and their descendants
	uids   []uint32
	exe    string // glob, as for events
	kernel bool   // threads of the kernel too
}

// restricts reports whether anything but threads of the kernel is left out.
func (q *treeFilter) restricts() bool { return len(q.pids)+len(q.uids) > 0 || q.exe != "" }

// matches checks all but the PIDs.
func (q *treeFilter) matches(r *treeRow) bool {
	switch {
	case !q.kernel && r.kernel(),
		len(q.uids) > 0 && (r.UID == nil || !slices.Contains(q.uids, *r.UID)):
		return false
	}
	return q.exe == "" || matchesExe(q.exe, r.Exe)
}

// matchesExe is how the daemon matches a pattern, see the Exe of a store's query.
func matchesExe(pattern, exe string) bool {
	if !strings.Contains(pattern, "/") {
		exe = exe[strings.LastIndexByte(exe, '/')+1:]
	}
	ok, _ := path.Match(pattern, exe) // the flag was checked
	return ok
}

// choose marks what is asked for, and what is kept for that. It returns how many
// processes are asked for, and how many threads of the kernel are left out.
func (f *forest) choose(q *treeFilter) (selected, kernel int) {
	for _, n := range f.roots {
		selected += n.choose(q, len(q.pids) == 0)
	}
	for _, n := range f.nodes {
		if n.kernel() && !n.kept && !q.kernel {
			kernel++
		}
	}
	return selected, kernel
}

// choose marks n and what is below; within says that the PID of an ancestor was given.
func (n *treeNode) choose(q *treeFilter, within bool) (selected int) {
	within = within || slices.Contains(q.pids, pidOf(n))
	for _, c := range n.children {
		selected += c.choose(q, within)
	}
	n.kept = selected > 0
	if within && q.matches(&n.treeRow) {
		n.selected, n.kept = true, true
		selected++
	}
	return selected
}

// walk calls fn for each node that is kept, parents first, down to a level; 0 is all.
// last says for each level whether it is the last there, and is valid only during the
// call. hidden is how many are below the deepest. It ends with the first error.
func (f *forest) walk(deepest int, fn func(n *treeNode, last []bool, hidden int) error) error {
	w := walk{deepest: deepest, fn: fn}
	return w.level(f.roots)
}

type walk struct {
	deepest int
	fn      func(n *treeNode, last []bool, hidden int) error
	last    []bool
}

func (w *walk) level(nodes []*treeNode) error {
	kept := slices.DeleteFunc(slices.Clone(nodes), func(n *treeNode) bool { return !n.kept })
	w.last = append(w.last, false)
	defer func() { w.last = w.last[:len(w.last)-1] }()
	for i, n := range kept {
		w.last[len(w.last)-1] = i == len(kept)-1
		if len(w.last) == w.deepest {
			if err := w.fn(n, w.last, n.below()); err != nil {
				return err
			}
			continue
		}
		if err := w.fn(n, w.last, 0); err != nil {
			return err
		}
		if err := w.level(n.children); err != nil {
			return err
		}
	}
	return nil
}

// below is how many processes are kept below n.
func (n *treeNode) below() (sum int) {
	for _, c := range n.children {
		if c.kept {
			sum += 1 + c.below()
		}
	}
	return sum
}
