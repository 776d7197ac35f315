package scantest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/zoo"
)

// rereadEvery is in how many scans a source reads each known process whole once.
const rereadEvery = 30

// Source is a source of snapshots.
type Source struct {
	// New makes a scanner of the process file system at proc, "" for that of the host.
	New func(proc string) (collect.Scanner, error)
	// Everything makes a scanner of the host that reads all that the source can give.
	Everything func() (collect.Scanner, error)
	// Unsupported are the fields that New's scanners never give.
	Unsupported event.FieldSet
	// Known is how many processes one of New's scanners keeps.
	Known func(collect.Scanner) int
}

// Main is TestMain of a package that runs the tests.
func Main(m *testing.M, s Source) {
	zoo.Main(m, zoo.Roles{
		"scan": func(proc string) (zoo.Act, error) {
			return func(string) error { return s.printScan(proc) }, nil
		},
		"probe": func(pid string) (zoo.Act, error) {
			n, err := strconv.ParseInt(pid, 10, 32)
			return func(string) error { return s.printProbe(int32(n)) }, err
		},
	})
}

// Run runs the tests.
func Run(t *testing.T, s Source) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"WholeRecord", s.testWholeRecord},
		{"KnownProcessIsReadAgainOnlyWhenItChanges", s.testKnownProcess},
		{"EachProcessIsReadAgainWithin30Scans", s.testTurns},
		{"FullScanReportsEverything", s.testFullScan},
		{"CacheDoesNotGrow", s.testCacheDoesNotGrow},
		{"ScanStopsBetweenProcesses", s.testScanStops},
		{"VanishedAndHiddenProcessesAreCounted", s.testVanishedAndHidden},
		{"UnreadableFieldsStandInTheMask", s.testMask},
		{"KernelThreadHasNeitherExecutableNorArguments", s.testKernelThread},
		{"EmptyProcIsAnError", s.testEmptyProc},
		{"ProbeOfNobody", s.testProbeOfNobody},
		{"ArgumentsAreBounded", s.testArgumentsAreBounded},
		{"ChangeUnderTheReading", s.testChangeUnderTheReading},
		{"ExecUnderTheReading", s.testExecUnderTheReading},
		{"OwnerThatChangesEachTime", s.testOwnerThatChangesEachTime},
		{"NewEntryIsNoNewProcess", s.testNewEntry},
		{"HiddenImage", s.testHiddenImage},

		{"StartedProcess", s.testStartedProcess},
		{"ExecInPlace", s.testExecInPlace},
		{"RenameIsNoExec", s.testRename},
		{"UserAndGroupIDs", s.testIDs},
		{"Zombie", s.testZombie},
		{"ProcessOutlivesItsFirstThread", s.testFirstThread},
		{"DeletedExecutable", s.testDeletedExecutable},
		{"MovedExecutableIsNoExec", s.testMovedExecutable},
		{"MemoryFileExecutable", s.testMemoryFile},
		{"Arguments", s.testArguments},
		{"Title", s.testTitle},
		{"ThousandThreads", s.testThousandThreads},
		{"CPUTimeIsOfAllThreads", s.testCPUTime},
		{"Orphan", s.testOrphan},
		{"Namespace", s.testNamespace},
		{"RecycledPID", s.testRecycledPID},
		{"RecycledPIDInOneTick", s.testTwins},
		{"HidePID", s.testHidePID},
		{"OrdinaryUserSeesWhatItMay", s.testOrdinaryUser},
		{"KernelThreadsOfThisHost", s.testKernelThreadsOfThisHost},
		{"ForkStorm", s.testForkStorm},
		{"SnapshotIsReused", s.testSnapshotIsReused},
	} {
		t.Run(test.name, test.run)
	}
}

// of makes a scanner of a process file system.
func (s Source) of(t testing.TB, proc string) collect.Scanner {
	t.Helper()
	scanner, err := s.New(proc)
	if err != nil {
		t.Fatal(err)
	}
	return scanner
}

// host makes a scanner of this host.
func (s Source) host(t testing.TB) collect.Scanner {
	t.Helper()
	return s.of(t, "")
}

// printScan prints what this process sees of all that are in proc.
func (s Source) printScan(proc string) error {
	scanner, err := s.New(proc)
	if err != nil {
		return err
	}
	var snap collect.Snapshot
	if err := scanner.Scan(context.Background(), true, &snap); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(snap)
}

// printProbe prints what this process sees of another one.
func (s Source) printProbe(pid int32) error {
	scanner, err := s.Everything()
	if err != nil {
		return err
	}
	o, err := scanner.Probe(context.Background(), pid)
	if err != nil {
		return fmt.Errorf("as an ordinary user: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}

// Scan takes a snapshot and checks its form.
func Scan(t testing.TB, s collect.Scanner, full bool) *collect.Snapshot {
	t.Helper()
	snap := new(collect.Snapshot)
	if err := s.Scan(t.Context(), full, snap); err != nil {
		t.Fatal(err)
	}
	for i, o := range snap.Observations {
		if i > 0 && o.PID <= snap.Observations[i-1].PID {
			t.Fatalf("process %d comes after %d", o.PID, snap.Observations[i-1].PID)
		}
	}
	return snap
}

// Observed returns what a snapshot holds of pid.
func Observed(t testing.TB, snap *collect.Snapshot, pid int32) collect.Observation {
	t.Helper()
	for _, o := range snap.Observations {
		if o.PID == pid {
			return o
		}
	}
	t.Fatalf("process %d is not in the snapshot", pid)
	return collect.Observation{}
}

// Whole is [Observed] for a process that must have been reported whole.
func Whole(t testing.TB, snap *collect.Snapshot, pid int32) collect.Observation {
	t.Helper()
	o := Observed(t, snap, pid)
	if o.Process == nil {
		t.Fatalf("process %d is not reported whole: %+v", pid, o)
	}
	return o
}

// fields is a set of them.
func fields(all ...event.Field) (set event.FieldSet) {
	for _, f := range all {
		set = set.With(f)
	}
	return set
}
