// Package rpc is what an agent and its collectors say to each other: subjects,
// names, and the JSON of control messages. It holds types and no behaviour, and
// imports nothing that talks to a network.
//
// Every control message is one JSON object, a [Request] or a [Response] with a
// payload of its operation, or a [Heartbeat]. Fields are added, never renamed or
// removed; a receiver ignores fields that it does not know. docs/messages.md shows
// each of them.
//
// Events are not JSON: they are the bytes that the collector's store holds (see
// collect/event), published on [EventSubject] with the header "Nats-Msg-Id" that
// [MsgID] makes.
package rpc
