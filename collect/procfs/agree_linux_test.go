package procfs

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/scantest"
	"daemoneye.dev/procmond/collect/internal/zoo"
	"daemoneye.dev/procmond/collect/portable"
)

// TestSourcesAgree compares this source with the portable one: for each process
// of this host that lived unchanged through both, all fields that both give must
// be the same. What a process changes of itself while it is looked at is looked
// at again.
func TestSourcesAgree(t *testing.T) {
	zoo.Start(t, "wait", zoo.With("", "two\nlines", "\xff", ""))
	zoo.Start(t, "exit 3", nil).Ended()
	theirs, err := portable.New(portable.Config{})
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 5
	var differences map[string]string
	for range rounds {
		var compared int
		if differences, compared = disagreements(t, newScanner(t, Config{}), theirs); len(differences) == 0 {
			t.Logf("%d processes agree", compared)
			return
		}
	}
	for pid, diff := range differences {
		t.Errorf("process %s, -portable +procfs:\n%s", pid, diff)
	}
}

// disagreements looks with ours before and after theirs, so that what has not
// changed between is known not to have changed meanwhile.
func disagreements(t *testing.T, ours *Scanner, theirs collect.Scanner) (differ map[string]string, compared int) {
	t.Helper()
	before := byPID(scantest.Scan(t, ours, true))
	snap := new(collect.Snapshot)
	if err := theirs.Scan(t.Context(), true, snap); err != nil {
		t.Fatal(err)
	}
	between := byPID(snap)
	after := byPID(scantest.Scan(t, ours, true))
	differ = make(map[string]string)
	for pid, o := range before {
		again, lived := after[pid]
		if !lived || again.StartTicks != o.StartTicks || compare(o, again) != "" {
			continue
		}
		other, seen := between[pid]
		if !seen {
			differ[fmt.Sprint(pid)] = "portable did not see it"
			continue
		}
		compared++
		if diff := compare(other, o); diff != "" {
			differ[fmt.Sprint(pid)] = diff
		}
	}
	for pid, o := range between {
		_, first := before[pid]
		if _, last := after[pid]; !first && !last && time.Since(o.Process.StartTime) > time.Minute {
			differ[fmt.Sprint(pid)] = "procfs did not see it"
		}
	}
	if _, ok := before[int32(os.Getpid())]; !ok || compared < 3 {
		t.Fatalf("%d processes were compared", compared)
	}
	return differ, compared
}

func byPID(snap *collect.Snapshot) map[int32]collect.Observation {
	all := make(map[int32]collect.Observation, len(snap.Observations))
	for _, o := range snap.Observations {
		all[o.PID] = o
	}
	return all
}

// compare says in which field that both have two observations differ; "" if none.
// State, threads, memory and CPU time move by themselves.
func compare(a, b collect.Observation) string {
	p, q := *a.Process, *b.Process
	absent := p.Missing.Unsupported | q.Missing.Unsupported
	for _, r := range []*event.Process{&p, &q} {
		r.State, r.Threads, r.RSS, r.CPU = 0, 0, 0, 0
		if absent.Has(event.FieldCapabilities) {
			r.CapEffective = 0
		}
		r.Missing.Unsupported = 0
		r.Missing.Denied &^= absent
		r.Missing.Gone &^= absent
		r.Missing.Failed &^= absent
	}
	var exits string
	if a.State == b.State {
		exits = cmp.Diff(a.Exit, b.Exit)
	}
	return exits + cmp.Diff(p, q, cmpopts.EquateApproxTime(50*time.Millisecond)) + cmp.Diff(a.StartTicks, b.StartTicks)
}
