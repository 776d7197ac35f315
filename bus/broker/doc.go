// Package broker is the agent's end of the bus: a NATS server with JetStream inside
// the agent's process, behind a Unix socket.
//
// # Services
//
// [Broker.Services] are run by a supervision tree, each restarted on its own:
//
//   - server: the NATS server, its store and its streams. Its next start is a new
//     server on the same store.
//   - socket: the Unix socket. It hands connections to whichever server runs; while
//     none does, clients are told so and try again.
//   - listener: the same over TCP, only if Config.Listen asks for it.
//   - stream: makes room behind the consumers, keeps positions, watches the rates.
//
// # Who may connect
//
// The socket has its mode from the first moment: 0600, 0660 with Config.Group, 0666
// with Config.AllowUIDs. Whatever the mode, the kernel tells who connects, and only
// root, the agent's own user, processes whose group is Config.Group and AllowUIDs
// come in. Over TCP nobody can be told by that, so only readers and the operator
// come in there: a collector is on this host and uses the socket.
//
// Then each connection presents a user name and that user's secret, which is read
// from its file each time ([rpc.SecretPath], [Enroll]): who is enrolled or revoked
// needs no restart, but a connection that is up stays up.
//
// # Who may say what
//
// The server holds each user to its own subjects ([rpc] names them). Its permissions
// don't cover where an answer goes to: the acknowledgement of an event would be
// stored as another collector's event if that subject were named for the answer. So
// the broker reads along what clients send, and refuses answers to any place but
// the user's own inboxes.
//
// Whatever is turned away is counted by its reason, with who it was: [Broker.Refusals].
//
// # The stream
//
// [rpc.Stream] is bounded in size and age, and refuses events when it is full. It
// syncs before it acknowledges. Above 70 % of its size what all durable consumers
// have acknowledged is removed; without a durable consumer only age frees.
//
// What a collector delivered last ([Broker.Last]) is known as long as the store
// lives: from its newest event in the stream, or from a record that is written before
// anything is removed, at an orderly stop, and within [PositionEvery] of a change.
// The record may lag behind by that much in one case: the agent was killed, and was
// down for longer than MaxAge.
package broker
