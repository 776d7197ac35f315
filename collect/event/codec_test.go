package event

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"daemoneye.dev/procmond/collect/event/eventpb"
)

// toGenerated builds the generated message from e, field by field.
func toGenerated(e *Event) *eventpb.Event {
	m := &eventpb.Event{
		Seq: e.Seq, Epoch: id128(e.Epoch), Kind: eventpb.Kind(e.Kind), Source: eventpb.Source(e.Source),
		Time: nanos(e.Time), Observed: nanos(e.Observed), NotBefore: nanos(e.NotBefore), BootTime: int64(e.BootTime),
		HostId: e.HostID, BootId: e.BootID, Cause: e.Cause, Process: toGeneratedProcess(&e.Process),
	}
	if proto.Size(m.Process) == 0 {
		m.Process = nil
	}
	if x := e.Exit; x != nil {
		m.Exit = &eventpb.Exit{Code: x.Code, Signal: x.Signal, Core: x.Core, Cpu: int64(x.CPU), MaxRss: x.MaxRSS}
	}
	for _, c := range e.Changes {
		m.Changes = append(m.Changes, &eventpb.Change{Field: eventpb.Field(c.Field), Old: []byte(c.Old), New: []byte(c.New)})
	}
	if l := e.Loss; l != nil {
		m.Loss = &eventpb.Loss{
			Cause: eventpb.LossCause(l.Cause), From: nanos(l.From), To: nanos(l.To), FromSeq: l.FromSeq, ToSeq: l.ToSeq,
			Count: l.Count, Known: l.Known, Hint: l.Hint,
		}
	}
	if s := e.Sensor; s != nil {
		m.Sensor = &eventpb.Sensor{
			What: eventpb.SensorWhat(s.What), Detail: s.Detail, Version: s.Version,
			PreviousEpoch: id128(s.PreviousEpoch), PreviousSeq: s.PreviousSeq,
		}
	}
	return m
}

func toGeneratedProcess(p *Process) *eventpb.Process {
	m := &eventpb.Process{
		Id: id128(p.ID), ParentId: id128(p.ParentID), Pid: p.PID, Ppid: p.PPID, Name: []byte(p.Name), Exe: []byte(p.Exe),
		ExeDeleted: p.ExeDeleted, Args: byteLists(p.Args), Cwd: []byte(p.CWD), Uid: p.UID, Gid: p.GID, Euid: p.EUID, Egid: p.EGID,
		StartTicks: p.StartTicks, StartTime: nanos(p.StartTime), LoginUid: p.LoginUID, Session: p.Session, Tty: p.TTY,
		CapEffective: p.CapEffective, Generation: p.Generation, Cgroup: []byte(p.Cgroup), ContainerId: []byte(p.ContainerID),
		Env: byteLists(p.Env), State: uint32(p.State), Threads: p.Threads, Rss: p.RSS, Cpu: int64(p.CPU),
		RssKind: eventpb.RssKind(p.RSSKind), LoginSession: p.LoginSession,
	}
	for _, n := range p.Namespaces {
		m.Namespaces = append(m.Namespaces, &eventpb.Namespace{Type: []byte(n.Type), Inode: n.Inode})
	}
	hash := &eventpb.Hash{
		Algorithm: p.Hash.Algorithm, Value: p.Hash.Value, Status: eventpb.HashStatus(p.Hash.Status), Reason: p.Hash.Reason,
	}
	if proto.Size(hash) != 0 {
		m.Hash = hash
	}
	if !p.Missing.IsZero() {
		m.Missing = &eventpb.Missing{
			Gone: uint64(p.Missing.Gone), Denied: uint64(p.Missing.Denied), Unsupported: uint64(p.Missing.Unsupported),
			Failed: uint64(p.Missing.Failed), Truncated: uint64(p.Missing.Truncated), Inherited: uint64(p.Missing.Inherited),
		}
	}
	return m
}

func id128[T ID | Epoch](id T) []byte {
	if id == (T{}) {
		return nil
	}
	return bytes.Clone(id[:])
}

