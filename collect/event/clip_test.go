package event

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// hostile draws texts of sizes around every limit and far beyond.
func hostile(t *rapid.T, label string) string {
	size := rapid.OneOf(
		rapid.SampledFrom([]int{0, 1, 63, 64, 65, 127, 128, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 32768, 32769, 200000}),
		rapid.IntRange(0, 70000),
	).Draw(t, label)
	unit := rapid.SampledFrom([]string{"x", "\xff", "ü", "😀", "a\xff"}).Draw(t, label)
	return strings.Repeat(unit, size/len(unit)+1)[:size]
}

func hostileList(t *rapid.T, label string) []string {
	text := hostile(t, label)
	count := rapid.SampledFrom([]int{0, 1, 2, 300, 1024, 1025, 4096, 4097, 40000}).Draw(t, label)
	if count > 300 && len(text) > 100 {
		text = text[:rapid.IntRange(0, 100).Draw(t, label)]
	}
	list := make([]string, count)
	for i := range list {
		list[i] = text
	}
	return list
}

func hostileEvent(t *rapid.T) *Event {
	e := anyEvent().Draw(t, "event")
	e.HostID, e.BootID, e.Cause = hostile(t, "host"), hostile(t, "boot"), hostile(t, "cause")
	p := &e.Process
	p.Name, p.Exe, p.CWD, p.Cgroup = hostile(t, "name"), hostile(t, "exe"), hostile(t, "cwd"), hostile(t, "cgroup")
	p.ContainerID, p.Args, p.Env = hostile(t, "container"), hostileList(t, "args"), hostileList(t, "env")
	p.Hash = Hash{Algorithm: hostile(t, "algorithm"), Value: []byte(hostile(t, "value")), Reason: hostile(t, "reason")}
	for range rapid.SampledFrom([]int{0, 1, 17, 100}).Draw(t, "namespaces") {
		p.Namespaces = append(p.Namespaces, Namespace{p.Name, ^uint64(0)})
	}
	old := hostile(t, "old")
	for range rapid.SampledFrom([]int{0, 1, 27, 28, 500}).Draw(t, "changes") {
		e.Changes = append(e.Changes, Change{255, old, old})
	}
	if e.Loss != nil {
		e.Loss.Hint = hostile(t, "hint")
	}
	if e.Sensor != nil {
		e.Sensor.Detail, e.Sensor.Version = hostile(t, "detail"), hostile(t, "version")
	}
	return e
}

// Whatever the host says, no event is too big, and every cut is said.
func TestClipBoundsEveryEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := hostileEvent(t)
		before := *e
		before.Process.Missing = Mask{}
		e.Process.Missing = Mask{}
		args, env, changes := slices.Clone(e.Process.Args), slices.Clone(e.Process.Env), slices.Clone(e.Changes)
		Clip(e)

		numbered := *e
		numbered.Seq, numbered.Epoch = ^uint64(0), Epoch{1}
		if n := len(Append(nil, &numbered)); n > MaxEncoded {
			t.Fatalf("encoded size %d", n)
		}
		if !slices.Equal(args, before.Process.Args) || !slices.Equal(env, before.Process.Env) || !slices.Equal(changes, before.Changes) {
			t.Fatalf("Clip modified a slice of its caller")
		}
		p, q := &e.Process, &before.Process
		for f, cut := range map[Field]bool{
			FieldName:       p.Name != q.Name,
			FieldExe:        p.Exe != q.Exe,
			FieldArgs:       !slices.Equal(p.Args, q.Args),
			FieldCWD:        p.CWD != q.CWD,
			FieldCgroup:     p.Cgroup != q.Cgroup,
			FieldContainer:  p.ContainerID != q.ContainerID,
			FieldNamespaces: !slices.Equal(p.Namespaces, q.Namespaces),
			FieldEnv:        !slices.Equal(p.Env, q.Env),
			FieldHash:       !slices.Equal(p.Hash.Value, q.Hash.Value),
			FieldChanges:    !slices.Equal(e.Changes, before.Changes),
		} {
			if p.Missing.Truncated.Has(f) != cut {
				t.Fatalf("%v: cut %v, said %v", f, cut, !cut)
			}
		}
		again := *e
		Clip(&again)
		sameEvent(t, "clipped twice", e, &again)
	})
}

