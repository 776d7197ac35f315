package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/control"
)

// decode reads what is stored.
func decode(t testing.TB, s stored) *event.Event {
	t.Helper()
	e := new(event.Event)
	if err := event.Decode(s.data, e); err != nil {
		t.Fatalf("decode %s: %v", s.id, err)
	}
	return e
}

// losses are the events of losses with this cause.
func losses(t testing.TB, all []stored, cause event.LossCause) []*event.Event {
	t.Helper()
	var found []*event.Event
	for _, s := range all {
		if e := decode(t, s); e.Loss != nil && e.Loss.Cause == cause {
			found = append(found, e)
		}
	}
	return found
}

// TestBeginsAtOnce: with `--begin-timeout 0` it waits for nobody.
func TestBeginsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.collector("--begin-timeout", "0")
	s := r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 })
	if waited := s.Cycle.LastAt.Sub(*s.StartedAt); waited > time.Second {
		t.Errorf("it began after %v", waited)
	}
	if s.Coordinated || s.Mode != "coordinated" || s.Health != control.HealthDegraded {
		t.Errorf("coordinated %v, mode %s, %s", s.Coordinated, s.Mode, s.Health)
	}
}

// TestFrozenAgent: an agent that neither answers nor hangs up costs no snapshot: they go
// on at the pace that the pressure asks for, and all arrives once it goes on.
func TestFrozenAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	agent, p := r.agent(), r.collector()
	startStorm(t, 5, time.Second, 7*time.Second, 0)
	before := r.awaitState("monitoring", func(s *control.State) bool { return s.Cycle.Count > 0 && s.Coordinated && s.Delivery.State == "idle" })
	if err := agent.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	last := before.Cycle
	for range 3 {
		s := r.awaitState("the next snapshot", func(s *control.State) bool { return s.Cycle.Count > last.Count })
		if gap := s.Cycle.LastAt.Sub(*last.LastAt); gap > 8500*time.Millisecond { // 1.5 intervals, and a second
			t.Errorf("a snapshot came after %v", gap)
		}
		last = s.Cycle
	}
	s := r.awaitState("the reason", func(s *control.State) bool { return s.Health == control.HealthDegraded })
	if s.Collector.State != "running" || s.Store.BacklogEvents == 0 || len(s.Reasons) == 0 {
		t.Errorf("%+v, backlog %d, %q", s.Collector, s.Store.BacklogEvents, s.Reasons)
	}
	if err := agent.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.awaitState("relief", func(s *control.State) bool {
		return !s.Pressure.On && s.Interval.CurrentS == 5 && s.Health == control.HealthHealthy && s.Store.BacklogEvents < 100
	})
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	r.compare(r.inStream(), r.inStore())
}

// TestOutageBeyondTheBudget: nobody takes the events until they are more than may wait.
// The oldest are given up; what is left arrives, with word of what is not.
func TestOutageBeyondTheBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.collector("--begin-timeout", "0", "--max-backlog", "1MiB")
	storm := startStorm(t, 60, 2*time.Second, 6*time.Second, 3000)
	s := r.awaitState("something to be given up", func(s *control.State) bool { return s.Store.Shed > 0 && s.Pressure.On && s.Interval.CurrentS == 7.5 })
	if s.Health != control.HealthDegraded || s.Store.BacklogBytes > s.Store.BacklogBudget {
		t.Errorf("%s %q %+v %+v: backlog %d of %d", s.Health, s.Reasons, s.Pressure, s.Interval, s.Store.BacklogBytes, s.Store.BacklogBudget)
	}
	r.agent()
	storm.stop()
	r.awaitState("relief", func(s *control.State) bool { return !s.Pressure.On && s.Store.BacklogEvents == 0 && s.Coordinated })
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	inStore := r.inStore()
	r.compare(r.inStream(), inStore)
	seen := map[uint64]bool{}
	for _, s := range inStore {
		seen[decode(t, s).Seq] = true
	}
	missing := uint64(0)
	for _, e := range losses(t, inStore, event.LossShed) {
		for seq := e.Loss.FromSeq; seq <= e.Loss.ToSeq; seq++ {
			if !seen[seq] {
				seen[seq] = true
				missing++
			}
		}
	}
	for seq := range decode(t, inStore[len(inStore)-1]).Seq {
		if !seen[seq+1] {
			t.Fatalf("event %d is neither there nor declared lost", seq+1)
		}
	}
	if missing < s.Store.Shed {
		t.Errorf("%d events are missing, %d were given up", missing, s.Store.Shed)
	}
	t.Logf("%d events given up, all declared", missing)
}

