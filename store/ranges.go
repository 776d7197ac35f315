package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// span is a range of sequences, inclusive.
type span struct{ from, to uint64 }

func (s span) holds(seq uint64) bool { return s.from <= seq && seq <= s.to }

// lossRange is a range of sequences that one loss event accounts for: some of them
// are absent, and of no other range. The ranges of a store are disjoint, so that a
// sequence that is shed later is in one range at most, and every sequence at or above
// the floor that is absent is in exactly one. Below the floor there are none: the part
// of a range that retention has passed is cut off.
type lossRange struct {
	span
	absent uint64 // how many of them are
}

// readRanges reads the ranges of a database.
func readRanges(r pebble.Reader) (ranges []lossRange, err error) {
	lower, upper := keySpan(metaRange)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read ranges of losses: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		if len(it.Key()) != len(metaRange)+8 {
			continue
		}
		var l lossRange
		l.from = parseMetaNumber(it.Key()[len(metaRange):])
		l.to, l.absent = parseTwoNumbers(it.Value())
		ranges = append(ranges, l)
	}
	return ranges, errors.Join(it.Error(), it.Close())
}

// setRange adds a range, or changes the one that begins at the same sequence.
func (w *write) setRange(r lossRange) {
	must(w.batch.Set(rangeKey(r.from), twoNumbers(r.to, r.absent), nil))
	w.ranges = slices.Clone(w.ranges)
	i, found := slices.BinarySearchFunc(w.ranges, r.from, func(r lossRange, from uint64) int { return cmp.Compare(r.from, from) })
	if found {
		w.ranges[i] = r
		return
	}
	w.ranges = slices.Insert(w.ranges, i, r)
}

// dropRange removes a range.
func (w *write) dropRange(r lossRange) {
	must(w.batch.Delete(rangeKey(r.from), nil))
	w.ranges = slices.DeleteFunc(slices.Clone(w.ranges), func(o lossRange) bool { return o.from == r.from })
}

// cutRanges removes what lies below floor.
func (w *write) cutRanges(floor uint64) error {
	for len(w.ranges) > 0 && w.ranges[0].from < floor {
		r := w.ranges[0]
		w.dropRange(r)
		if r.to < floor {
			continue
		}
		there, err := w.tally(floor, r.to)
		if err != nil {
			return err
		}
		r.from = floor
		r.absent = r.to - floor + 1 - there.events
		w.setRange(r)
		break
	}
	return nil
}

// without returns what is left of s outside of ranges, which are ascending and
// disjoint.
func (s span) without(ranges []lossRange) (left []span) {
	if s.from > s.to {
		return nil
	}
	for _, r := range ranges {
		if r.to < s.from {
			continue
		}
		if r.from > s.to {
			break
		}
		if r.from > s.from {
			left = append(left, span{s.from, r.from - 1})
		}
		if r.to >= s.to {
			return left
		}
		s.from = r.to + 1
	}
	return append(left, s)
}

// bridge returns the fewest ranges that hold all spans and touch none of ranges,
// which are ascending and disjoint from the spans.
func bridge(spans []span, ranges []lossRange) (out []span) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for _, s := range spans {
		if len(out) > 0 {
			last := &out[len(out)-1]
			if hull := (span{last.from, max(last.to, s.to)}); len(hull.without(ranges)) == 1 && hull.without(ranges)[0] == hull {
				*last = hull
				continue
			}
		}
		out = append(out, s)
	}
	return out
}
