package event

import (
	"time"

	"pgregory.net/rapid"
)

// moment is a fixed time with nanoseconds.
var moment = time.Date(2026, 3, 1, 12, 30, 45, 123456789, time.UTC)

// sampleProcess has a value in every field.
func sampleProcess() Process {
	return Process{
		ID:           Identity{HostID: "host", BootID: "boot", PIDNamespace: 4026531836, PID: 4242, StartTicks: 123456}.ID(),
		ParentID:     Identity{HostID: "host", BootID: "boot", PIDNamespace: 4026531836, PID: 1, StartTicks: 3}.ID(),
		PID:          4242,
		PPID:         1,
		Name:         "sh\xff",
		Exe:          "/usr/bin/dash",
		ExeDeleted:   true,
		Args:         []string{"sh", "-c", "", "echo \\ \xfe\n"},
		CWD:          "/srv",
		UID:          1000,
		GID:          1001,
		EUID:         1002,
		EGID:         1003,
		LoginUID:     unsetUID,
		Session:      77,
		TTY:          34816,
		CapEffective: 0x1ffffffffff,
		StartTicks:   123456,
		Generation:   2,
		StartTime:    moment,
		Cgroup:       "/system.slice/a.service",
		ContainerID:  "0123456789abcdef",
		Namespaces:   []Namespace{{"net", 4026532000}, {"mnt", 4026532001}},
		Env:          []string{"LANG=C", "EMPTY="},
		State:        'S',
		Threads:      3,
		RSS:          1 << 20,
		CPU:          1500 * time.Millisecond,
		Hash:         Hash{Algorithm: "sha256", Value: []byte{0xde, 0xad}, Status: HashSkipped, Reason: "a reason"},
		Missing: Mask{
			Gone:        FieldSet(0).With(FieldTTY),
			Denied:      FieldSet(0).With(FieldExe).With(FieldEnv),
			Unsupported: FieldSet(0).With(FieldCapabilities),
			Failed:      FieldSet(0).With(FieldCgroup),
			Truncated:   FieldSet(0).With(FieldArgs).With(FieldEnv),
			Inherited:   FieldSet(0).With(FieldName),
		},
	}
}

// sampleEvents has one event of every kind; together they use every field.
func sampleEvents() map[string]*Event {
	base := Event{
		Seq:      300,
		Epoch:    Epoch{0: 0xe0, 15: 1},
		HostID:   "host",
		BootID:   "7b6f0ab0-0000-4000-8000-000000000001",
		Source:   SourceScan,
		Time:     moment,
		Observed: moment.Add(time.Second),
	}
	with := func(kind Kind, fill func(*Event)) *Event {
		e := base
		e.Kind = kind
		fill(&e)
		return &e
	}
	change := []Change{{FieldArgs, "a", "b\xff"}, {FieldUID, "0", ""}}
	return map[string]*Event{
		"start": with(KindStart, func(e *Event) {
			e.Source, e.BootTime, e.NotBefore, e.Process = SourceKernel, 9*time.Second, moment.Add(-time.Minute), sampleProcess()
		}),
		// What came later than the first golden bytes.
		"start-enhanced": with(KindStart, func(e *Event) {
			e.Process = sampleProcess()
			e.Process.LoginUID, e.Process.LoginSession, e.Process.RSSKind = 1000, 3, RSSExact
		}),
		"exec": with(KindExec, func(e *Event) { e.Process, e.Changes = sampleProcess(), change }),
		"modify": with(KindModify, func(e *Event) {
			e.Process = Process{PID: 7, PPID: 1, Name: "kthreadd", Hash: Hash{Algorithm: "sha256", Value: []byte{0}, Status: HashDone}}
			e.Changes = change[:1]
		}),
		"stop": with(KindStop, func(e *Event) {
			e.Source, e.Cause, e.Process = SourceRecovered, "boot", sampleProcess()
			e.Exit = &Exit{Code: -1, Signal: 9, Core: true, CPU: 2 * time.Second, MaxRSS: 4096}
		}),
		"stop-code": with(KindStop, func(e *Event) { e.Process, e.Exit = Process{PID: 9}, &Exit{} }),
		"loss": with(KindLoss, func(e *Event) {
			e.Loss = &Loss{LossShed, moment, moment.Add(time.Hour), 10, 20, 11, true, "raise --max-backlog"}
		}),
		"sensor": with(KindSensor, func(e *Event) {
			e.Source = SourceSensor
			e.Sensor = &Sensor{SensorStarted, "procmond started", "1.0.0", Epoch{1}, 99}
		}),
	}
}

