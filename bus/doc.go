// Package bus is a collector's link to its agent: it publishes stored events in
// order, keeps the collector registered, and answers requests.
//
// The other end is a NATS server that the agent runs behind a Unix socket
// (bus/broker). Nothing here knows a collector or a store: each service states the
// functions that it needs, and the supervisor connects them.
//
// # Two connections
//
// A [Link] owns two connections, so that heartbeats and answers never queue behind
// events: control, and events. Both reconnect for ever, with growing and jittered
// delays, read the secret anew each time, and buffer nothing while they are down:
// what is not sent is not pretended to be.
//
// A session is one connection from its handshake to its end. Work on the agent's
// behalf is bound to one, so that it ends at once when the connection is lost; the
// library itself would let a request wait for its deadline.
//
// The library is used in ways that its source, not its documentation, explains:
//
//   - with a reconnect buffer of -1, publishing while not connected is an error at
//     once; with any other value it is a promise that a restart breaks;
//   - its first attempt is made by whoever opens the connection, so the dialer
//     refuses that one and the second is made in the background;
//   - refused credentials reach no callback before the first success, but LastError;
//   - a write to an agent that does not read holds the library's lock, so its time
//     is bounded and its failure ends the connection.
//
// # Services
//
// Registration, Heartbeat, Server and Publisher, and the Monitor of backpressure,
// each run on their own in a supervision tree and can be restarted at any moment.
// What must outlive them (the registration's machine, positions, statistics) belongs
// to the caller, the Link, the store, or the service's value, which is used again.
// Their Status methods never wait for a service or for the library. OnTransition,
// Describe, Beat, Totals and the like are called in a service's goroutine and must
// not block.
//
// # Requests
//
// A [Server] carries out at most ten requests at once, each until its deadline, and
// answers each that it has read; what comes faster than it can be refused is dropped
// and counted. A request has no effect when it is refused. Answers go to inboxes of
// others only: whoever may ask could otherwise make the collector speak where only
// it may. A handler that panics takes the service with it, after the answers to the
// others.
//
// # Delivery
//
// The publisher reads the store from the cursor on and sends atomic batches, one at
// a time, so that nothing overtakes anything. After every connect and every outcome
// that it does not know it asks the agent what the stream holds of this collector,
// and goes on from there: a batch is neither sent twice nor left out, whoever was
// killed or restored meanwhile. What became of a batch:
//
//   - stored: the position moves at once; the cursor becomes durable five times a
//     second at most, and when there is nothing more to send;
//   - full (the stream's, account's or server's limit): half of it is tried again
//     after a rest, down to a single event, so that what room there is gets used;
//   - it holds an event that is stored: its events are sent singly, in order, and
//     those that the stream has count as delivered;
//   - too many events for this server: smaller batches for as long as Serve runs;
//   - everything else, a broken connection, no answer, a failing disk: not known.
//     A server that refuses a message in the middle of a batch says only that the
//     batch is incomplete; the second time its events are sent singly, which tells.
//
// An event that the server refuses for its size is said in LastError with its
// sequence. It is not skipped; the store's budget ends the wait by shedding it.
//
// The batches' headers are written here and not by orbit.go's jetstreamext, which
// the benchmarks measure side by side: neither is faster by much (docs/performance.md),
// because the server is what takes the time, but its Commit blocks, so that reading the next batch meanwhile
// would take another goroutine; its wait for the first message, the only way in
// which it learns why a batch is refused as such, knows no context and costs a round
// trip; and it adds 0.6 MB to the program. Both need only the permission to publish
// events and to listen on the own inbox.
package bus
