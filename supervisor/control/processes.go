package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// Processes is the process table of the daemon.
type Processes interface {
	// ProcessesAt returns the processes that lived at a moment; zero is the newest
	// table. It may take seconds, and calls progress now and then. ctx ends it. Errors
	// are [*BeforeRecordError], [ErrUnavailable], or others.
	ProcessesAt(ctx context.Context, at time.Time, progress func(done, total uint64)) (*ProcessTable, error)
}

// ProcessTable is the process table as it was at one moment.
type ProcessTable struct {
	At        time.Time // the moment
	AsOf      time.Time // when the daemon's newest table was complete; zero: never
	Gaps      []event.Loss
	Processes []TableProcess // by PID
}

// TableProcess is a process of the table.
type TableProcess struct {
	Process *event.Process
	Doubts  []Doubt
}

// Doubt is why something about a process of a table is not certain.
type Doubt string

// The doubts.
const (
	// DoubtSeenLater: the record is of a later moment, by which it may have changed.
	DoubtSeenLater Doubt = "seen_later"
	// DoubtMayHaveEnded: it was found to have ended later, and not seen between.
	DoubtMayHaveEnded Doubt = "may_have_ended"
	// DoubtEndLost: it has ended, and when is not kept.
	DoubtEndLost Doubt = "end_lost"
)

// BeforeRecordError says that nothing is kept of the moment asked for.
type BeforeRecordError struct {
	Oldest time.Time // when the oldest event that is kept was observed; zero: there is none
}

func (e *BeforeRecordError) Error() string {
	if e.Oldest.IsZero() {
		return "no events are kept"
	}
	return fmt.Sprintf("the oldest event that is kept was observed at %s", e.Oldest.Format(time.RFC3339))
}

// The lines of an answer: any number of the first, one of the second, and then one of
// the third for each process.
type (
	progressLine struct {
		Progress struct {
			Done  uint64 `json:"done"`
			Total uint64 `json:"total"`
		} `json:"progress"`
	}
	tableLine struct {
		Table TableHead `json:"table"`
	}
	processLine struct {
		Process json.RawMessage `json:"process"`
		Doubts  []Doubt         `json:"doubts,omitempty"`
	}
)

// TableHead is what is said of a table before its processes.
type TableHead struct {
	At        *time.Time `json:"at"`    // null: never
	AsOf      *time.Time `json:"as_of"` // null: never
	Processes int        `json:"processes"`
	Gaps      []TableGap `json:"gaps"`
}

// TableGap is a time around the moment in which something went unseen, or was lost.
type TableGap struct {
	Cause string     `json:"cause"` // as of a loss event
	From  *time.Time `json:"from"`  // null: not known
	To    *time.Time `json:"to"`
	Hint  string     `json:"hint,omitempty"`
}

// Head is what is said of t before its processes.
func (t *ProcessTable) Head() TableHead {
	h := TableHead{At: moment(t.At), AsOf: moment(t.AsOf), Processes: len(t.Processes), Gaps: []TableGap{}}
	for _, g := range t.Gaps {
		h.Gaps = append(h.Gaps, TableGap{Cause: g.Cause.String(), From: moment(g.From), To: moment(g.To), Hint: g.Hint})
	}
	return h
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
