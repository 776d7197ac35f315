package collect

import (
	"strings"
	"testing"

	"daemoneye.dev/procmond/collect/event"
)

// other has another value in every attribute than the zero record.
func other() *event.Process {
	return &event.Process{
		PPID: 2, ParentID: event.ID{2}, Name: "n", Exe: "/e", ExeDeleted: true, Args: []string{"a"}, CWD: "/c",
		UID: 1, GID: 2, EUID: 3, EGID: 4, LoginUID: 5, LoginSession: 9, Session: 6, TTY: 7, CapEffective: 8,
		Cgroup: "/g", ContainerID: "c", Namespaces: []event.Namespace{{Type: "net", Inode: 1}}, Env: []string{"A=b"},
		Hash: event.Hash{Algorithm: "sha256", Value: []byte{1}, Status: event.HashDone},
	}
}

// Each attribute alone makes two records differ, is reported with both values,
// and survives a scan that could not read it.
func TestEveryAttributeCounts(t *testing.T) {
	for i, a := range attributes {
		if i > 0 && attributes[i-1].field >= a.field {
			t.Errorf("%v is out of order", a.field)
		}
		now := &event.Process{}
		a.keep(now, other())
		if identical(&event.Process{}, now) || !differ(&event.Process{}, now) {
			t.Errorf("%v: the difference is not seen", a.field)
		}
		changes := changesBetween(&event.Process{}, now, 0)
		if len(changes) != 1 || changes[0].Field != a.field || changes[0].Old == changes[0].New {
			t.Errorf("%v: changes %v", a.field, changes)
		}
		blind := &event.Process{Missing: event.Mask{Denied: event.FieldSet(0).With(a.field)}}
		if differ(now, blind) {
			t.Errorf("%v: what could not be read is taken for a change", a.field)
		}
		carry(now, blind)
		if !a.same(now, blind) || !blind.Missing.IsZero() {
			t.Errorf("%v is lost: %+v", a.field, blind)
		}
		var dropped event.Process
		dropped.Missing.Unsupported = event.FieldSet(0).With(a.field)
		carry(now, &dropped)
		if nothing := new(event.Process); !a.same(nothing, &dropped) || !dropped.Missing.Unsupported.Has(a.field) {
			t.Errorf("%v: what the source gives no more is kept: %+v", a.field, dropped)
		}
		if was := (&event.Process{Missing: blind.Missing}); a.field != event.FieldParent {
			was.Missing.Denied = event.FieldSet(0).With(a.field)
			if !differ(was, &event.Process{}) {
				t.Errorf("%v: becoming readable is news", a.field)
			}
		}
	}
	if differ(other(), other()) || !identical(other(), other()) {
		t.Error("equal records differ")
	}
}

func TestArgsText(t *testing.T) {
	got := argsText([]string{"sh", "-c", "echo it's", "", "*", "plain"})
	if want := `sh -c 'echo it'\''s' '' '*' plain`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if strings.ContainsAny(argsText([]string{"a", "b"}), "'") {
		t.Error("quoted without need")
	}
}
