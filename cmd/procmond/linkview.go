package main

import (
	"fmt"
	"strings"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/supervisor/control"
)

// link is what there is to say about agent and delivery.
func (v *stateView) link(s *control.State) {
	r := &s.Registration
	if s.Link == nil {
		v.row("registration", "%s", spaced(r.State)+v.sinceText(r.Since)+because(r.Cause))
		return
	}
	v.row("registration", "%s%s%s%s", spaced(r.State), v.sinceText(r.Since), because(r.Cause), counted(r.Failures, plural(r.Failures, "attempt")+" failed"))
	if r.AgentVersion != "" {
		v.row("", "agent %s, heartbeat every %s, %d sent%s", cli.Printable(r.AgentVersion), span(time.Duration(r.HeartbeatIntervalMS)*time.Millisecond),
			r.Heartbeats.Sent, counted(r.Heartbeats.Failed, "failed"))
	}
	v.row("link", "%s as %s", cli.Printable(s.Link.Socket), cli.Printable(s.Link.ID))
	v.row("", "%s", v.connection("control", &s.Link.Control)+", "+v.connection("events", &s.Link.Events)+counted(s.Link.Refused, "refused by the broker"))
	if d := s.Delivery; d != nil {
		v.delivery(d)
	}
	if s.Pressure.On {
		v.row("pressure", "%s%s%s", v.paint.Yellow("on"), v.sinceText(s.Pressure.Since), because(s.Pressure.Cause))
	}
	v.requests(s.RPC)
}

func (v *stateView) connection(name string, c *control.Connection) string {
	text := name + " " + spaced(c.State)
	if c.State != "connected" && c.LastError != "" {
		text += " (" + cli.Shorten(cli.Printable(c.LastError), max(30, v.width-60)) + ")"
	}
	return text + counted(c.Reconnects, plural(c.Reconnects, "reconnect"))
}

func (v *stateView) delivery(d *control.Delivery) {
	v.row("delivery", "%s%s, up to event %d, %d in this run%s%s%s%s", spaced(d.State), v.sinceText(d.Since), d.LastSeq, d.Delivered,
		counted(d.Duplicates, "the stream had already"), counted(d.Full, plural(d.Full, "time")+" full"),
		counted(d.Unknown, plural(d.Unknown, "unknown outcome")), v.ackText(d))
	if d.LastError != "" && d.State != "idle" && d.State != "sending" {
		v.row("", "last error %s: %s", v.ago(d.LastErrorAt), cli.Printable(d.LastError))
	}
}

func (v *stateView) ackText(d *control.Delivery) string {
	switch {
	case d.InFlightMS >= time.Second.Milliseconds():
		return ", waits for an answer for " + span(time.Duration(d.InFlightMS)*time.Millisecond)
	case d.LastAckMS > 0:
		return fmt.Sprintf(", last batch %s ms", decimal(d.LastAckMS))
	}
	return ""
}

// requests are the agent's, by operation.
func (v *stateView) requests(ops []control.Operation) {
	var parts []string
	for _, op := range ops {
		if op.Count == 0 {
			continue
		}
		name := op.Operation
		if name == "" {
			name = "unreadable"
		}
		parts = append(parts, fmt.Sprintf("%s %d", cli.Printable(name), op.Count)+strings.Replace(counted(op.Errors, "failed"), ", ", " (", 1)+closing(op.Errors))
	}
	if len(parts) > 0 {
		v.row("requests", "%s", strings.Join(parts, ", "))
	}
}

// closing ends what a count began.
func closing(n uint64) string {
	if n == 0 {
		return ""
	}
	return ")"
}
