// Package agent is the mind of the agent: it knows its collectors, decides when they
// begin, notices when they fall silent, and runs those that are its children.
//
// It talks to collectors over a broker ([Broker]) and never to a network by itself.
// The messages are those of bus/rpc.
//
// # Services
//
// [Agent.Run] runs the broker's services and its own in one tree, each of which can
// be restarted at any moment: what must outlive them (the machine, what is known of
// collectors, wishes, counters, processes) belongs to the [Agent].
//
//	broker/*              given to Run
//	agent/registration    answers Register, Deregister and Last
//	agent/heartbeats      takes heartbeats
//	agent/coordination    the machine: ready, begin, staleness, wishes
//	agent/requests        answers the operator
//	children/ID           one for each program to run, see [Child]
//
// Each service has a connection of its own and ends with it.
//
// # Coordination
//
// A collector is ready when it is registered, has sent a heartbeat since, and is not
// unhealthy. When all expected ones are, the machine goes from loading to ready, all
// are told to begin at once, and it is steady; nobody is begun before, except by the
// operator. After Timing.Ready it is startup_failed instead: it serves on, and goes
// on to ready when all are there. In steady a collector that registers, late or
// again, is begun by a request of its own, until its heartbeat says that it runs.
//
// # Trust
//
// What comes in was written by others. The broker proves by the subject who asks;
// the id within must be the same, and an answer goes only to the inboxes of who
// asked, for otherwise the agent would publish where the asker may not. What is
// refused has no effect and is counted, see rpc.AgentReport.
//
// # Stopping
//
// First the machine (shutting_down), then the children, which deliver what they have
// into the broker that still runs, then the agent's services, then the broker's, in
// the reverse of the order in which they were given.
package agent
