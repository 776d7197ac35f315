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
// # Services
//
// Registration, Heartbeat, Server and Publisher, and the Monitor of backpressure,
// each run on their own in a supervision tree and can be restarted at any moment.
// What must outlive them (the registration's machine, positions, statistics) belongs
// to the caller, the Link or the store.
//
// # Delivery
//
// The publisher reads the store from the cursor on and sends atomic batches, one at
// a time, so that nothing overtakes anything. After every connect and every outcome
// that it does not know it asks the agent what the stream holds of this collector,
// and goes on from there: a batch is neither sent twice nor left out, whoever was
// killed or restored meanwhile.
package bus