// The worst that stays without its environment and changes.
func TestClipKeepsAllArguments(t *testing.T) {
	args := make([]string, MaxArgCount)
	for i := range args {
		args[i] = strings.Repeat("a", MaxArgs/MaxArgCount)
	}
	long := strings.Repeat("\xff", 1<<20)
	e := &Event{
		HostID: long, BootID: long, Cause: long,
		Process: Process{
			Name: long, Exe: long, CWD: long, Cgroup: long, ContainerID: long, Args: args, Env: []string{long},
			Hash: Hash{Algorithm: long, Value: []byte(long), Reason: long}, Namespaces: slices.Repeat([]Namespace{{long, 1 << 63}}, 99),
		},
		Changes: slices.Repeat([]Change{{255, long, long}}, 99),
		Loss:    &Loss{Hint: long},
		Sensor:  &Sensor{Detail: long, Version: long},
	}
	Clip(e)
	if n := len(Append(nil, e)); n > MaxEncoded-28 {
		t.Errorf("encoded size %d", n)
	}
	if len(e.Process.Args) != MaxArgCount || e.Process.Missing.Truncated.Has(FieldArgs) {
		t.Errorf("%d arguments stayed", len(e.Process.Args))
	}
	if len(e.Process.Exe) != MaxPath || len(e.Process.CWD) != MaxPath || len(e.Process.Cgroup) != MaxPath {
		t.Error("paths are not cut at the limit")
	}
}

func TestClipLeavesWhatFits(t *testing.T) {
	for name, e := range sampleEvents() {
		before := *e
		Clip(e)
		sameEvent(t, name, &before, e)
	}
	e := typicalEvent()
	if n := testing.AllocsPerRun(100, func() { Clip(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestClipCutsBetweenCharacters(t *testing.T) {
	for _, shift := range []string{"", "a", "ab", "abc"} {
		e := &Event{Process: Process{Exe: shift + strings.Repeat("😀", 2000)}}
		Clip(e)
		if exe := e.Process.Exe; !utf8.ValidString(exe) || len(exe) <= MaxPath-utf8.UTFMax {
			t.Errorf("shift %q: %d bytes, ends in %q", shift, len(exe), exe[len(exe)-4:])
		}
	}
	e := &Event{Sensor: &Sensor{Detail: strings.Repeat("é", 1000)}}
	Clip(e)
	if d := e.Sensor.Detail; len(d) > MaxDetail || !strings.HasSuffix(d, "é…") {
		t.Errorf("detail ends in %q", d[len(d)-8:])
	}
}

func TestClipArguments(t *testing.T) {
	for _, test := range []struct {
		sizes []int
		want  []int
	}{
		{[]int{MaxArgs}, []int{MaxArgs}},
		{[]int{MaxArgs + 1}, []int{MaxArgs}},
		{[]int{10, MaxArgs, 5}, []int{10, MaxArgs - 10}},
		{[]int{MaxArgs, 0, 5}, []int{MaxArgs, 0}},
		{[]int{MaxArgs, 5, 0}, []int{MaxArgs}},
	} {
		e := &Event{}
		for _, n := range test.sizes {
			e.Process.Args = append(e.Process.Args, strings.Repeat("x", n))
		}
		Clip(e)
		var got []int
		for _, arg := range e.Process.Args {
			got = append(got, len(arg))
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("arguments of %v become %v, want %v", test.sizes, got, test.want)
		}
	}
}

func BenchmarkClip(b *testing.B) {
	e := typicalEvent()
	b.ReportAllocs()
	for b.Loop() {
		Clip(e)
	}
}
