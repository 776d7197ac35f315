package doctor

import (
	"runtime"

	"daemoneye.dev/procmond/collect/kernel"
)

const (
	eventsMissing = "Processes that start and end between two snapshots are not seen."
	eventsSecond  = "Arguments and executables of processes that end at once are often missing, and the daemon needs more processor time for each."
)

// kernelEvents says whether processes are missed that live shorter than from one
// snapshot to the next.
func (e *examiner) kernelEvents() Check {
	c := Check{Name: "kernel events", Status: Pass}
	s := e.events()
	if runtime.GOOS != "linux" && s.Source == kernel.SourceNone {
		c.Finding = "Only Linux has them."
		return c
	}
	switch s.Source {
	case string(kernel.ModeBPF):
		c.Finding = "They come from eBPF."
	case string(kernel.ModeConnector):
		c.Finding = "They come from the process connector."
		if s.Why != "" {
			c.Status, c.Cost, c.Finding = Note, eventsSecond, c.Finding+" Not used: "+s.Why+"."
		}
	default:
		c.Status, c.Cost, c.Finding = Note, eventsMissing, "There are none."
		if s.Mode == kernel.ModeOff {
			c.Finding, s.Mend = "They are turned off.", "event_driven: auto"
		} else if s.Why != "" {
			c.Finding += " Not used: " + s.Why + "."
		}
		if s.Faulty {
			c.Status = Fail
		}
	}
	if c.Mend = s.Mend; c.Status != Pass && c.Mend == "" {
		c.Mend = "Shorten the interval, which finds more of them"
	}
	if c.Status == Pass {
		c.Mend = ""
	}
	return c
}

// events are those of the daemon, or of one that is started now.
func (e *examiner) events() kernel.Status {
	s := e.Daemon.State
	begun := s != nil && (s.Sources.EventsSince != nil || s.Sources.EventsWanted == string(kernel.ModeOff))
	if s == nil || !s.Running || !begun {
		return e.Listen()
	}
	now := kernel.Status{
		Mode: kernel.Mode(s.Sources.EventsWanted), Source: s.Sources.Events,
		Why: s.Sources.EventsNote, Mend: s.Sources.EventsMend,
	}
	now.Faulty = now.Source == kernel.SourceNone && now.Mode != kernel.ModeAuto && now.Mode != kernel.ModeOff
	return now
}
