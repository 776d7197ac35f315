// Package tree runs services and keeps them running, each on its own.
//
// A [Tree] is a two-level supervision tree: groups, and services in them. A
// [Service] that returns or panics is started again; its siblings don't notice,
// because each service stands alone in a supervisor of its own and so has a
// failure budget of its own. What happened to a service (starts, failures,
// panics with their place, back-offs) is recorded before it is started again
// and is read with [Tree.Services], which never waits for a service.
//
// # The contract of a service
//
// Serve runs until its context ends and starts no goroutine that outlives it.
// What it returns says what follows:
//
//   - anything, once its context has ended: it is stopped;
//   - [ErrDone], wrapped or not: it has ended for good and is not started again;
//   - anything else, nil and the errors of other contexts included: a failure;
//   - a panic or runtime.Goexit: a failure.
//
// # Back-off
//
// After a failure a service is started again at once, until it has failed more
// than Config.FailureThreshold times (default 5); old failures fade with a
// half-life of Config.FailureDecay (default 30 s). Then it rests for
// Config.FailureBackoff (default 5 s) times a random factor in [1, 1.5), and
// begins with a clean account. This goes on for ever: a service is never given
// up. A service that always fails at once thus starts about once a second.
//
// # Progress
//
// A hang can't be mended from outside. A service that has a deadline reports
// progress by [Progress.Beat]; one that is running and has not done so for
// longer than its deadline is listed by [Tree.Hung], for a watchdog to act on.
//
// # Stopping
//
// The context of the services keeps the values of Start's context but not its
// cancellation: only [Tree.Stop] and [Tree.Close] end a service, so that the
// caller decides the order. A service that does not end in time is named by
// [ErrUnstopped] and its state is [StateHung]; its goroutine lives on, the
// others can be stopped all the same.
package tree
