// Package fsm says which states procmond and its agent can be in, and which
// events lead from one to another; it refuses everything else.
//
// There are three machines (see docs/machines.md, generated from this
// package): the collector's ([NewCollector]), the registration's
// ([NewRegistration]) and the agent's ([NewAgent]).
//
// A [Machine] only keeps the state. [Machine.Fire] answers with the transition
// that took place, or with [ErrInvalid] and no change; acting on it, keeping a
// journal of it and counting it are the caller's. There are no callbacks, no
// goroutine, no I/O, and no context: nothing that runs under the machine's lock
// can fail, block or panic, so a machine is never left half way between two
// states, whatever becomes of the goroutine that fired.
//
// # Events that change nothing
//
// abort (collector) and shutdown (agent) are accepted in every state, so that
// who must end can always end. In the state they lead to they are accepted and
// change nothing: Fire returns a [Transition] whose From equals To, for which
// [Transition.Changed] is false, and since, cause and count of the machine stay
// as they were. Such a transition belongs in no journal. "stopped because of A"
// is therefore never overwritten by a later abort for reason B.
package fsm
