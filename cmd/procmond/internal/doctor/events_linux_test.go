package doctor

import (
	"testing"
	"time"

	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/supervisor/control"
)

func TestKernelEvents(t *testing.T) {
	const why, mend = "ebpf: the daemon has no CAP_BPF", "grant CAP_BPF"
	for _, c := range []struct {
		events  kernel.Status
		status  Status
		finding string
	}{
		{kernel.Status{Mode: kernel.ModeAuto, Source: "ebpf"}, Pass, "from eBPF"},
		{kernel.Status{Mode: kernel.ModeConnector, Source: "connector"}, Pass, "from the process connector"},
		{kernel.Status{Mode: kernel.ModeAuto, Source: "connector", Why: why, Mend: mend}, Note, "Not used: " + why},
		{kernel.Status{Mode: kernel.ModeAuto, Source: "none", Why: why}, Note, "There are none. Not used: " + why},
		{kernel.Status{Mode: kernel.ModeBPF, Source: "none", Why: why, Mend: mend, Faulty: true}, Fail, why},
		{kernel.Status{Mode: kernel.ModeOff, Source: "none"}, Note, "turned off"},
	} {
		started := examiner{Config: Config{Listen: func() kernel.Status { return c.events }}}
		want(t, started.kernelEvents(), c.status, c.finding)
		runs := examiner{Config: Config{Daemon: Daemon{State: runningWith(c.events)}, Listen: func() kernel.Status {
			t.Errorf("%+v: the daemon was not asked", c.events)
			return kernel.Status{}
		}}}
		want(t, runs.kernelEvents(), c.status, c.finding)
	}
}

// runningWith is the state of a daemon that has these events.
func runningWith(s kernel.Status) *control.State {
	sources := control.Sources{Events: s.Source, EventsWanted: string(s.Mode), EventsNote: s.Why, EventsMend: s.Mend}
	if s.Mode != kernel.ModeOff {
		sources.EventsSince = control.At(time.Unix(1, 0))
	}
	return &control.State{Running: true, Sources: sources}
}
