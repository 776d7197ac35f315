package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// The marks of shedding, in percent of Config.MaxBacklog. When an append would take the backlog
// above the budget, it is shed down to shedTo. Losses, and stops, without which a
// receiver would take processes for alive, stay then. If they alone are so many that
// the backlog can not come down to there, it may grow to shedAll, where they are not
// spared any more; up to there it is tried again every shedStep.
const (
	shedTo   = 90
	shedAll  = 120
	shedStep = 5
)

// maxRewrite bounds, in bytes, what of the events spared is written again at a time:
// one deletion over all, and then those spared, is what leaves readers least to skip.
const maxRewrite = 4 << 20

// mustShed reports whether a write takes the backlog above what it may be.
func (s *Store) mustShed(w *write) bool {
	if !s.conf.Owed || w.total == w.session.total {
		return false
	}
	return w.backlog().bytes > max(s.conf.MaxBacklog, w.patience)
}

func (s *Store) percent(n uint64) uint64 { return s.conf.MaxBacklog / 100 * n }

// shed makes room for next, a write that does not fit, in a batch of its own. cause
// is its first event. Where nothing can be shed it does nothing.
func (s *Store) shed(n *session, next *write, cause *event.Event) error {
	level, more := next.backlog().bytes, next.total-n.total
	excess := level - s.percent(shedTo)
	// Where a receiver that was restored made the backlog jump, there is more excess
	// than one append should wait for: the rest is left to later ones.
	p, err := n.planToSpare(min(excess, more+s.percent(100-shedTo)))
	if err == nil && p.exhausted && level > s.percent(shedAll) {
		p, err = n.planAll(min(excess, more+s.percent(shedAll-shedTo)))
	}
	if err != nil {
		return s.readFailed(err)
	}
	n.patience = 0
	if p.exhausted {
		n.patience = min(level-p.shed.bytes+s.percent(shedStep), s.percent(shedAll))
	}
	if p.shed.events == 0 {
		return nil
	}
	return s.carryOutShedding(n, p, cause)
}

// carryOutShedding makes a plan durable. Until it is, readers are shown what was
// before.
func (s *Store) carryOutShedding(n *session, p *shedding, cause *event.Event) error {
	w := n.newWrite()
	defer discard(w.batch)
	if err := w.shed(p, s.lossOf(p, cause)); err != nil {
		return s.readFailed(err)
	}
	n.freeze()
	err := s.commit(n, w.seal())
	n.thaw() // before the new head is shown, which is not in what was frozen
	if err != nil {
		return err
	}
	s.show(n, w)
	s.mu.Lock()
	s.stats.Shed += p.shed.events
	s.stats.Sheds++
	s.mu.Unlock()
	s.conf.Log.WithField("from", p.from).WithField("to", p.to).WithField("events", p.shed.events).
		Warn("The backlog is over its budget: events that were not delivered are removed")
	return nil
}

// lossOf is the loss event of a plan, but for its range. It says to be of the same
// host as cause.
func (s *Store) lossOf(p *shedding, cause *event.Event) *event.Event {
	now := s.wall()
	return &event.Event{
		HostID: cause.HostID, BootID: cause.BootID,
		Kind: event.KindLoss, Source: event.SourceSensor, Time: now, Observed: now,
		Loss: &event.Loss{
			Cause: event.LossShed, From: p.since, To: p.until, Count: p.shed.events + p.told, Known: true,
			Hint: fmt.Sprintf("Removed undelivered, because what waits for delivery may take %d MiB (--max-backlog): %s.", s.conf.MaxBacklog>>20, p.kinds),
		},
	}
}

// shedding is what is to be shed: of the events from..to that are there, all but
// those spared.
type shedding struct {
	span
	shed  tally
	spare bool
	kinds kindCounts
	// since and until are when the first and the last of them were observed.
	since, until time.Time
	// exhausted says that the end of the backlog was reached before there was enough.
	exhausted bool

	// What only a plan without sparing has: ranges of loss events that are shed, the
	// events that these say were lost, and by range of the ledger what more of it is
	// absent.
	merged []lossRange
	told   uint64
	more   map[uint64]uint64 // by the range's first sequence
}

// kindCounts counts events by kind.
type kindCounts [event.KindSensor + 1]uint64

func (c kindCounts) String() string {
	var parts []string
	for kind, n := range c {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, event.Kind(kind)))
		}
	}
	return strings.Join(parts, ", ")
}

// isSpared reports whether an event of this kind stays.
func isSpared(k event.Kind) bool { return k == event.KindStop || k == event.KindLoss }

// kindOf is KindUnknown for what can not be read.
func kindOf(encoded []byte) event.Kind {
	k, _ := event.PeekKind(encoded) // verify tells
	return k
}

// take adds an event to the plan.
func (p *shedding) take(seq uint64, encoded []byte) {
	if p.shed.events == 0 {
		p.from = seq
		p.since = observed(encoded)
	}
	p.to = seq
	p.shed.add(len(encoded))
	p.kinds[kindOf(encoded)]++
}

// observed is when an encoded event was; zero if that can not be read.
func observed(encoded []byte) time.Time {
	var e event.Event
	if event.Decode(encoded, &e) != nil {
		return time.Time{}
	}
	return e.Observed
}

// planToSpare plans to shed the oldest events that are owed, of want bytes, but for
// those spared. It stays between two ranges of the ledger: inside of them everything
// else is gone already.
func (n *session) planToSpare(want uint64) (*shedding, error) {
	for _, gap := range (span{n.cursor + 1, n.head}).without(n.ranges) {
		p, err := n.planIn(gap, want)
		if err != nil || p.shed.events > 0 {
			p.exhausted = p.exhausted && gap.to == n.head
			return p, err
		}
	}
	return &shedding{exhausted: true}, nil
}

