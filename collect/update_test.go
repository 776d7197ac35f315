package collect

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIntervalInForce(t *testing.T) {
	minute, hour := time.Minute, time.Hour
	on, off := true, false
	i := Interval{}.configured(30 * time.Second)
	for _, step := range []struct {
		name string
		then func(Interval) Interval
		want time.Duration
		why  string
	}{
		{"configured", func(i Interval) Interval { return i }, 30 * time.Second, "configured"},
		{"pressure", func(i Interval) Interval { return i.adjusted(Adjust{Pressure: &on}) }, 45 * time.Second, "configured, stretched by pressure"},
		{"adjusted under pressure", func(i Interval) Interval { return i.adjusted(Adjust{Value: &minute}) }, 90 * time.Second, "adjusted, stretched by pressure"},
		{"never over an hour", func(i Interval) Interval { return i.adjusted(Adjust{Value: &hour}) }, time.Hour, "adjusted, stretched by pressure"},
		{"pressure is over", func(i Interval) Interval { return i.adjusted(Adjust{Pressure: &off}) }, time.Hour, "adjusted"},
		{"a configured change clears it", func(i Interval) Interval { return i.configured(10 * time.Second) }, 10 * time.Second, "configured"},
		{"adjusted again", func(i Interval) Interval { return i.adjusted(Adjust{Value: &minute}) }, time.Minute, "adjusted"},
		{"cleared", func(i Interval) Interval { return i.adjusted(Adjust{Clear: true}) }, 10 * time.Second, "configured"},
	} {
		i = step.then(i)
		if i.Current != step.want || i.Why() != step.why {
			t.Errorf("%s: %v (%s), want %v (%s)", step.name, i.Current, i.Why(), step.want, step.why)
		}
	}
}

func TestAdjustIntervalRearmsTheTimer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.begin()
		pass(3 * time.Second)
		short, long, on := 10*time.Second, time.Minute, true
		if got, err := w.handle.AdjustInterval(t.Context(), Adjust{Value: &short}); err != nil || got.Current != short || got.Configured != DefaultInterval {
			t.Errorf("%+v, %v", got, err)
		}
		pass(7 * time.Second)
		if got := w.host.scanCount(); got != 2 {
			t.Errorf("%d scans after 10 s", got)
		}
		if _, err := w.handle.AdjustInterval(t.Context(), Adjust{Value: &long, Pressure: &on}); err != nil {
			t.Fatal(err)
		}
		pass(89 * time.Second)
		if got := w.host.scanCount(); got != 2 {
			t.Errorf("%d scans", got)
		}
		pass(time.Second)
		if got := w.host.scanCount(); got != 3 {
			t.Errorf("%d scans", got)
		}
		for _, bad := range []Adjust{{Value: new(time.Duration)}, {Value: &long, Clear: true}} {
			if _, err := w.handle.AdjustInterval(t.Context(), bad); err == nil {
				t.Errorf("%+v was accepted", bad)
			}
		}
	})
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	var level string
	bubble(t, func(w *world) {
		w.cfg.Restart = []string{"database"}
		w.cfg.Hot = map[string]HotKey{"log_level": func(v string) (func(), error) {
			if v == "loud" {
				return nil, errors.New("want debug, info, warn or error")
			}
			return func() { level = v }, nil
		}}
	}, func(t *testing.T, w *world) {
		w.begin()
		w.store.take()
		_, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{
			KeyInterval: "4", KeyMinLifetime: "-1", KeyMemoryThreshold: "NaN", KeyCPUThreshold: "x", "log_level": "loud", "colour": "red", "database": "y",
		}})
		var refusal *UpdateError
		if !errors.As(err, &refusal) || len(refusal.Faults) != 6 {
			t.Fatalf("refusal %v", err)
		}
		for _, f := range refusal.Faults {
			if !strings.Contains(err.Error(), f.Key+": "+f.Reason) || f.Key == "database" {
				t.Errorf("fault %+v in %v", f, err)
			}
		}
		if got := w.handle.Status(); got.ConfigVersion != 1 || got.Interval.Current != DefaultInterval || level != "" {
			t.Errorf("a refused update had an effect: %+v, %q", got, level)
		}

		good := map[string]string{KeyInterval: "1m", KeyMinLifetime: "250", KeyMemoryThreshold: "0", KeyCPUThreshold: "12.5", "log_level": "debug", "database": "y"}
		keys := []string{KeyInterval, KeyCPUThreshold, "log_level", KeyMemoryThreshold, KeyMinLifetime}
		dry, err := w.handle.UpdateConfig(t.Context(), Update{Values: good, ValidateOnly: true})
		if err != nil || level != "" || dry.Version != 1 || w.handle.Status().Interval.Current != DefaultInterval {
			t.Errorf("dry run %+v, %v, %q", dry, err, level)
		}
		got, err := w.handle.UpdateConfig(t.Context(), Update{Values: good})
		want := UpdateResult{Version: 2, Applied: sorted(keys), RestartRequired: []string{"database"}}
		got.Applied = sorted(got.Applied)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		synctest.Wait()
		if s := w.cfg.Mailbox.run.settings; s.MinLifetime != 250*time.Millisecond || s.MemoryThreshold != 0 || s.CPUThreshold != 12.5 || s.Interval != time.Minute || level != "debug" {
			t.Errorf("settings %+v, level %q", s, level)
		}
		w.expect("it leaves a trace", "sensor config")
	})
}