// anyEvent draws events with any value that the wire can carry.
func anyEvent() *rapid.Generator[*Event] {
	return rapid.Custom(func(t *rapid.T) *Event {
		e := &Event{
			Seq:       rapid.Uint64().Draw(t, "seq"),
			Epoch:     Epoch(anyID(t)),
			HostID:    rapid.String().Draw(t, "host id"),
			BootID:    rapid.String().Draw(t, "boot id"),
			Kind:      Kind(rapid.Byte().Draw(t, "kind")),
			Source:    Source(rapid.Byte().Draw(t, "source")),
			Time:      anyTime(t),
			NotBefore: anyTime(t),
			BootTime:  time.Duration(rapid.Int64().Draw(t, "boot time")),
			Observed:  anyTime(t),
			Cause:     rapid.String().Draw(t, "cause"),
			Process:   anyProcess(t),
		}
		if rapid.Bool().Draw(t, "exit") {
			e.Exit = &Exit{
				Code: rapid.Int32().Draw(t, "code"), Signal: rapid.Int32().Draw(t, "signal"), Core: rapid.Bool().Draw(t, "core"),
				CPU: time.Duration(rapid.Int64().Draw(t, "cpu")), MaxRSS: rapid.Uint64().Draw(t, "max rss"),
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			e.Changes = append(e.Changes, Change{Field(rapid.Byte().Draw(t, "field")), anyHostText(t), anyHostText(t)})
		}
		if rapid.Bool().Draw(t, "loss") {
			e.Loss = &Loss{
				LossCause(rapid.Byte().Draw(t, "cause")), anyTime(t), anyTime(t), rapid.Uint64().Draw(t, "from"),
				rapid.Uint64().Draw(t, "to"), rapid.Uint64().Draw(t, "count"), rapid.Bool().Draw(t, "known"),
				rapid.String().Draw(t, "hint"),
			}
		}
		if rapid.Bool().Draw(t, "sensor") {
			e.Sensor = &Sensor{
				SensorWhat(rapid.Byte().Draw(t, "what")), rapid.String().Draw(t, "detail"), rapid.String().Draw(t, "version"),
				Epoch(anyID(t)), rapid.Uint64().Draw(t, "previous seq"),
			}
		}
		return e
	})
}

func anyProcess(t *rapid.T) Process {
	uint32s, int32s := rapid.Uint32(), rapid.Int32()
	p := Process{
		ID: ID(anyID(t)), ParentID: ID(anyID(t)), PID: int32s.Draw(t, "pid"), PPID: int32s.Draw(t, "ppid"),
		Name: anyHostText(t), Exe: anyHostText(t), ExeDeleted: rapid.Bool().Draw(t, "deleted"),
		Args: anyList(t), CWD: anyHostText(t),
		UID: uint32s.Draw(t, "uid"), GID: uint32s.Draw(t, "gid"), EUID: uint32s.Draw(t, "euid"), EGID: uint32s.Draw(t, "egid"),
		LoginUID: uint32s.Draw(t, "login uid"), Session: int32s.Draw(t, "session"), TTY: int32s.Draw(t, "tty"),
		CapEffective: rapid.Uint64().Draw(t, "capabilities"), StartTicks: rapid.Uint64().Draw(t, "ticks"),
		Generation: uint32s.Draw(t, "generation"), StartTime: anyTime(t),
		Cgroup: anyHostText(t), ContainerID: anyHostText(t), Env: anyList(t),
		State: State(rapid.Byte().Draw(t, "state")), Threads: int32s.Draw(t, "threads"), RSS: rapid.Uint64().Draw(t, "rss"),
		RSSKind: RSSKind(rapid.Byte().Draw(t, "rss kind")), LoginSession: uint32s.Draw(t, "login session"),
		CPU: time.Duration(rapid.Int64().Draw(t, "cpu")),
		Hash: Hash{
			Algorithm: rapid.String().Draw(t, "algorithm"), Value: []byte(anyHostText(t)),
			Status: HashStatus(rapid.Byte().Draw(t, "status")), Reason: rapid.String().Draw(t, "reason"),
		},
	}
	for range rapid.IntRange(0, 3).Draw(t, "namespaces") {
		p.Namespaces = append(p.Namespaces, Namespace{anyHostText(t), rapid.Uint64().Draw(t, "inode")})
	}
	for _, set := range []*FieldSet{
		&p.Missing.Gone, &p.Missing.Denied, &p.Missing.Unsupported, &p.Missing.Failed, &p.Missing.Truncated, &p.Missing.Inherited,
	} {
		*set = FieldSet(rapid.Uint64().Draw(t, "mask"))
	}
	return p
}

func anyHostText(t *rapid.T) string {
	return string(rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "host text"))
}

func anyList(t *rapid.T) []string {
	var list []string
	for range rapid.IntRange(0, 4).Draw(t, "list") {
		list = append(list, anyHostText(t))
	}
	return list
}

func anyID(t *rapid.T) (id [16]byte) {
	copy(id[:], rapid.SampledFrom([]string{"", "0123456789abcdef", "\x00\x00\x01"}).Draw(t, "id"))
	return id
}

func anyTime(t *rapid.T) time.Time {
	return fromNanos(rapid.Int64().Draw(t, "time"))
}