// copyDir copies a directory of a stopped program.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// TestRestoredAgent: an older copy of the agent's store is put in its place; the
// collector sends again what that copy does not have.
func TestRestoredAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	agent, p := r.agent(), r.collector()
	r.awaitDelivered()
	if code := agent.stop(); code != 0 {
		t.Fatalf("the agent ended with %d", code)
	}
	copyDir(t, filepath.Join(r.dir, "broker"), filepath.Join(r.dir, "copy"))
	agent = r.agent()
	startStorm(t, 5, time.Second, 7*time.Second, 0)
	s := r.awaitRegistered()
	r.awaitState("new events to be delivered", func(now *control.State) bool { return now.Store.Cursor > s.Store.Head })
	agent.kill()
	copyDir(t, filepath.Join(r.dir, "copy"), filepath.Join(r.dir, "broker"))
	r.agent()
	r.awaitRegistered()
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	r.compare(r.inStream(), r.inStore())
}

// TestRestoredCollector: an older copy of the collector's store is put in its place. It
// begins a new epoch, says so, and keeps what it wrote before it knew.
func TestRestoredCollector(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.agent()
	p := r.collector()
	r.awaitDelivered()
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	copyDir(t, r.database, r.database+".copy")
	p = r.collector()
	startStorm(t, 5, time.Second, 7*time.Second, 0)
	r.awaitState("new events to be delivered", func(s *control.State) bool { return s.Cycle.Count > 1 && s.Store.BacklogEvents == 0 })
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	first := r.inStream()
	copyDir(t, r.database+".copy", r.database)
	p = r.collector()
	s := r.awaitState("the rewind", func(s *control.State) bool { return s.Store.RewoundTo != "" && s.Store.InService && s.Cycle.Count > 1 })
	if s.Health != control.HealthDegraded || !strings.Contains(strings.Join(s.Reasons, " "), s.Store.RewoundTo) {
		t.Errorf("%s %q", s.Health, s.Reasons)
	}
	if code := p.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	all := r.inStream()
	r.compare(all[:len(first)], first)
	r.compare(all[len(first):], r.inStore())
	if found := losses(t, all[len(first):], event.LossRewind); len(found) != 1 {
		t.Errorf("%d losses of this cause, want 1", len(found))
	}
	if _, err := os.Stat(s.Store.RewoundTo); err != nil {
		t.Error(err)
	}
}

// TestStrangers: who has no secret, or the wrong one, is turned away and counted; who has
// one reaches its own subjects only.
func TestStrangers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.agent()
	r.collector()
	before := r.awaitRegistered()
	if out, code := r.ask("enroll", "other"); code != 0 {
		t.Fatalf("enroll: exit %d: %s", code, out)
	}
	for user, secret := range map[string]string{"procmond": strings.Repeat("0", 64), "nobody": r.secret("procmond"), "other": r.secret("procmond"), "a.b": ""} {
		if _, err := r.tryConnect(user, secret); err == nil {
			t.Errorf("%q was let in with another's secret", user)
		}
	}
	other := r.connect("other", r.secret("other"))
	for _, subject := range []string{
		rpc.CollectorSubject("procmond"), rpc.HeartbeatSubject("procmond"), rpc.EventSubject(event.KindStart, "host", "procmond"), rpc.SubjectAgent, "$JS.API.STREAM.DELETE." + rpc.Stream,
	} {
		ask := nats.NewMsg(subject)
		ask.Reply = rpc.InboxPrefix("other") + ".x"
		if err := other.PublishMsg(ask); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{rpc.CollectorSubject("procmond"), "_INBOX.procmond.>", "events.>", ">"} {
		if _, err := other.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[string]int{
		"wrong secret": 2, "user not enrolled": 1, "unknown user": 1, "publishing to a subject not permitted": 5, "subscribing to a subject not permitted": 4,
	} {
		await(t, reason+" to be counted", func() bool {
			out, _ := r.ask("status")
			return slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
				return strings.HasPrefix(strings.Join(strings.Fields(line), " "), fmt.Sprintf("refused %d %s, last", want, reason))
			})
		})
	}
	if s := r.state(); s == nil || s.PID != before.PID || s.Registration.State != "registered" || s.Registration.Attempts != before.Registration.Attempts {
		t.Errorf("it felt them: %+v", s)
	}
}