func byteLists(list []string) (out [][]byte) {
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func sameEvent(t fataler, what string, want, got *Event) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// The generated code reads what Append writes, writes the same bytes, and
// Decode reads them.
func TestCodecEqualsGeneratedCode(t *testing.T) {
	check := func(t fataler, e *Event) {
		encoded := Append([]byte("before"), e)
		if !bytes.HasPrefix(encoded, []byte("before")) {
			t.Fatalf("Append changed what was in dst")
		}
		encoded = encoded[len("before"):]
		want := toGenerated(e)
		generated, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		if !bytes.Equal(encoded, generated) {
			t.Fatalf("bytes differ\n   ours %x\nprotobuf %x", encoded, generated)
		}
		var message eventpb.Event
		if err := proto.Unmarshal(encoded, &message); err != nil {
			t.Fatalf("unmarshal: %v", err)
		}
		if !proto.Equal(&message, want) {
			t.Fatalf("protobuf read\n%v\nwant\n%v", &message, want)
		}
		var decoded Event
		if err := Decode(generated, &decoded); err != nil {
			t.Fatalf("decode: %v", err)
		}
		sameEvent(t, "decoded", e, &decoded)

		var p Process
		if err := DecodeProcess(AppendProcess(nil, &e.Process), &p); err != nil {
			t.Fatalf("decode process: %v", err)
		}
		sameEvent(t, "process", &Event{Process: e.Process}, &Event{Process: p})
	}
	for name, e := range sampleEvents() {
		t.Run(name, func(t *testing.T) { check(t, e) })
	}
	t.Run("any", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { check(t, anyEvent().Draw(t, "event")) })
	})
}

// Lengths around the places where their own length changes.
func TestAppendMovesBodiesOfAnyLength(t *testing.T) {
	for _, size := range []int{0, 1, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 16370, 16380, 16381, 16382, 16383, 16384, 16385, 60000} {
		e := &Event{Process: Process{Exe: strings.Repeat("x", size), PID: 1}, Changes: []Change{{Old: strings.Repeat("y", size)}}}
		if got, want := Append(nil, e), marshal(t, toGenerated(e)); !bytes.Equal(got, want) {
			t.Errorf("size %d: bytes differ", size)
		}
	}
}

// Every enumeration of the schema has the numbers and the names of the code.
func TestSchemaAgreesWithNames(t *testing.T) {
	for prefix, test := range map[string]struct {
		enum protoreflect.Enum
		name func(uint8) string
	}{
		"KIND_":        {eventpb.Kind(0), func(n uint8) string { return Kind(n).String() }},
		"SOURCE_":      {eventpb.Source(0), func(n uint8) string { return Source(n).String() }},
		"HASH_STATUS_": {eventpb.HashStatus(0), func(n uint8) string { return HashStatus(n).String() }},
		"SENSOR_WHAT_": {eventpb.SensorWhat(0), func(n uint8) string { return SensorWhat(n).String() }},
		"FIELD_":       {eventpb.Field(0), func(n uint8) string { return Field(n).String() }},
		"RSS_KIND_":    {eventpb.RssKind(0), func(n uint8) string { return RSSKind(n).String() }},
		"LOSS_CAUSE_":  {eventpb.LossCause(0), func(n uint8) string { return LossCause(n).String() }},
	} {
		values := test.enum.Descriptor().Values()
		for i := range values.Len() {
			value := values.Get(i)
			number := uint8(value.Number())
			schema := strings.ToLower(strings.TrimPrefix(string(value.Name()), prefix))
			if schema == "rewind" {
				schema = "rewound"
			}
			if code := test.name(number); !strings.Contains(code, schema) && !strings.Contains(schema, code) {
				t.Errorf("%s%d: the schema says %s, the code %s", prefix, number, schema, code)
			}
		}
		if next := test.name(uint8(values.Len())); next != fmt.Sprintf("#%d", values.Len()) {
			t.Errorf("%s: the code knows %s, the schema does not", prefix, next)
		}
	}
}

// The bytes of wire version 1, which no release may change.
func TestGoldenBytes(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(sampleEvents())) {
		t.Run(name, func(t *testing.T) {
			e := sampleEvents()[name]
			got := hex.EncodeToString(Append(nil, e)) + "\n"
			want := golden(t, "v1-"+name+".hex", got)
			if got != want {
				t.Errorf("encoded bytes changed\n got %swant %s", got, want)
			}
			stored, err := hex.DecodeString(strings.TrimSpace(want))
			if err != nil {
				t.Fatal(err)
			}
			var decoded Event
			if err := Decode(stored, &decoded); err != nil {
				t.Fatal(err)
			}
			sameEvent(t, "decoded golden bytes", e, &decoded)
		})
	}
}

