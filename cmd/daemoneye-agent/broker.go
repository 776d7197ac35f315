package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/bus/broker"
	"daemoneye.dev/procmond/supervisor/tree"
)

// openBroker makes the broker and its services, in the order in which they are needed.
// refuse is called with what another start alone does not mend.
func (r *agentRun) openBroker(refuse context.CancelCauseFunc) (*broker.Broker, []agent.Service, error) {
	v, _ := readBuild()
	b, err := broker.New(broker.Config{
		Socket: r.socket, Group: r.gid, AllowUIDs: r.allowUIDs, Store: r.store,
		Listen: r.listen, TLSCert: r.tlsCert, TLSKey: r.tlsKey,
		MaxBytes: int64(r.maxBytes), MaxAge: r.maxAge, Duplicates: r.duplicates,
		Version: v, Log: r.log,
	})
	if err != nil {
		return nil, nil, &exitError{code: exitConfiguration, err: err}
	}
	var services []agent.Service
	for _, s := range b.Services() {
		progress := new(tree.Progress)
		s.Progress = progress
		services = append(services, agent.Service{
			Group: "broker", Service: &brokerService{Service: s, refuse: refuse}, Options: tree.Options{Progress: progress},
		})
	}
	return b, services, nil
}

// brokerService ends the agent where its broker can not be: a person has to do
// something.
type brokerService struct {
	*broker.Service
	refuse context.CancelCauseFunc
}

// Serve runs the broker's service.
func (s *brokerService) Serve(ctx context.Context) error {
	err := s.Service.Serve(ctx)
	if code := brokerCode(err); ctx.Err() == nil && code != exitOK {
		s.refuse(&exitError{code: code, err: fmt.Errorf("run broker: %w", err), hint: brokerHint(code)})
		return fmt.Errorf("%w: %w", tree.ErrDone, err)
	}
	return err
}

// brokerCode is exitOK for an error that may go away.
func brokerCode(err error) exitCode {
	switch {
	case errors.Is(err, broker.ErrInUse), errors.Is(err, broker.ErrStoreInUse):
		return exitInUse
	case errors.Is(err, fs.ErrPermission):
		return exitPermission
	}
	return exitOK
}

func brokerHint(code exitCode) string {
	if code == exitPermission {
		return "Run as the user that owns it, or give another --socket or --store."
	}
	return "Stop the other agent, or give this one another --socket and --store."
}

// enroll makes the secret of a user of the broker and lets a group read it. One that
// is there is an fs.ErrExist, or is replaced.
func enroll(socket, user string, gid int, rotate bool) error {
	return broker.Enroll(socket, user, broker.Enrollment{Group: gid, Rotate: rotate})
}
