// Package doctor examines a host: what it allows a procmond to do, what is
// missing, what that costs, and what mends it. It changes nothing, and waits for
// nobody for long.
package doctor

import (
	"context"
	"time"

	"daemoneye.dev/procmond/collect/kernel"
	"daemoneye.dev/procmond/supervisor/control"
)

// Status says how a check ended.
type Status string

// The statuses.
const (
	Pass Status = "pass" // as it should be
	Note Status = "note" // it works, and could be better
	Fail Status = "fail" // it does not work, or endangers what is recorded
)

// Check is what was found out about one thing. It is part of a contract: the
// JSON of `procmond doctor --json`.
type Check struct {
	Name    string `json:"check"`
	Status  Status `json:"status"`
	Finding string `json:"finding"` // what is so
	Cost    string `json:"cost"`    // what that costs; empty if nothing
	Mend    string `json:"mend"`    // the command that mends it, or what else does
}

// Report is the result of an examination.
type Report struct {
	Status  Status    `json:"status"` // the worst of the checks
	Version string    `json:"version"`
	AsOf    time.Time `json:"as_of"`
	Checks  []Check   `json:"checks"`
}

// Config is what an examination is made of.
type Config struct {
	Version  string
	Self     int    // our own PID
	Proc     string // where the process file system is
	Sys      string // where sysfs is
	Database string // absolute path of the store, which need not exist
	// Daemon is what is known of the daemon of that database.
	Daemon Daemon
	// Broker is the socket that the environment names, or empty; ID is the name of
	// this collector there.
	Broker, ID string
	// Listen tells which kernel events a daemon that is started now would have.
	Listen func() kernel.Status
	// Faults are what is wrong with the configuration, as it is seen from here.
	Faults []string
	// KeepBytes is how large the store may get; 0 is no bound.
	KeepBytes uint64
}

// Daemon is the daemon of the database, if one runs.
type Daemon struct {
	State *control.State // nil: it could not be asked
	Err   error          // why not
}

// examiner is one examination.
type examiner struct {
	Config
	pid     int    // of the daemon, or our own
	subject string // who that is, for a sentence
}

// Examine makes every check there is on this platform.
func Examine(ctx context.Context, c Config) Report {
	e := &examiner{Config: c, pid: c.Self, subject: "A procmond that you start"}
	if s := c.Daemon.State; s != nil && s.Running && s.PID > 0 {
		e.pid, e.subject = s.PID, "The daemon"
	}
	r := Report{Status: Pass, Version: c.Version, AsOf: time.Now()}
	checks := []Check{e.daemon(), e.configuration()}
	checks = append(checks, e.host()...)
	checks = append(checks, e.kernelEvents())
	checks = append(checks, e.clock(r.AsOf), e.files(), e.store(), e.disk(), e.socket(), e.agent(ctx))
	for _, check := range checks {
		if check.Status == "" {
			continue // does not apply
		}
		r.Checks = append(r.Checks, check)
		r.Status = worse(r.Status, check.Status)
	}
	return r
}

func worse(a, b Status) Status {
	rank := map[Status]int{Pass: 0, Note: 1, Fail: 2}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// Count is how many checks ended so.
func (r *Report) Count(s Status) int {
	n := 0
	for i := range r.Checks {
		if r.Checks[i].Status == s {
			n++
		}
	}
	return n
}
