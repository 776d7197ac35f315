package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"daemoneye.dev/procmond/bus/agent/operator"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
)

// clientFlags say which agent a client command is about.
type clientFlags struct {
	Socket *string `placeholder:"PATH" help:"Socket of the agent's broker. Default: as for run; all default places are tried."`
}

// outputFlags say how a client command prints its answer.
type outputFlags struct {
	Output string `short:"o" enum:"table,json" default:"table" placeholder:"FORM" help:"table, or json."`
	JSON   bool   `name:"json" help:"The same as -o json."`
}

func (f *outputFlags) json() bool { return f.JSON || f.Output == "json" }

const (
	// askDeadline is for what the agent answers by itself.
	askDeadline = 2 * time.Second
	// collectorDeadline is for what it has to ask a collector.
	collectorDeadline = 10 * time.Second
	// shutdownDeadline lets a collector finish its cycle and deliver what it has.
	shutdownDeadline = 60 * time.Second
)

// dial connects to the first agent that is there.
func (p invocation) dial(f *clientFlags, follow bool, changed func(bool)) (*operator.Client, error) {
	sockets, err := p.clientSockets(f.Socket)
	if err != nil {
		return nil, err
	}
	var first error
	for _, socket := range sockets {
		client, err := operator.Dial(socket, follow, changed)
		if err == nil {
			return client, nil
		}
		if first == nil || errors.Is(first, operator.ErrNotRunning) && !errors.Is(err, operator.ErrNotRunning) {
			first = err
		}
	}
	if errors.Is(first, operator.ErrNotRunning) && len(sockets) > 1 {
		return nil, fmt.Errorf("%w: nobody listens on %s", operator.ErrNotRunning, strings.Join(sockets, ", "))
	}
	return nil, first
}

// ask asks the agent one thing.
func (p invocation) ask(ctx context.Context, f *clientFlags, patience time.Duration, op rpc.Operation, payload, into any) (json.RawMessage, error) {
	client, err := p.dial(f, false, nil)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := client.Ask(ctx, op, payload)
	if err != nil {
		return nil, err
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			return nil, fmt.Errorf("read answer of the agent: %w", err)
		}
	}
	return answer, nil
}

// askCollector has the agent ask a collector.
func (p invocation) askCollector(ctx context.Context, f *clientFlags, id string, op rpc.Operation, payload, into any) (json.RawMessage, error) {
	if err := rpc.ValidID(id); err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	text, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	wish := rpc.Wish{ID: id, Payload: text}
	if payload == nil {
		wish.Payload = nil
	}
	return p.ask(ctx, f, collectorDeadline, op, wish, into)
}

// writeJSON prints one indented document.
func writeJSON(f *os.File, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return cli.Write(f, string(text)+"\n")
}

// report asks the agent for everything it knows.
func (p invocation) report(ctx context.Context, f *clientFlags) (*rpc.AgentReport, error) {
	r := new(rpc.AgentReport)
	_, err := p.ask(ctx, f, askDeadline, rpc.OpCollectors, nil, r)
	return r, err
}