// golden returns the content of a golden file, after writing it with -update.
func golden(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	return string(b)
}

func TestDecodeReplacesAll(t *testing.T) {
	e := *sampleEvents()["stop"]
	if err := Decode(nil, &e); err != nil {
		t.Fatal(err)
	}
	sameEvent(t, "decoded nothing", &Event{}, &e)
}

func TestDecodeKeepsNoReference(t *testing.T) {
	want := sampleEvents()["start"]
	b := Append(nil, want)
	var got Event
	if err := Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	clear(b)
	sameEvent(t, "after the input was overwritten", want, &got)
}

// Decode works in the middle of a buffer: what follows is not touched.
func TestDecodePartOfBuffer(t *testing.T) {
	want := sampleEvents()["start"]
	b := Append(nil, want)
	buffer := append(append([]byte("xyz"), b...), bytes.Repeat([]byte{0xff}, 500)...)
	var got Event
	if err := Decode(buffer[3:3+len(b)], &got); err != nil {
		t.Fatal(err)
	}
	sameEvent(t, "decoded", want, &got)
}

func TestDecodeSkipsWhatItDoesNotKnow(t *testing.T) {
	want := sampleEvents()["start"]
	b := Append(nil, want)
	b = protowire.AppendBytes(protowire.AppendTag(b, 1000, protowire.BytesType), []byte("later"))
	b = protowire.AppendFixed32(protowire.AppendTag(b, 1001, protowire.Fixed32Type), 7)
	b = protowire.AppendTag(b, 1002, protowire.StartGroupType)
	b = protowire.AppendTag(b, 1002, protowire.EndGroupType)
	b = protowire.AppendVarint(protowire.AppendTag(b, 12, protowire.VarintType), 1) // a known number, another type
	var got Event
	if err := Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	sameEvent(t, "decoded", want, &got)

	b = protowire.AppendVarint(protowire.AppendVarint(nil, tagEventKind), 256+uint64(KindStop))
	if err := Decode(b, &got); err != nil || got.Kind != KindUnknown {
		t.Errorf("kind 260 decodes as %v, %v", got.Kind, err)
	}
}

