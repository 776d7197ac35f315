package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/supervisor/control"
)

// treeView writes a process tree for people.
type treeView struct {
	paint cli.Painter
	width int // columns of the terminal, 0 is no limit
	lines treeLines
	now   time.Time // in the zone to show times in
	users map[uint32]string
	// lookup finds the name of a user.
	lookup func(uid uint32) string
}

// treeLines are what branches are drawn with.
type treeLines struct{ through, fork, end, space string }

func lightLines() treeLines { return treeLines{"│  ", "├─ ", "└─ ", "   "} }
func asciiLines() treeLines { return treeLines{"|  ", "|- ", "`- ", "   "} }

// userName is the name of a user of this host, or the number.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}

const (
	userColumn  = 10
	startColumn = len("Jan 02 15:04")
	rssColumn   = 11
)

// header names the columns.
func (v *treeView) header() string {
	return v.paint.Bold(fmt.Sprintf("%7s %-*s %-*s %*s %s", "PID", userColumn, "USER", startColumn, "STARTED", rssColumn, "RSS", "WHAT")) + "\n"
}

// line is one process; last says for each level whether it is the last there.
func (v *treeView) line(n *treeNode, last []bool, hidden int) string {
	columns := fmt.Sprintf("%7s %-*s %-*s %*s ", number(n.PID), userColumn, v.user(n.UID), startColumn, v.started(n.StartTime), rssColumn, rssText(&n.treeRow))
	branch := v.branch(last)
	what := cli.Printable(n.command())
	marks := marksOf(n, hidden)
	if v.width > 0 {
		room := v.width - len([]rune(columns)) - len([]rune(branch)) - len(marks)
		what = cli.Shorten(what, max(room, 12))
	}
	if !n.selected {
		return v.paint.Faint(columns+branch+what) + v.paint.Yellow(marks) + "\n"
	}
	return columns + v.paint.Faint(branch) + what + v.paint.Yellow(marks) + "\n"
}

// mostBranches are drawn for one process: who makes a chain of thousands must not make
// millions of lines of branches.
const mostBranches = 50

// branch is what leads to a process. A root has none.
func (v *treeView) branch(last []bool) string {
	if len(last) <= 1 {
		return ""
	}
	var b strings.Builder
	if deep := len(last) - 1 - mostBranches; deep > 0 {
		fmt.Fprintf(&b, "(%d levels) ", deep)
		last = last[deep:]
	}
	for _, end := range last[1 : len(last)-1] {
		if end {
			b.WriteString(v.lines.space)
		} else {
			b.WriteString(v.lines.through)
		}
	}
	if last[len(last)-1] {
		b.WriteString(v.lines.end)
	} else {
		b.WriteString(v.lines.fork)
	}
	return b.String()
}

func (v *treeView) user(uid *uint32) string {
	if uid == nil {
		return "-"
	}
	name, known := v.users[*uid]
	if !known {
		name = cli.Shorten(cli.Printable(v.lookup(*uid)), userColumn)
		v.users[*uid] = name
	}
	return name
}

// started is a start time, shorter the closer it is.
func (v *treeView) started(at *time.Time) string {
	if at == nil {
		return "-"
	}
	local := at.In(v.now.Location())
	switch {
	case local.Format(time.DateOnly) == v.now.Format(time.DateOnly):
		return local.Format(time.TimeOnly)
	case v.now.Sub(local).Abs() < 300*24*time.Hour:
		return local.Format("Jan 02 15:04")
	}
	return local.Format(time.DateOnly)
}

// rssText is the resident memory, with a tilde if it is the kernel's approximation.
func rssText(r *treeRow) string {
	if r.RSS == nil || r.kernel() {
		return "-"
	}
	text := cli.Bytes(*r.RSS)
	if r.RSSKind != "exact" {
		return "~" + text
	}
	return text
}

// marksOf say what is particular about a process.
func marksOf(n *treeNode, hidden int) string {
	var marks []string
	if n.ExeDeleted {
		marks = append(marks, "deleted")
	}
	if n.parent == nil && n.PPID != nil && *n.PPID != 0 {
		marks = append(marks, fmt.Sprintf("parent %d is not known", *n.PPID))
	}
	for _, d := range n.doubts {
		switch d {
		case control.DoubtSeenLater:
			marks = append(marks, "as seen later")
		case control.DoubtMayHaveEnded:
			marks = append(marks, "may have ended")
		case control.DoubtEndLost:
			marks = append(marks, "its end is not kept")
		default:
			marks = append(marks, cli.Printable(string(d)))
		}
	}
	if hidden > 0 {
		marks = append(marks, fmt.Sprintf("%d below", hidden))
	}
	if len(marks) == 0 {
		return ""
	}
	return " (" + strings.Join(marks, ", ") + ")"
}

// summary says of when the table is, and what is not in it.
func (v *treeView) summary(f *forest, selected, kernel int, q *treeFilter) string {
	var b strings.Builder
	if at := f.head.At; at == nil {
		b.WriteString("No snapshot is complete yet")
	} else {
		fmt.Fprintf(&b, "%s (%s ago)", v.day(*at), span(v.now.Sub(*at)))
	}
	living := len(f.nodes) - kernel
	fmt.Fprintf(&b, ": %d %s", living, processes(living))
	if q.restricts() {
		fmt.Fprintf(&b, ", %d match", selected)
	}
	if kernel > 0 && !q.kernel {
		fmt.Fprintf(&b, "; %d kernel %s not shown (--kernel)", kernel, plural(uint64(kernel), "thread"))
	}
	text := v.paint.Faint(b.String()+".") + "\n"
	for i := range f.head.Gaps {
		text += v.paint.Yellow(v.gap(&f.head.Gaps[i])) + "\n"
	}
	return text
}

func (v *treeView) gap(g *control.TableGap) string {
	what, then := "Something was lost ("+cli.Printable(g.Cause)+")", cli.Printable(g.Hint)
	if g.Cause == "down" {
		what, then = "procmond did not run", "what started and ended then was not seen."
	}
	if g.From != nil {
		what += " from " + v.day(*g.From)
	}
	if g.To != nil {
		what += " to " + v.day(*g.To)
	}
	if then == "" {
		return what + "."
	}
	return what + ": " + then
}

func (v *treeView) day(at time.Time) string {
	return at.In(v.now.Location()).Format("2006-01-02 15:04:05")
}

func processes(n int) string {
	if n == 1 {
		return "process"
	}
	return "processes"
}
