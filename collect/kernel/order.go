package kernel

import (
	"cmp"
	"slices"
	"time"
)

// Order puts records in the order in which they happened. What happens to one process
// on two CPUs within a moment may be read in the wrong order: so each record is held
// back for a while, in which an earlier one may still come.
//
// It is not safe for concurrent use.
type Order struct {
	window time.Duration
	most   int
	held   []Record
	last   time.Duration // At of the record given last
	late   uint64
}

// NewOrder holds each record back for window, and less the closer it is to holding
// most records: who can not keep up must not also wait.
func NewOrder(window time.Duration, most int) *Order {
	return &Order{window: window, most: most}
}

// Add takes records over. Those of which the source tells no time happened at now.
func (o *Order) Add(records []Record, now time.Duration) {
	for i := range records {
		if records[i].At == 0 {
			records[i].At = now
		}
		o.held = append(o.held, records[i])
	}
}

// Take appends the records that have been held back long enough at now to due, in
// order. One that is older than what was given before comes at once, and is counted.
func (o *Order) Take(now time.Duration, due []Record) []Record {
	slices.SortStableFunc(o.held, earlier)
	until := now - o.wait()
	n, _ := slices.BinarySearchFunc(o.held, until, func(r Record, until time.Duration) int {
		if r.At <= until {
			return -1
		}
		return 1
	})
	n = max(n, len(o.held)-o.most)
	for i := range o.held[:n] {
		if o.held[i].At < o.last {
			o.late++
		}
		o.last = max(o.last, o.held[i].At)
	}
	due = append(due, o.held[:n]...)
	left := copy(o.held, o.held[n:])
	clear(o.held[left:]) // lets go of the texts
	o.held = o.held[:left]
	return due
}

// All appends every record that is held back to due, in order.
func (o *Order) All(due []Record) []Record {
	if len(o.held) == 0 {
		return due
	}
	slices.SortStableFunc(o.held, earlier)
	return o.Take(o.held[len(o.held)-1].At+o.window, due)
}

// earlier orders by time. What happened to a process at one time happened in the order
// of its life.
func earlier(a, b Record) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Kind, b.Kind))
}

// wait is how long records are held back at present.
func (o *Order) wait() time.Duration {
	free := max(0, o.most-len(o.held))
	return time.Duration(float64(o.window) * float64(free) / float64(o.most))
}

// Held is how many records are held back.
func (o *Order) Held() int { return len(o.held) }

// Late is how many records were given after one that had happened later.
func (o *Order) Late() uint64 { return o.late }
