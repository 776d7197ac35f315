package bus

import (
	"sync"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// DeliveryState is what a [Publisher] does, in one word.
type DeliveryState string

// The states of delivery.
const (
	DeliveryDisconnected DeliveryState = "disconnected" // no connection, or the service does not run
	DeliveryResuming     DeliveryState = "resuming"     // asking the agent what its stream holds
	DeliveryIdle         DeliveryState = "idle"         // everything durable is delivered
	DeliverySending      DeliveryState = "sending"
	DeliveryFull         DeliveryState = "full"     // the stream refuses for want of room; tried again
	DeliveryFailing      DeliveryState = "failing"  // tried again; LastError says why
	DeliveryDraining     DeliveryState = "draining" // somebody waits in Drain
)

// PublisherStatus is how a [Publisher] stands. All counters are since the process
// started.
type PublisherStatus struct {
	State    DeliveryState
	Since    time.Time // in this state
	Draining bool      // somebody waits in Drain, whatever the state
	Window   int       // events in a batch, at most

	Epoch     event.Epoch // of the store, zero before the first answer of the agent
	Delivered uint64      // last sequence of it that the stream holds

	DeliveredTotal uint64 // events acknowledged, duplicates included
	Batches        uint64 // acknowledged, single messages included
	Duplicates     uint64 // events that the stream held already when they were sent
	Resumes        uint64 // times that the agent was asked, and the store took its answer
	Full           uint64 // refusals for want of room
	Unknown        uint64 // batches and messages whose fate was not known

	InFlight      int       // events sent and not yet acknowledged
	InFlightSince time.Time // zero if there are none
	LastAck       time.Duration
	LastAckAt     time.Time
	// FailingSince is when delivery began to fail without a success since; zero: it
	// does not.
	FailingSince time.Time
	// LastError is printable and kept when it is over; empty: none yet.
	LastError   string
	LastErrorAt time.Time
}

// publisherState is a status that many may read.
type publisherState struct {
	mu     sync.Mutex // guards status
	status PublisherStatus
}

func (s *publisherState) snapshot() PublisherStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *publisherState) change(f func(*PublisherStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// enter changes the state; nothing is in flight then.
func (s *publisherState) enter(state DeliveryState) {
	s.change(func(p *PublisherStatus) {
		p.InFlight, p.InFlightSince = 0, time.Time{}
		if p.State != state {
			p.State, p.Since = state, time.Now()
		}
		switch state {
		case DeliveryFailing:
			if p.FailingSince.IsZero() {
				p.FailingSince = time.Now()
			}
		case DeliveryIdle, DeliveryFull, DeliveryDisconnected:
			p.FailingSince = time.Time{}
		}
	})
}

func (s *publisherState) sent(n int) {
	s.change(func(p *PublisherStatus) { p.InFlight, p.InFlightSince = n, time.Now() })
}

func (s *publisherState) failed(err error) {
	s.change(func(p *PublisherStatus) { p.LastError, p.LastErrorAt = describe(err), time.Now() })
}

func (s *publisherState) resumed(epoch event.Epoch, cursor uint64) {
	s.change(func(p *PublisherStatus) { p.Epoch, p.Delivered, p.Resumes = epoch, cursor, p.Resumes+1 })
}

// acknowledged counts n events up to seq, some of them duplicates.
func (s *publisherState) acknowledged(n, duplicates int, seq uint64) {
	s.change(func(p *PublisherStatus) {
		now := time.Now()
		p.LastAck, p.LastAckAt = now.Sub(p.InFlightSince), now
		p.InFlight, p.InFlightSince, p.FailingSince = 0, time.Time{}, time.Time{}
		p.Delivered, p.DeliveredTotal = seq, p.DeliveredTotal+uint64(n)
		p.Duplicates += uint64(duplicates)
		p.Batches++
	})
}
