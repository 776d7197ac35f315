package collect

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// job is one piece of work that touches the host: a scan, or probes of single
// processes. It runs on a goroutine of its own, on a copy of the table as it was
// when the job began.
type job struct {
	scanner  Scanner
	redactor *event.Redactor
	known    []entry // of the table, whose records nobody changes
	full     bool
	probes   []int32 // sorted; nil for a scan
	snapshot *Snapshot
	hashing  hashing

	began  time.Time
	cancel context.CancelFunc
	// done is sent to once, by the job, and received from by the actor, the one
	// that started it or a later one; its capacity lets the job end when nobody
	// is there. It is never closed.
	done chan jobResult
}

// jobResult is what came of a job.
type jobResult struct {
	err error
	// unsure are the PIDs, sorted, for which the host gave neither a process nor
	// the news that there is none.
	unsure []int32
	// hashes are those of processes that the table has without one.
	hashes   []HashTarget
	panicked any // what the job panicked with, or nil
	stack    []byte
}

// run does the job.
func (j *job) run(ctx context.Context) {
	var result jobResult
	defer func() {
		if p := recover(); p != nil {
			result = jobResult{panicked: p, stack: debug.Stack()}
		}
		j.done <- result
	}()
	if j.probes != nil {
		result = j.probe(ctx)
	} else {
		result = j.scan(ctx)
	}
}

func (j *job) probe(ctx context.Context) (result jobResult) {
	s := j.snapshot
	s.Began, s.Observations = time.Now(), s.Observations[:0]
	for _, pid := range j.probes {
		o, err := j.scanner.Probe(ctx, pid)
		if err == nil {
			s.Observations = append(s.Observations, o)
		} else if !errors.Is(err, ErrGone) {
			result.unsure = append(result.unsure, pid)
		}
	}
	s.Ended = time.Now()
	j.normalise()
	j.hash(ctx)
	result.err = ctx.Err()
	return result
}

func (j *job) scan(ctx context.Context) jobResult {
	if err := j.scanner.Scan(ctx, j.full, j.snapshot); err != nil {
		return jobResult{err: err}
	}
	j.sort()
	unsure := j.confirm(ctx)
	j.normalise()
	hashes := j.hash(ctx)
	return jobResult{unsure: unsure, hashes: hashes, err: ctx.Err()}
}

// sort repairs the order if a scanner broke its promise, and keeps one
// observation for each PID.
func (j *job) sort() {
	all := j.snapshot.Observations
	for i := 1; i < len(all); i++ {
		if all[i-1].PID >= all[i].PID {
			slices.SortStableFunc(all, func(a, b Observation) int { return cmp.Compare(a.PID, b.PID) })
			j.snapshot.Observations = slices.CompactFunc(all, func(a, b Observation) bool { return a.PID == b.PID })
			return
		}
	}
}

// confirm asks again for the processes of the table that the scan did not see,
// because a listing can miss one, and for those of which the scan brought less
// than is needed.
func (j *job) confirm(ctx context.Context) (unsure []int32) {
	var found []Observation
	i := 0
	for k := range j.snapshot.Observations {
		o := &j.snapshot.Observations[k]
		for i < len(j.known) && j.known[i].pid < o.PID {
			found, unsure = j.search(ctx, i, found, unsure)
			i++
		}
		if i < len(j.known) && j.known[i].pid == o.PID {
			j.complete(ctx, o, &j.known[i])
			i++
		} else {
			j.complete(ctx, o, nil)
		}
	}
	for ; i < len(j.known); i++ {
		found, unsure = j.search(ctx, i, found, unsure)
	}
	if len(found) > 0 {
		j.snapshot.Observations = append(j.snapshot.Observations, found...)
		j.sort()
	}
	return unsure
}

// search asks for an entry that was not in the scan. A PID that another entry
// has too was dealt with there.
func (j *job) search(ctx context.Context, i int, found []Observation, unsure []int32) ([]Observation, []int32) {
	e := &j.known[i]
	if i > 0 && j.known[i-1].pid == e.pid {
		return found, unsure
	}
	o, err := j.scanner.Probe(ctx, e.pid)
	switch {
	case err == nil:
		found = append(found, o)
	case !errors.Is(err, ErrGone):
		unsure = append(unsure, e.pid)
	}
	return found, unsure
}

// complete reads the record of a process that is new to the table but was not
// to the scanner.
func (j *job) complete(ctx context.Context, o *Observation, e *entry) {
	if o.Process != nil || e != nil && e.is(o) && !e.has(flagReread) && (!e.has(flagEnded) || o.ended()) {
		return
	}
	again, err := j.scanner.Probe(ctx, o.PID)
	if err == nil && again.Process != nil {
		*o = again
		return
	}
	o.Process = bare(err)
}

// bare is the record of a process that could not be read.
func bare(err error) *event.Process {
	var all event.FieldSet
	for i := range attributes {
		all = all.With(attributes[i].field)
	}
	all = all.With(event.FieldStartTime)
	if errors.Is(err, ErrGone) {
		return &event.Process{Missing: event.Mask{Gone: all}}
	}
	return &event.Process{Missing: event.Mask{Failed: all}}
}

// normalise makes the records what is compared and stored: without secrets, and
// within the limits. Both must come before the comparison, or a table that was
// loaded would differ from the host for ever.
func (j *job) normalise() {
	for i := range j.snapshot.Observations {
		o := &j.snapshot.Observations[i]
		if o.Process == nil {
			continue
		}
		o.Process.PID, o.Process.StartTicks = o.PID, o.StartTicks
		if j.redactor != nil {
			o.Process.Args = j.redactor.Redact(o.Process.Args)
			o.Process.Env = j.redactor.Redact(o.Process.Env)
		}
		event.ClipProcess(o.Process)
	}
}