func TestDecodeMalformed(t *testing.T) {
	whole := Append(nil, sampleEvents()["start"])
	cases := map[string][]byte{
		"id of 3 bytes":      {tagEventEpoch, 3, 1, 2, 3},
		"string not UTF-8":   {tagEventHostID, 1, 0xff},
		"field number 0":     {0, 0},
		"length past end":    {tagEventProcess, 0xff, 0xff, 0xff, 0x7f},
		"inner length":       {tagEventProcess, 2, tagProcessName, 200},
		"end group":          {1<<3 | 4},
		"unterminated":       {1<<3 | 3},
		"varint of 11 bytes": append([]byte{tagEventSeq}, bytes.Repeat([]byte{0xff}, 11)...),
		"cut":                whole[:len(whole)-1],
	}
	for name, b := range cases {
		var e Event
		if err := Decode(b, &e); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var p Process
	if err := DecodeProcess([]byte{tagProcessID, 1, 1}, &p); !errors.Is(err, ErrMalformed) {
		t.Errorf("process: %v", err)
	}
}

func TestTimesOnTheWire(t *testing.T) {
	for _, test := range []struct {
		in   time.Time
		want time.Time
	}{
		{time.Time{}, time.Time{}},
		{time.Unix(0, 0), time.Time{}},
		{time.Unix(0, -1), time.Unix(0, -1)},
		{time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{time.Date(1680, 1, 1, 0, 0, 0, 5, time.UTC), time.Date(1680, 1, 1, 0, 0, 0, 5, time.UTC)},
		{time.Date(2262, 1, 1, 0, 0, 0, 5, time.UTC), time.Date(2262, 1, 1, 0, 0, 0, 5, time.UTC)},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{time.Unix(1<<62, 0), time.Time{}},
		{moment.In(time.FixedZone("", 7200)), moment},
	} {
		if got := fromNanos(nanos(test.in)); !got.Equal(test.want) {
			t.Errorf("%v comes back as %v, want %v", test.in, got, test.want)
		}
	}
}

func TestAppendMendsOwnText(t *testing.T) {
	e := &Event{Kind: KindSensor, Sensor: &Sensor{Detail: "open /tmp/\xff: denied"}}
	var m eventpb.Event
	if err := proto.Unmarshal(Append(nil, e), &m); err != nil {
		t.Fatal(err)
	}
	if want := "open /tmp/\uFFFD: denied"; m.Sensor.Detail != want {
		t.Errorf("detail %q, want %q", m.Sensor.Detail, want)
	}
}

func TestCodecAllocations(t *testing.T) {
	e := sampleEvents()["stop"]
	b := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { b = Append(b[:0], e) }); n != 0 {
		t.Errorf("Append: %v allocations", n)
	}
	// The text, the arguments, environment, namespaces, hash and exit.
	var d Event
	if n := testing.AllocsPerRun(100, func() { _ = Decode(b, &d) }); n > 6 {
		t.Errorf("Decode: %v allocations", n)
	}
}

// typicalEvent is what most events on a host look like.
func typicalEvent() *Event {
	e := sampleEvents()["start"]
	e.NotBefore, e.BootTime = time.Time{}, 0
	p := &e.Process
	*p = Process{
		ID: p.ID, ParentID: p.ParentID, PID: 314159, PPID: 314100, Name: "python3", Exe: "/usr/bin/python3.11",
		Args: []string{"python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv/data", "8080"},
		UID:  1000, GID: 1000, EUID: 1000, EGID: 1000, StartTicks: 123456789, StartTime: moment,
		State: 'S', Threads: 4, RSS: 23 << 20, CPU: 120 * time.Millisecond,
		Missing: Mask{Unsupported: FieldSet(0).With(FieldCapabilities).With(FieldCgroup)},
	}
	return e
}

func BenchmarkAppend(b *testing.B) {
	e := typicalEvent()
	dst := Append(nil, e)
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		dst = Append(dst[:0], e)
	}
}

func BenchmarkAppendGenerated(b *testing.B) {
	m := toGenerated(typicalEvent())
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = proto.MarshalOptions{}.MarshalAppend(dst[:0], m)
	}
}

func BenchmarkDecode(b *testing.B) {
	encoded := Append(nil, typicalEvent())
	var e Event
	b.SetBytes(int64(len(encoded)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(encoded, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeGenerated(b *testing.B) {
	encoded := Append(nil, typicalEvent())
	var m eventpb.Event
	b.ReportAllocs()
	for b.Loop() {
		if err := proto.Unmarshal(encoded, &m); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDecode: no input makes the decoder panic or allocate much more than the
// input is long, and what it accepts is stable.
func FuzzDecode(f *testing.F) {
	for _, e := range sampleEvents() {
		f.Add(Append(nil, e))
	}
	f.Add([]byte{tagEventProcess, 0xff, 0xff, 0xff, 0xff, 0x07})
	f.Add(bytes.Repeat([]byte{tagEventChanges, 0}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Event
		err := Decode(b, &e)
		if n := memory(&e); n > 64*len(b)+1024 {
			t.Fatalf("%d bytes of input hold %d bytes of memory", len(b), n)
		}
		generated := proto.Unmarshal(b, &eventpb.Event{})
		if generated != nil && err == nil {
			t.Fatalf("decoded what protobuf refuses: %v", generated)
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			if generated == nil && !strings.Contains(err.Error(), "an id of") {
				t.Fatalf("refused what protobuf decodes: %v", err)
			}
			return
		}
		encoded := Append(nil, &e)
		if err := Decode(encoded, &again); err != nil {
			t.Fatalf("decode again: %v", err)
		}
		sameEvent(t, "decoded again", &e, &again)
		var p Process
		if err := DecodeProcess(AppendProcess(nil, &e.Process), &p); err != nil {
			t.Fatalf("decode process: %v", err)
		}
	})
}

// memory is what the lists of e and its text take.
func memory(e *Event) int {
	p := &e.Process
	return 40*cap(e.Changes) + 16*(cap(p.Args)+cap(p.Env)) + 24*cap(p.Namespaces) + cap(p.Hash.Value)
}
