package collect

import (
	"fmt"
	"time"
)

// Level is how well the collector is. Higher is worse.
type Level uint8

// The levels.
const (
	LevelHealthy Level = iota
	LevelDegraded
	LevelUnhealthy
)

func (l Level) String() string {
	return [...]string{"healthy", "degraded", "unhealthy"}[l]
}

// Health is the answer to a health check.
type Health struct {
	Level   Level
	Reasons []string // one sentence each; none if healthy
	Status  Status
}

// judge is the health that a status speaks of.
func judge(s Status) Health {
	h := Health{Status: s, Reasons: s.Degraded}
	if !s.OutOfServiceSince.IsZero() {
		outage := fmt.Sprintf("The store is out of service since %s: %s.", s.OutOfServiceSince.Local().Format(time.DateTime), s.LastError)
		h.Reasons = append([]string{outage}, h.Reasons...)
	}
	switch {
	case s.Stuck:
		h.Level = LevelUnhealthy
	case len(h.Reasons) > 0:
		h.Level = LevelDegraded
	}
	return h
}

// blocked reports whether the actor has been at something over which it does not
// answer for longer than a health check waits.
func (m *Mailbox) blocked(now time.Time) bool {
	switch s := m.Status(); s.Activity {
	case activityLoad, activityJournal, activityCompare, activityAppend:
		return now.Sub(s.ActivitySince) > healthPatience
	}
	return false
}

// busy is the health of an actor that does not answer.
func (m *Mailbox) busy(now time.Time) Health {
	s := m.Status()
	h := judge(s)
	h.Level = LevelUnhealthy
	reason := fmt.Sprintf("Collector busy %d s in %s.", int(now.Sub(s.ActivitySince).Seconds()), s.Activity)
	h.Reasons = append([]string{reason}, h.Reasons...)
	return h
}