func TestUpdateWhileAScanRuns(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		hang := make(chan struct{})
		w.host.with(func() { w.host.hang = hang })
		w.begin()
		for version, value := range map[uint64]string{2: "60"} {
			got, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{KeyInterval: value, KeyCPUThreshold: "1"}})
			if err != nil || got.Version != version || len(got.Pending) != 2 || len(got.Applied) != 0 {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if _, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{KeyInterval: "90"}}); err != nil {
			t.Error(err)
		}
		if got := w.handle.Status(); got.Interval.Current != DefaultInterval || len(got.Pending) != 2 {
			t.Errorf("in the middle: %+v", got)
		}
		w.host.with(func() { w.host.hang = nil })
		close(hang)
		synctest.Wait()
		if got := w.handle.Status(); got.Interval.Current != 90*time.Second || len(got.Pending) != 0 || got.ConfigVersion != 3 {
			t.Errorf("at the end: %+v", got)
		}
	})
}

func TestSettingsOutliveTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(w.collector())
		w.begin()
		on := true
		if _, err := w.handle.UpdateConfig(t.Context(), Update{Values: map[string]string{KeyInterval: "60"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.handle.AdjustInterval(t.Context(), Adjust{Pressure: &on}); err != nil {
			t.Fatal(err)
		}
		_ = w.stop()
		w.serve(w.collector())
		if got := w.handle.Status(); got.Interval.Current != 90*time.Second || got.ConfigVersion != 2 || got.State.State != "running" {
			t.Errorf("status %+v", got)
		}
		_ = w.stop()
	})
}

func TestCoordination(t *testing.T) {
	bubble(t, func(w *world) { w.cfg.HasLink = true }, func(t *testing.T, w *world) {
		got, err := w.handle.BeginMonitoring(t.Context(), Begin{Cause: "begin timeout"})
		if err != nil || !got.Changed || got.Coordinated {
			t.Errorf("%+v, %v", got, err)
		}
		health, _ := w.handle.HealthCheck(t.Context())
		if health.Level != LevelDegraded || health.Reasons[0] != "Monitoring began without an agent." {
			t.Errorf("health %+v", health)
		}
		got, err = w.handle.BeginMonitoring(t.Context(), Begin{Cause: "agent", Coordinated: true})
		if err != nil || got.Changed || !got.Coordinated || len(w.moves) != 1 {
			t.Errorf("%+v, %v, %d transitions", got, err, len(w.moves))
		}
		if health, _ := w.handle.HealthCheck(t.Context()); health.Level != LevelHealthy {
			t.Errorf("health %+v", health)
		}
	})
}
