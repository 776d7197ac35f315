package broker

import (
	"context"
)

// Progress is told that a service moves, and what it turns to.
type Progress interface {
	Beat(activity string)
}

// Service is one part of the broker. It can be started again after it has ended,
// however it ended. It starts nothing that outlives Serve.
type Service struct {
	// Progress is set before the first start, or left nil. It is told at least every
	// 5 s.
	Progress Progress

	name  string
	serve func(ctx context.Context, beat func(string)) error
}

// String is the service's name: server, socket, listener or stream.
func (s *Service) String() string { return s.name }

// Serve runs until ctx ends, or until the service can't go on and says why.
func (s *Service) Serve(ctx context.Context) error {
	beat := func(string) {}
	if s.Progress != nil {
		beat = s.Progress.Beat
	}
	return s.serve(ctx, beat)
}
