package event

import (
	"strings"
	"testing"
)

// These ids are in stores and streams: they never change.
func TestGoldenIDs(t *testing.T) {
	for _, test := range []struct {
		in   Identity
		want string
	}{
		{Identity{}, "835daa7641ed3980befb0c7edd31713b"},
		{Identity{HostID: "host-1", BootID: "7b6f0ab0-0000-4000-8000-000000000001", PIDNamespace: 4026531836, PID: 1, StartTicks: 3}, "316bfc8d1d78617a40638eadf7e5bdf8"},
		{Identity{HostID: strings.Repeat("h", 64), BootID: strings.Repeat("b", 300), PID: -1, StartTicks: ^uint64(0), Generation: 7}, "910ce6d16d22fdb51aed9cf5856e1598"},
	} {
		if got := test.in.ID().String(); got != test.want {
			t.Errorf("id of %+v is %s, want %s", test.in, got, test.want)
		}
	}
	if got, want := HostIDFromMachine("b08dfa6083e7567a1921a715000001fb"), "2c4405c65742348197c1a2051b92daec"; got != want {
		t.Errorf("host id %s, want %s", got, want)
	}
}

// Every field counts, and no two fields run into each other.
func TestIDsDiffer(t *testing.T) {
	seen := map[ID]Identity{}
	for _, i := range []Identity{
		{},
		{HostID: "a"},
		{BootID: "a"},
		{HostID: "ab", BootID: "c"},
		{HostID: "a", BootID: "bc"},
		{HostID: "abc"},
		{HostID: "a\x00"},
		{PIDNamespace: 1},
		{PID: 1},
		{StartTicks: 1},
		{StartTicks: 1 << 32},
		{Generation: 1},
		{PID: 1, StartTicks: 1},
	} {
		id := i.ID()
		if other, ok := seen[id]; ok {
			t.Errorf("%+v and %+v have the same id", i, other)
		}
		seen[id] = i
		if again := i.ID(); again != id {
			t.Errorf("%+v has two ids", i)
		}
	}
}

func TestNothingHasTheZeroID(t *testing.T) {
	if _, err := ParseID(ID{}.String()); err == nil {
		t.Error("the zero id is taken for a process")
	}
	if _, err := ParseEpoch(Epoch{}.String()); err == nil {
		t.Error("the zero epoch is taken for a store")
	}
}

func TestParseIDs(t *testing.T) {
	want := Identity{PID: 7}.ID()
	if got, err := ParseID(want.String()); err != nil || got != want {
		t.Errorf("ParseID(%s) = %s, %v", want, got, err)
	}
	epoch := NewEpoch()
	if got, err := ParseEpoch(epoch.String()); err != nil || got != epoch {
		t.Errorf("ParseEpoch(%s) = %s, %v", epoch, got, err)
	}
	if epoch == NewEpoch() || epoch.IsZero() || !(Epoch{}).IsZero() || !(ID{}).IsZero() {
		t.Error("epochs are not random")
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("g", 32), strings.Repeat("é", 16)} {
		if _, err := ParseID(bad); err == nil || !strings.Contains(err.Error(), "process id") {
			t.Errorf("ParseID(%q): %v", bad, err)
		}
		if _, err := ParseEpoch(bad); err == nil || !strings.Contains(err.Error(), "epoch") {
			t.Errorf("ParseEpoch(%q): %v", bad, err)
		}
	}
}

func TestHostIDs(t *testing.T) {
	for _, good := range []string{"a", "web-01_B", strings.Repeat("x", 64), HostIDFromMachine("m"), RandomHostID()} {
		if err := ValidHostID(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a.b", "a b", "a*", ">", "a\n", "é", strings.Repeat("x", 65)} {
		if ValidHostID(bad) == nil {
			t.Errorf("%q is a host id", bad)
		}
	}
	if HostIDFromMachine("a") == HostIDFromMachine("b") {
		t.Error("two machines have one id")
	}
}

func TestParseKind(t *testing.T) {
	for k := KindStart; k <= KindSensor; k++ {
		if got, err := ParseKind(k.String()); err != nil || got != k {
			t.Errorf("ParseKind(%s) = %v, %v", k, got, err)
		}
	}
	for _, bad := range []string{"", "unknown", "Start", "1", "#1"} {
		if _, err := ParseKind(bad); err == nil {
			t.Errorf("ParseKind(%q) works", bad)
		}
	}
}

func TestFieldSets(t *testing.T) {
	if fieldCount > 64 {
		t.Errorf("%d fields do not fit in a mask", fieldCount)
	}
	var s FieldSet
	s = s.With(FieldExe).With(FieldChanges).With(FieldExe)
	if !s.Has(FieldExe) || !s.Has(FieldChanges) || s.Has(FieldUID) || s.Without(FieldExe).Has(FieldExe) {
		t.Errorf("set %b", s)
	}
	m := Mask{Truncated: s, Inherited: s}
	if m.Absent() != 0 || m.IsZero() || !(Mask{}).IsZero() {
		t.Error("a cut or inherited value is taken for none")
	}
}
