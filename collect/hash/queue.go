package hash

import "daemoneye.dev/procmond/collect"

// queue holds the files that are to be digested, each with the processes that
// wait for it. The first stays in it until its result is there, so that a file is
// read once whoever asks meanwhile, and a restart forgets nothing. It is not safe
// for concurrent use.
type queue struct {
	limit   int // of processes
	size    int // processes
	order   []key
	waiters map[key][]collect.HashTarget
	asked   map[waiter]key
}

// waiter is a process; it waits for one file at a time.
type waiter struct {
	pid   int32
	ticks uint64
}

func newQueue(limit int) queue {
	return queue{limit: limit, waiters: make(map[key][]collect.HashTarget), asked: make(map[waiter]key)}
}

// What became of a process that was to be added.
type queueAnswer uint8

const (
	queueAdded queueAnswer = iota
	queueKnown             // it waits for this file already
	queueFull              // there was no room
)

func waiterOf(t *collect.HashTarget) waiter { return waiter{t.PID, t.StartTicks} }

func (q *queue) add(k key, t collect.HashTarget) queueAnswer {
	w := waiterOf(&t)
	if before, ok := q.asked[w]; ok && before == k {
		return queueKnown
	}
	if q.size >= q.limit {
		delete(q.asked, w) // what it waits for is not its file any more
		return queueFull
	}
	if len(q.waiters[k]) == 0 {
		q.order = append(q.order, k)
	}
	q.waiters[k] = append(q.waiters[k], t)
	q.asked[w] = k // it is not told of another file that it waits for: the path may be the same
	q.size++
	return queueAdded
}

// first is what is next to be read; false if there is nothing.
func (q *queue) first() (reading, bool) {
	if len(q.order) == 0 {
		return reading{}, false
	}
	k := q.order[0]
	doors := q.waiters[k]
	return reading{key: k, doors: append([]collect.HashTarget(nil), doors[:min(mostDoors, len(doors))]...)}, true
}

// finish takes the first file out and returns who waits for it.
func (q *queue) finish() []collect.HashTarget {
	k := q.order[0]
	all := q.waiters[k]
	q.order = q.order[1:]
	delete(q.waiters, k)
	return q.forget(k, all)
}

// shift takes the first n who wait for the first file out, and puts the file
// behind all others if anybody is left.
func (q *queue) shift(n int) []collect.HashTarget {
	k := q.order[0]
	all := q.waiters[k]
	if n >= len(all) {
		return q.finish()
	}
	q.order = append(q.order[1:], k)
	q.waiters[k] = all[n:]
	return q.forget(k, all[:n])
}

// forget returns those of who that have asked for no other file since.
func (q *queue) forget(k key, who []collect.HashTarget) []collect.HashTarget {
	q.size -= len(who)
	var waiting []collect.HashTarget
	for i := range who {
		if w := waiterOf(&who[i]); q.asked[w] == k {
			delete(q.asked, w)
			waiting = append(waiting, who[i])
		}
	}
	return waiting
}
