package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/control"
)

// vforks is how many processes each of the storms starts that end at once; 50,000 with
// PROCMOND_KERNEL_STORM.
func vforks() int {
	if os.Getenv("PROCMOND_KERNEL_STORM") != "" {
		return 50_000
	}
	return 4000
}

// forkStorm starts processes that end at once, as fast as the host allows.
type forkStorm struct {
	program string
	n       int
}

func newForkStorm(t *testing.T) forkStorm {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	program := filepath.Join(t.TempDir(), "storm")
	source := filepath.Join("..", "..", "collect", "kernel", "testdata", "storm.c")
	if out, err := exec.Command(cc, "-O2", "-static", "-pthread", "-o", program, source).CombinedOutput(); err != nil {
		t.Skipf("compile: %v\n%s", err, out)
	}
	return forkStorm{program, vforks()}
}

// start returns the storm, and what waits for its end.
func (s forkStorm) start(t *testing.T) (pid int, wait func()) {
	t.Helper()
	cmd := exec.Command(s.program, "vfork", strconv.Itoa(s.n), "2")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait = func() {
		if err := cmd.Wait(); err != nil {
			t.Errorf("storm: %v", err)
		}
	}
	return cmd.Process.Pid, wait
}

// TestForkStorm: in one storm the agent is killed, in another one the collector. In the
// end the stream holds what the store holds, in order and without a gap. Of the storm
// through which the collector lived it is all: each process has one start and one end.
// Of the other one nothing is there twice, and nobody is left alive.
func TestForkStorm(t *testing.T) {
	r, storm := newRig(t), newForkStorm(t)
	agent, p := r.agent(), r.collector()
	if s := r.awaitDelivered(); s.Sources.Events == "none" {
		t.Skipf("no kernel events: %s", s.Sources.EventsNote)
	}
	first, wait := storm.start(t)
	r.awaitHeard(uint64(storm.n / 2))
	agent.kill()
	agent = r.agent()
	wait()
	s := r.awaitQuiet()
	lost := s.Totals.KernelEventsLost
	if all := lost.Forks + lost.Execs + lost.Exits + lost.Other; all > 0 || s.Totals.LossWindows > 0 {
		t.Errorf("lost %+v in %d windows, with the default buffer", lost, s.Totals.LossWindows)
	}
	second, wait := storm.start(t)
	r.awaitHeard(s.Totals.KernelEvents + uint64(storm.n/2))
	p.kill()
	p = r.collector()
	wait()
	r.awaitQuiet()
	cycles := r.awaitRegistered().Cycle.Count
	r.awaitState("two more snapshots", func(s *control.State) bool { return s.Cycle.Count >= cycles+2 })
	if code := p.stop(); code != 0 {
		t.Fatalf("the collector ended with %d", code)
	}
	inStore := r.inStore()
	r.compare(r.inStream(), inStore)
	checkStorms(t, inStore, storm.program, storm.n, first, second)
	if code := agent.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}

// awaitHeard waits until the collector has read so many kernel events.
func (r *rig) awaitHeard(n uint64) {
	r.t.Helper()
	r.awaitState("kernel events", func(s *control.State) bool { return s.Totals.KernelEvents >= n })
}

// awaitQuiet waits until all that was heard is delivered.
func (r *rig) awaitQuiet() *control.State {
	r.t.Helper()
	r.awaitRegistered()
	return r.awaitState("everything to be delivered", func(s *control.State) bool {
		return s.Cycle.Count > 0 && s.Collector.Waiting == 0 && s.Store.BacklogEvents == 0
	})
}

// checkStorms looks at the processes that the children of two storms have started.
func checkStorms(t *testing.T, events []stored, program string, n, first, second int) {
	t.Helper()
	type life struct{ storm, generation, starts, stops int }
	lives := make(map[event.ID]*life)
	for i := range events {
		var e event.Event
		if err := event.Decode(events[i].data, &e); err != nil {
			t.Fatal(err)
		}
		if want := rpc.MsgID(e.Epoch, uint64(i+1)); events[i].id != want {
			t.Fatalf("event %d is %s, want %s", i+1, events[i].id, want)
		}
		l := lives[e.Process.ID]
		if l == nil {
			l = &life{}
			lives[e.Process.ID] = l
		}
		switch pid := int(e.Process.PID); e.Kind {
		case event.KindStart:
			l.starts++
			if parent := lives[e.Process.ParentID]; parent != nil && parent.generation > 0 {
				l.storm, l.generation = parent.storm, parent.generation+1
			}
		case event.KindExec:
			if (pid == first || pid == second) && e.Process.Exe == program { // others had that PID before
				l.storm, l.generation = pid, 1
			}
		case event.KindStop:
			l.stops++
		}
	}
	all := make(map[int]int)
	for id, l := range lives {
		if l.generation != 3 {
			continue
		}
		all[l.storm]++
		if l.starts != 1 || l.stops != 1 {
			t.Errorf("process %s of a storm has %d starts and %d ends", id, l.starts, l.stops)
		}
	}
	if all[first] != n {
		t.Errorf("%d processes of the first storm are recorded, want %d", all[first], n)
	}
	if all[second] == 0 || all[second] > n {
		t.Errorf("%d processes of the second storm are recorded, want some of %d", all[second], n)
	}
	t.Logf("of the storm through which the collector lived %d of %d, of the other one %d", all[first], n, all[second])
}
