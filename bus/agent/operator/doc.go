// Package operator is how a person reaches a running agent: over its broker's socket,
// with the operator's secret, which only the agent's owner can read. It asks the
// agent, never a collector, and reads the stream of events without leaving a trace in
// it.
package operator
