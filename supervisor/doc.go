// Package supervisor builds procmond's tree, connects its parts, and acts on
// their transitions.
//
// It is the only package that sees the collector, the store and the control
// socket together. Each states the small interface that it needs; the adapters
// here join them. Data goes one way: collector, sink, store. What comes back
// comes back as a return value.
//
// # Lifetimes
//
// The store is opened and closed by the caller, outside of the tree. The
// machines and the collector's mailbox belong to the [Supervisor] and outlive
// every service: a collector that crashes comes back to the same mailbox and
// the state that its machine holds.
//
// # Stopping
//
// [Supervisor.Run] stops the parts in the order in which data flows, each with
// a deadline, when its context ends or the collector was told to shut down: the
// collector completes its cycle and writes its last event; retention; the
// control socket and the watchdog last, so that a stop can be watched. Whatever
// does not stop in time is named and left behind.
//
// # Saying what state it is in
//
// [Supervisor.State] is put together from snapshots that the parts publish. It
// takes no lock that is held over I/O, so a blocked disk or a stuck scan never
// hides what is going on.
package supervisor