func (n *session) planIn(gap span, want uint64) (*shedding, error) {
	p := &shedding{spare: true}
	it, err := n.eventsIn(gap.from, gap.to)
	if err != nil {
		return p, err
	}
	rewrite := 0 // if the next event is shed
	for it.First(); it.Valid() && p.shed.bytes < want && rewrite < maxRewrite; it.Next() {
		value := it.Value()
		if !isSpared(kindOf(value)) {
			seq, _ := parseNumber(it.Key())
			p.take(seq, value)
		} else if p.shed.events > 0 {
			rewrite += len(value)
		}
	}
	p.exhausted = !it.Valid() && p.shed.bytes < want
	err = errors.Join(it.Error(), it.Close())
	if err == nil {
		err = n.setUntil(p)
	}
	return p, err
}

func (n *session) setUntil(p *shedding) error {
	if p.shed.events == 0 {
		return nil
	}
	value, closer, err := n.db.Get(eventKey(p.to))
	if err != nil {
		return err
	}
	p.until = observed(value)
	return closer.Close()
}

// planAll plans to shed the oldest events that are owed, of want bytes, whatever
// they are.
func (n *session) planAll(want uint64) (*shedding, error) {
	p := &shedding{more: map[uint64]uint64{}}
	it, err := n.eventsIn(n.cursor+1, n.head)
	if err != nil {
		return p, err
	}
	ranges := n.ranges
	for it.First(); it.Valid() && p.shed.bytes < want; it.Next() {
		seq, _ := parseNumber(it.Key())
		value := it.Value()
		p.take(seq, value)
		for len(ranges) > 0 && ranges[0].to < seq {
			ranges = ranges[1:]
		}
		if len(ranges) > 0 && ranges[0].holds(seq) {
			p.more[ranges[0].from]++
		}
		if kindOf(value) == event.KindLoss {
			p.merge(value)
		}
	}
	err = errors.Join(it.Error(), it.Close())
	if err == nil {
		err = n.setUntil(p)
	}
	return p, err
}

// merge takes over what a loss event that is shed tells.
func (p *shedding) merge(encoded []byte) {
	var e event.Event
	if event.Decode(encoded, &e) != nil || e.Loss == nil || e.Loss.ToSeq == 0 {
		return
	}
	p.merged = append(p.merged, lossRange{span: span{e.Loss.FromSeq, e.Loss.ToSeq}})
	if e.Loss.Known {
		p.told += e.Loss.Count
	}
	if !e.Loss.From.IsZero() && e.Loss.From.Before(p.since) {
		p.since = e.Loss.From
	}
}

// shed carries out a plan, and appends loss, once for each range that must be told.
// If loss events told before account for all that is shed, it tells no range.
func (w *write) shed(p *shedding, loss *event.Event) error {
	if err := w.delete(p); err != nil {
		return err
	}
	w.settled = w.settled.plus(p.shed)
	must(w.batch.Set([]byte(metaCursor), w.cursorRecord(), nil))

	counted := *loss.Loss
	counted.Count = p.shed.events // what merged ones told was counted when they were appended
	w.count(&counted)
	spans := w.account(p)
	if len(spans) == 0 {
		spans = []span{{}}
	}
	for i, s := range spans {
		e := *loss
		told := *loss.Loss
		told.FromSeq, told.ToSeq = s.from, s.to
		if i > 0 {
			told.Count, told.Known = 0, false // the first one has them all
		}
		e.Loss = &told
		if err := w.record(&e); err != nil {
			return err
		}
		if err := w.cover(p, s); err != nil {
			return err
		}
	}
	return nil
}

// delete removes the events of a plan, and writes those spared again.
func (w *write) delete(p *shedding) error {
	w.noteRemoved()
	must(w.batch.DeleteRange(eventKey(p.from), eventKey(p.to+1), nil))
	if !p.spare {
		return nil
	}
	it, err := w.eventsIn(p.from, p.to)
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		if value := it.Value(); isSpared(kindOf(value)) {
			must(w.batch.Set(it.Key(), value, nil))
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// account brings the ledger's ranges up to date, and returns what a new one must
// account for: the fewest ranges that touch none of those left.
func (w *write) account(p *shedding) []span {
	spans := make([]span, 0, len(p.merged)+1)
	for _, r := range p.merged {
		spans = append(spans, r.span)
	}
	for _, r := range w.ranges {
		if p.tells(r) {
			w.dropRange(r)
		} else if more := p.more[r.from]; more > 0 {
			r.absent += more
			w.setRange(r)
		}
	}
	spans = append(spans, p.without(w.ranges)...)
	return bridge(spans, w.ranges)
}

// tells reports whether r is of a loss event that is shed. Retention may have cut off
// its beginning.
func (p *shedding) tells(r lossRange) bool {
	for _, m := range p.merged {
		if m.to == r.to && m.from <= r.from {
			return true
		}
	}
	return false
}

// cover adds a range of a loss event to the ledger.
func (w *write) cover(p *shedding, s span) error {
	s.from = max(s.from, w.floor)
	if s.to < s.from {
		return nil // nothing, or below the floor
	}
	r := lossRange{span: s, absent: p.shed.events}
	if !p.spare {
		before, err := w.tally(s.from, min(s.to, p.from-1))
		if err != nil {
			return err
		}
		after, err := w.tally(max(s.from, p.to+1), s.to)
		if err != nil {
			return err
		}
		r.absent = s.to - s.from + 1 - before.events - after.events
	}
	w.setRange(r)
	return nil
}
