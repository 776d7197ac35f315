package hash

import (
	"context"
	"time"
)

const (
	// beatEvery bounds the time between two signs of life while nothing happens.
	beatEvery = 5 * time.Second
	// joinPatience is how long Serve waits at its end for a file.
	joinPatience = time.Second
	// lookLimit is when a look is given up for good: it may take as long on a host
	// that is only slow.
	lookLimit = 10 * time.Second
)

// What the service can be busy with.
const (
	activityIdle      = "idle"
	activityRead      = "read"
	activitySuspended = "suspended"
)

// service is one call of Serve.
type service struct {
	*Hasher
	reading *errand[result]   // nil: none
	looking *errand[struct{}] // nil: none
	look    look              // of looking
	file    reading           // of reading
}

// Serve digests what is asked for until ctx ends. After a failure it may be
// called again, but only once at a time.
func (h *Hasher) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &service{Hasher: h}
	defer s.leave()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.step(ctx, time.Now())
		timer.Reset(s.untilDue(time.Now()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-s.lookRequests():
			s.startLook(ctx, l)
		case out := <-s.looking.results():
			s.looking.cancel()
			s.looking = nil
			out.rethrow()
		case out := <-s.reading.results():
			s.endReading(out)
		case <-h.waiting:
		case <-timer.C:
		}
	}
}

// step gives up what hangs and starts what is due.
func (s *service) step(ctx context.Context, now time.Time) {
	if s.looking.late(now) {
		s.giveUpLook()
	}
	if s.reading.late(now) {
		s.giveUpReading()
	}
	activity := activityIdle
	if !s.works() {
		activity = activitySuspended
	} else if s.startReading(ctx); s.reading != nil {
		activity = activityRead
	}
	s.cfg.Progress.Beat(activity)
}

func (s *service) untilDue(now time.Time) time.Duration {
	until := beatEvery
	if s.looking != nil {
		until = min(until, s.looking.deadline.Sub(now))
	}
	if s.reading != nil {
		until = min(until, s.reading.deadline.Sub(now))
	}
	return max(0, until)
}

// lookRequests is nil while a look is under way.
func (s *service) lookRequests() <-chan look {
	if s.looking != nil {
		return nil
	}
	return s.looks
}

func (s *service) startLook(ctx context.Context, l look) {
	s.look = l
	s.looking = send(ctx, s.Hasher, lookLimit, func(ctx context.Context) struct{} {
		l.do(ctx, s.Hasher)
		return struct{}{}
	})
}

func (s *service) startReading(ctx context.Context) {
	if s.reading != nil {
		return
	}
	s.mu.Lock()
	r, ok := s.queue.first()
	s.mu.Unlock()
	if ok {
		s.file = r
		s.reading = send(ctx, s.Hasher, s.cfg.Deadline, func(ctx context.Context) result { return s.read(ctx, r) })
	}
}

// endReading hands out what came of a file.
func (s *service) endReading(out outcome[result]) {
	s.reading.cancel()
	s.reading = nil
	if out.panicked != nil {
		s.finish(result{failure: &skip{reason: reasonInternal}}) // or it would happen again, for ever
		out.rethrow()
	}
	if !out.value.stopped {
		s.finish(out.value)
	}
}

// finish hands a result to everybody who waits for the first file.
func (h *Hasher) finish(r result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Bytes += r.bytes
	switch {
	case r.failure == nil:
		h.stats.Hashed++
		if r.keep {
			h.cache.add(r.key, r.digest)
		}
		for _, t := range h.queue.finish() {
			h.deliver(t, doneHash(r.digest))
		}
	case r.failure.ofProcess():
		for _, t := range h.queue.shift(r.tried) {
			h.deliver(t, h.skipped(r.failure))
		}
	default:
		for _, t := range h.queue.finish() {
			h.deliver(t, h.skipped(r.failure))
		}
	}
}

// giveUpLook leaves a look behind. Its targets stay pending, but for the one that
// hangs: that is not asked for again.
func (s *service) giveUpLook() {
	culprit := s.look.hung()
	if !s.looking.abandon(s.Hasher) {
		return
	}
	s.looking = nil
	s.cfg.Log.WithField("executable", culprit.Exe).Warn("The file system of an executable does not answer")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliver(culprit, s.skipped(&skip{reason: reasonNoAnswer}))
}

// giveUpReading leaves a file behind.
func (s *service) giveUpReading() {
	if !s.reading.abandon(s.Hasher) {
		return
	}
	s.reading = nil
	s.cfg.Log.WithField("executable", s.file.doors[0].Exe).Warn("An executable can not be read: its file system does not answer")
	s.finish(result{failure: &skip{reason: reasonNoAnswer}})
}

// leave runs at the end of Serve, also when it panics.
func (s *service) leave() {
	s.looking.join(s.Hasher)
	s.reading.join(s.Hasher)
}
