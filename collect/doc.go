// Package collect turns the host's process table into events.
//
// [Collector] is an actor: the goroutine in [Collector.Serve] owns the table of
// living processes and everything else that changes. It is reached through the
// [Handle] of its [Mailbox], which takes five messages and never blocks its
// caller, and it is watched through [Status], which never waits for it.
//
// # A cycle
//
// A [Scanner] takes a snapshot of the host. The collector compares it with its
// table, makes events of the differences, and hands them to the [Sink] together
// with the table changes that make them true. What the sink has accepted is
// durable; only then does the collector go on. Each cycle ends with a batch that
// says as of when the table is complete, even if nothing has changed.
//
// The scan and every other call that touches the host run on one goroutine of
// their own, so that a host that does not answer never hides the actor. There
// is at most one, and while it runs the table is not written. Serve joins it,
// unless it hangs: then the next Serve waits for it before it scans.
//
// # Runs
//
// The table outlives the process: a [Loader] brings it back, and the first
// comparison reports what happened meanwhile, with the source "recovered". A
// process that was reported as started is not started again, and one that ended
// unseen gets its stop. Each failed append that leaves the store's content in
// doubt throws the table in memory away, and the durable one is loaded again.
//
// # Lifetimes
//
// Mailbox and machine belong to the caller and outlive the actor. Serve may be
// called again after it returned, or a new Collector be made for the same
// mailbox: the settings in force, the run's identity and waiting requests are
// kept there.
package collect
